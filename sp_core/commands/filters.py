"""``filters SOURCE``: a picture of a convolution's filters, and the facts of each."""

from __future__ import annotations

import argparse
from typing import Any

from PIL import Image

from sp_core.commands import options


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from sp_core.filters import SCALINGS, SORTS

    options.add_source(parser)
    parser.add_argument("--layer", default=None, help="a convolution; by default the first that reads the image")
    parser.add_argument("--scaling", default="filter", choices=SCALINGS, help="each filter's own range, or the layer's")
    parser.add_argument("--sort", default="index", choices=SORTS, help="the order of the filters in the picture")
    parser.add_argument("--width", type=int, default=960, help="least width of the picture in pixels (default 960)")
    options.add_output(parser, "filters.png")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the picture, return the facts."""
    from sp_core import filters
    from sp_core.errors import SpError
    from sp_core.figures import filters as figures

    net = options.load(args)
    bank = filters.bank(net, args.layer)
    if not 1 <= args.width <= 8192:
        raise SpError(f"--width must be between 1 and 8192 pixels; got {args.width}.")
    facts = filters.facts(bank)
    order = facts.order(args.sort)
    if bank.view == "lines":
        flat = filters.FilterBank(
            bank.layer, bank.kind, bank.weight[:, :, None], bank.groups, "tiles", bank.reads_image
        )
        sheet = figures.kernel_sheet(flat)
    elif bank.view == "tiles":
        sheet = figures.kernel_sheet(bank, common=args.scaling == "layer")
    else:
        sheet = figures.sheet(bank, args.scaling, order)
    times = max(1, -(-args.width // sheet.image.width))
    width, height = sheet.image.size
    picture = sheet.image.resize((times * width, times * height), Image.Resampling.NEAREST)
    path = options.write_picture(picture, args.out)
    rows = facts.rows()
    colours = {"rgb": "in colour", "grey": "in grey", "lines": "as signed rows, one an input channel"}
    return {
        "layer": bank.layer,
        "kind": bank.kind,
        "shape": list(bank.weight.shape),
        "groups": bank.groups,
        "view": bank.view,
        "scaling": args.scaling,
        "order": order.tolist(),
        "fingerprint": net.fingerprint,
        "picture": path,
        "filters": rows,
        "text": f"{bank.count} filters of {bank.layer} ({'×'.join(map(str, bank.weight.shape))}) "
        f"{colours.get(bank.view, f'as tiles, a column {figures.column(bank)}')}: {path}\n"
        + "\n".join(_line(row) for row in rows[:: max(1, len(rows) // 12)]),
    }


def _line(row: dict[str, Any]) -> str:
    def say(name: str, form: str) -> str:
        return "-" if row[name] is None else format(row[name], form)

    state = " dead" if row["dead"] else " weak" if row["weak"] else ""
    return (
        f"  {row['filter']:4}  orientation {say('orientation', '5.1f')}°  frequency {say('frequency', '.3f')}  "
        f"colourfulness {say('colourfulness', '.2f')}  rank-1 energy {say('rank1', '.2f')}  "
        f"Gabor R² {say('gabor_r2', '.2f')}{state}"
    )
