"""``architectures``: the zoo as a list with costs, or one architecture layer by layer, without making its weights."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", nargs="?", help="one architecture, such as resnet50-root8; without it all are listed")
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="how it is made: classes=100")
    parser.add_argument("--find", default="", metavar="TEXT", help="only those whose name or text holds it")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The list, or the one."""
    return _one(args.name, " ".join(args.options)) if args.name else _all(args.find)


def _all(find: str) -> dict[str, Any]:
    from sp_core import zoo
    from sp_core.architecture import cost
    from sp_core.counts import short
    from sp_core.errors import SpError

    rows: list[dict[str, Any]] = []
    for name in zoo.names():
        entry = zoo.entry(name)
        if find.lower() in f"{name} {entry.about}".lower():
            parameters, macs = cost(name)
            rows.append(
                {"name": name, "about": entry.about, "parameters": parameters, "macs": macs, "input": entry.input_size}
            )
    if not rows:
        raise SpError(f"No architecture has '{find}' in its name or text; leave --find out to see all.")
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'name':{width}}  {'parameters':>10}  {'MACs':>8}  about"]
    lines += [
        f"{row['name']:{width}}  {short(row['parameters']):>10}  {short(row['macs']):>8}  {row['about']}"
        for row in rows
    ]
    return {"text": "\n".join(lines), "architectures": rows}


def _one(name: str, options: str) -> dict[str, Any]:
    from sp_core.architecture import describe, options_in
    from sp_core.published import corrections_of, records

    found = describe(name, options_in(options))
    published = [asdict(one) for one in records() if one.network == name]
    wrong = [asdict(one) for one in corrections_of(name)]
    rows = [asdict(row) for row in found.layers if row.leaf]
    width = max(len(row["name"]) for row in rows)
    lines = [f"{name}: {found.about}"]
    lines += [f"takes {key} ({value})" if value else f"takes {key}" for key, value in found.takes.items()]
    lines.append(f"{'layer':{width}}  {'kind':18}  {'output':>14}  {'parameters':>12}  {'MACs':>14}  field")
    for row in rows:
        shape = "×".join(map(str, row["shape"]))
        field = "×".join(f"{side:g}" for side in row["field"]) if row["field"] else row["status"]
        counts = f"{row['parameters']:>12,}  {row['macs']:>14,}"
        lines.append(f"{row['name']:{width}}  {row['kind']:18}  {shape:>14}  {counts}  {field}")
    lines.append(f"{found.parameters:,} parameters, {found.macs:,} multiply-accumulates for one image")
    for one in published:
        errors = [f"{key[:4]} {one[key]:g} %" for key in ("top1_error", "top5_error") if one[key] is not None]
        lines.append(f"published: {', '.join(errors)} on {one['data']} ({one['source']})")
    lines += [f"wrong: {one['where']} says “{one['says']}”; right: {one['right']}" for one in wrong]
    return {
        "text": "\n".join(lines),
        "name": name,
        "about": found.about,
        "options": dict(found.options),
        "takes": dict(found.takes),
        "input": found.input_size,
        "parameters": found.parameters,
        "macs": found.macs,
        "status": found.status,
        "layers": rows,
        "published": published,
        "corrections": wrong,
    }
