"""``top FOLDER UNIT``: the patches that drive a unit most, as numbers and, with ``--out``, as a picture."""

from __future__ import annotations

import argparse
from typing import Any

from sp_core.commands.options import write_picture

WHICH = ("best", "worst", "random")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The index, the unit, and which patches."""
    parser.add_argument("folder", metavar="FOLDER", help="an index that the verb 'index' has built")
    parser.add_argument("unit", metavar="UNIT", help="layer:channel, such as layer4:20")
    parser.add_argument("--k", type=int, default=None, help="how many patches (default: as many as are kept)")
    parser.add_argument("--which", choices=WHICH, default="best", help="random: evenly spaced through a random sample")
    parser.add_argument("--out", default=None, metavar="FILE", help="also write the patches as one picture")
    parser.add_argument("--size", type=int, default=96, help="longest side of a tile of the picture (default 96)")
    parser.add_argument("--dataset", default=None, metavar="DATA", help="the images, for --out; textures need none")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Read the index; cut the patches if a picture is wanted."""
    from sp_core.network import Unit
    from sp_core.patches import PatchIndex, table

    index = PatchIndex(args.folder)
    unit = Unit.parse(args.unit)
    patches = index.patches(unit, args.which, args.k)
    rows = table(patches, index.classes)
    lines = [f"{unit.layer}:{unit.channel} · {args.which} of {index.images} images of {index.dataset['name']}"]
    lines += [
        f"{row['rank'] + 1:3}  image {row['image']:<7} {row['activation']:11.5g}"
        f"  percentile {row['percentile']:6.2f}  {row['class']}"
        for row in rows
    ]
    answer: dict[str, Any] = {
        "unit": f"{unit.layer}:{unit.channel}",
        "which": args.which,
        "network": index.network,
        "dataset": {key: value for key, value in index.dataset.items() if key != "classes"},
        "images": index.images,
        "done": index.done,
        "total": index.total,
        "active_share": index.active_share(unit),
        "field": index.field(unit.layer),
        "patches": rows,
    }
    if args.out:
        from sp_core.figures.sprite import make_sprite
        from sp_core.patches.view import cut

        tiles = cut(index.open_dataset(args.dataset), patches, index.feed, args.size)
        answer["out"] = write_picture(make_sprite(tiles, columns=len(tiles), gap=2).image, args.out)
        lines.append(f"written to {answer['out']}")
    return answer | {"text": "\n".join(lines)}
