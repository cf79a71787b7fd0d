"""Makes ``assets/timm.json`` for the installed timm: ``python -m sp_core.checkpoints.timm_table`` (about ten minutes).

Every architecture is built four times without memory: as it is, with another number of classes, without a head and with
another number of input channels; what changes is the head and the stem. Architectures that have all names and shapes in
common are run with the same random weights in double precision: those whose outputs agree compute the same, and those
that cannot be compared count as different.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sp_core.checkpoints.catalogue import shapes_of
from sp_core.checkpoints.timm_names import TABLE, Shapes, create, facts, hash_names, hash_shapes, skeleton
from sp_core.errors import SpError

_CLASSES = 1000
_MOST_PARAMETERS = 120e6  # of networks that are run; larger ones count as different
_SAME = 1e-9  # of the largest output, in double precision


def shapes(name: str, classes: int, channels: int) -> Shapes | None:
    """Names and shapes of one architecture; None where timm cannot build it so."""
    try:
        return shapes_of(skeleton(name, classes, channels))
    except SpError as error:
        sys.stderr.write(f"{name}({classes}, {channels}): {error}\n")
        return None


def rows(name: str) -> Iterator[tuple[str, tuple[str, ...], dict[str, int], str]]:
    """``(hash of the body's names, head, stem, hash of shapes)`` with a head and, where it has another, without."""
    plain = shapes(name, _CLASSES, 3)
    if plain is None:
        return
    more = shapes(name, _CLASSES + 13, 3) or plain
    deep = shapes(name, _CLASSES, 4) or plain
    head = tuple(sorted(key for key, shape in plain.items() if more.get(key) != shape))
    if any(plain[key][0] != _CLASSES or more.get(key, (0,))[0] != _CLASSES + 13 for key in head):
        head = ()  # not a head whose first axis is the number of classes
    stem = {}
    for key, shape in plain.items():
        if deep.get(key, shape) != shape and len(shape) > 1 and deep[key][1] * 3 == shape[1] * 4:
            stem[key] = shape[1] // 3
    bodies = [({key: shape for key, shape in plain.items() if key not in head}, head)]
    bare = shapes(name, 0, 3)
    if bare is not None and head:
        bodies.append((dict(bare), ()))
    for body, ends in bodies:
        yield hash_names(body), ends, stem, hash_shapes(body, stem)


def weigh(module: nn.Module) -> None:
    """The same random weights for every architecture of one set of names; none of them zero, as fresh ones may be."""
    generator = torch.Generator().manual_seed(0)
    for name, value in sorted(module.state_dict().items()):
        if not value.is_floating_point():
            continue
        drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if name.endswith("running_var"):
            drawn = 1 + drawn.abs()
        elif value.ndim > 1:
            drawn = drawn / math.sqrt(max(1, value[0].numel()))
        elif name.endswith("weight") or "gamma" in name or "scale" in name:
            drawn = 1 + 0.2 * drawn
        else:
            drawn = 0.1 * drawn
        value.copy_(drawn)


@torch.no_grad()
def outputs(name: str, sides: list[int], classes: int) -> list[torch.Tensor] | None:
    """What ``name`` makes of random images of ``sides`` pixels; None where it cannot be run on any of them."""
    if sum(value.numel() for value in skeleton(name, classes, 3).parameters()) > _MOST_PARAMETERS:
        return None
    module = create(name, classes, 3).double().eval()
    weigh(module)
    answers = []
    for side in sides:
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
        try:
            answers.append(module(images))
        except Exception:  # noqa: BLE001  # transformers take one size only, and say so in many ways
            answers.append(torch.full((1,), math.nan))
    return answers


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    """Whether two architectures agree wherever both run, and there is such a place."""
    agreed = False
    for x, y in zip(a, b, strict=True):
        runs = (bool(torch.isfinite(x).all()), bool(torch.isfinite(y).all()))
        if not all(runs):
            continue
        if x.shape != y.shape or float((x - y).abs().max()) > _SAME * float(x.abs().max()):
            return False
        agreed = True
    return agreed


def groups(names: list[str], classes: int) -> list[list[str]]:
    """``names`` of one set of names and shapes, in groups that compute the same; the likeliest group first."""
    import timm

    trained = set(timm.list_models(pretrained=True))
    trained |= {name.partition(".")[0] for name in trained}
    order = sorted(names, key=lambda name: (name not in trained, len(name), name))
    if len(order) == 1:
        return [order]
    # Even and odd sides: padding that depends on the size agrees on some.
    sides = sorted({64, 97, *(int((facts(name).get("input_size") or (3, 224, 224))[1]) for name in order)})
    found: list[tuple[list[str], list[torch.Tensor] | None]] = []
    for name in order:
        made = outputs(name, sides, classes)
        for group, known in found:
            if made is not None and known is not None and same(made, known):
                group.append(name)
                break
        else:
            found.append(([name], made))
    return [group for group, _ in found]


def main() -> None:
    """Write the table; progress goes to standard error."""
    import timm

    warnings.simplefilter("ignore")
    gathered: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    every = timm.list_models()
    for index, name in enumerate(every):
        for body, head, stem, hashed in rows(name):
            gathered[body, head, tuple(sorted(stem.items())), hashed].append(name)
        if index % 100 == 0:
            sys.stderr.write(f"{index} of {len(every)} architectures\n")
    heads = sorted({key[1] for key in gathered})
    stems = sorted({key[2] for key in gathered})
    lines: dict[str, list[Any]] = defaultdict(list)
    for body, head, stem, hashed in sorted(gathered):
        names = gathered[body, head, stem, hashed]
        alike = groups(names, _CLASSES if head else 0)
        if len(names) > 1:
            sys.stderr.write(f"{alike}\n")
        lines[body].append([heads.index(head), stems.index(stem), hashed, alike])
    rest = ",\n".join(f"{json.dumps(body)}: {json.dumps(found)}" for body, found in sorted(lines.items()))
    text = (
        f'{{"timm": {json.dumps(timm.__version__)},\n"heads": {json.dumps(heads)},\n'
        f'"stems": {json.dumps([dict(stem) for stem in stems])},\n"rows": {{\n{rest}\n}}}}\n'
    )
    json.loads(text)
    TABLE.write_text(text, "utf-8")
    sys.stderr.write(f"{TABLE}: {len(every)} architectures, {len(text) // 1024} KB\n")


if __name__ == "__main__":
    main()
