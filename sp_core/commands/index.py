"""``index SOURCE --dataset D --out FOLDER``: one pass over a data set, and the patches of every unit are known."""

from __future__ import annotations

import argparse
from typing import Any

from sp_core.commands.options import add_source, layer_names, load, progress


def arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the images, the folder, and how much to keep."""
    add_source(parser)
    parser.add_argument(
        "--dataset",
        default="textures",
        metavar="DATA",
        help="textures, textures:SEED, cifar10:PATH, a folder or .zip of images, an address of one (s3://…, gs://…), "
        "or Parquet with a column of encoded images (default textures)",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the index goes, or is gone on with")
    parser.add_argument("--count", type=int, default=None, metavar="N", help="only the first N images")
    parser.add_argument("--top", type=int, default=9, metavar="K", help="patches to keep a unit (default 9)")
    parser.add_argument(
        "--layers", default=None, metavar="NAMES", help="'compact', or layer names with commas (default: all layers)"
    )
    parser.add_argument("--batch", type=int, default=None, metavar="N", help="images a forward pass")
    parser.add_argument(
        "--features", default=None, metavar="FOLDER", help="also leave the features for 'neighbours' there, on the way"
    )
    parser.add_argument(
        "--feature-layers", default=None, metavar="NAMES", help="with commas (default: six over the depth)"
    )
    parser.add_argument("--parquet", default=None, metavar="FILE", help="also write the patches as a Parquet table")
    parser.add_argument(
        "--engine",
        default="local",
        choices=("local", "ray"),
        help="local: this process; ray: every core and GPU of a Ray cluster, or of this machine (default local)",
    )
    parser.add_argument("--fresh", action="store_true", help="start over, whatever the folder holds")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Build the index; say what it holds."""
    from sp_core import datasets
    from sp_core.errors import SpError
    from sp_core.patches import PatchIndex, build_patch_index, write_parquet

    net = load(args)
    dataset = datasets.open(args.dataset, count=args.count)
    records = build_patch_index(
        net,
        dataset,
        args.out,
        args.top,
        layers=args.layers if args.layers == "compact" else layer_names(args.layers),
        batch=args.batch,
        resume=not args.fresh,
        engine=args.engine,
        features=args.features,
        feature_layers=layer_names(args.feature_layers),
    )
    try:
        last = progress(records, len(dataset), "images", done=lambda record: record.done)
    except OSError as error:  # a lost connection: a damaged picture would only be passed over
        raise SpError(f"{dataset.name} cannot be read ({error}); the same command goes on from there.") from error
    index = PatchIndex(args.out)
    speed = last.fresh / last.seconds if last.seconds > 0 else 0.0
    text = f"{index.images} images of {dataset.name} → {len(index.layers)} layers of {net.name} in {args.out}"
    if last.fresh:
        text += f" ({last.fresh} looked at now, {speed:.0f} images/s)"
    if index.skipped:
        text += f"; {index.skipped} could not be read"
    if args.features:
        text += f"; features in {args.features}"
    if args.parquet:
        rows = write_parquet(index, args.parquet)
        text += f"; {rows} patches in {args.parquet}"
    return {
        "folder": str(args.out),
        "features": args.features,
        "network": {"name": net.name, "fingerprint": net.fingerprint},
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint, "count": len(dataset)},
        "images": index.images,
        "skipped": index.skipped,
        "fresh": last.fresh,
        "seconds": last.seconds,
        "layers": [
            {"name": name, "channels": index.channels(name), "dead": len(index.dead(name))} for name in index.layers
        ],
        "text": text,
    }
