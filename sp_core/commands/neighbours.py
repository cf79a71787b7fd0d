"""``neighbours SOURCE --dataset D --folder F``: the images nearest to a picture, and whether neighbours agree."""

from __future__ import annotations

import argparse
from typing import Any

from sp_core.commands.options import add_source, layer_names, load, progress, write_picture


def arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the images, the picture or image asked for, and where features are kept."""
    add_source(parser)
    parser.add_argument(
        "--dataset",
        default="textures",
        metavar="DATA",
        help="textures, textures:SEED, cifar10:PATH, or a folder or .zip of images (default textures)",
    )
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="only the first N images (default 2000)")
    parser.add_argument("--folder", required=True, metavar="FOLDER", help="where the features go, or are gone on with")
    parser.add_argument("--layers", default=None, metavar="NAMES", help="with commas (default: six over the depth)")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--image", metavar="FILE", help="neighbours of this picture")
    asked.add_argument("--number", type=int, metavar="N", help="neighbours of image N of the data set")
    parser.add_argument("--k", type=int, default=9, help="how many (default 9)")
    parser.add_argument("--metric", choices=("cosine", "l2"), default="cosine", help="default cosine")
    parser.add_argument(
        "--approximate", action="store_true", help="search through faiss, which may miss some (default: exact)"
    )
    parser.add_argument("--agreement", action="store_true", help="also how often neighbours are of the same class")
    parser.add_argument("--out", default=None, metavar="FILE", help="also write the neighbours as one picture")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Build what features are missing; search."""
    from dataclasses import asdict

    from sp_core import datasets
    from sp_core.images import open_image
    from sp_core.nearest import Features, agreement, build_features, neighbours

    net = load(args)
    dataset = datasets.open(args.dataset, count=args.count)
    records = build_features(net, dataset, args.folder, layer_names(args.layers))
    progress(records, len(dataset), "images", lambda record: record.done)
    held = Features(args.folder)
    query = args.number if args.image is None else net.view(open_image(args.image))[None]
    options = {"k": args.k, "metric": args.metric, "net": net, "approximate": args.approximate}
    found = [neighbours(held, query, space, **options) for space in held.spaces]
    lines = []
    for row in found:
        names = (held.classes[label] if label >= 0 else "" for label in row.labels)
        each = (
            f"{image} {name} {distance:.4g}".replace("  ", " ")
            for image, name, distance in zip(row.images, names, row.distances, strict=True)
        )
        lines.append(f"{row.space}: {'; '.join(each)}")
    answer: dict[str, Any] = {
        "network": {"name": net.name, "fingerprint": net.fingerprint},
        "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint, "count": len(dataset)},
        "search": "approximate" if args.approximate else "exact",
        "neighbours": [asdict(row) for row in found],
    }
    if args.agreement:
        agreed = [agreement(held, space, args.k, args.metric) for space in held.spaces]
        answer["agreement"] = [asdict(row) for row in agreed]
        lines += [
            f"{row.space}: {row.accuracy:.1%} right by {row.k} neighbours, {row.share:.1%} of the same class "
            f"(chance {row.chance:.1%})"
            for row in agreed
        ]
    if args.out:
        from sp_core.figures.neighbours import grid

        tiles = [[dataset.picture(image) for image in row.images] for row in found]
        answer["out"] = write_picture(grid(tiles), args.out)
        lines.append(f"written to {answer['out']}")
    return answer | {"text": "\n".join(lines)}
