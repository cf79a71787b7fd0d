"""The passes over a network that its receptive fields are read from, and the reading."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from sp_core.network import Network
from sp_core.shadows.call import forget, know
from sp_core.shadows.field import Extent, ReceptiveField
from sp_core.shadows.follow import OverBudget, follow
from sp_core.shadows.law import AxisLaw, axis_law
from sp_core.shadows.shadow import EMPTY, HELD, MISALIGNED, Shadow
from sp_core.trace import Layer, input_dtype, private_copy, run_layers, with_axes

# How much larger the larger images are. Multiples of 512 and 3 keep every padding of the real size, also where it
# depends on the parity of a map (TensorFlow's "SAME").
GROWTH = (1536, 3072, 6144, 24576)
BUDGET = 800_000_000  # numbers of all shadows of a pass; a few seconds, which only the deepest DenseNets need


@dataclass
class Survey:
    """What the passes found for one network: the fields, and the boxes of all units at the network's own size."""

    fields: dict[str, ReceptiveField]
    grids: dict[str, Shadow] = field(default_factory=dict)


@dataclass
class _Pass:
    """What one pass found: the image's height and width, and each layer's shadow."""

    extent: tuple[int, int]
    grids: dict[str, Shadow | None]
    shapes: dict[str, tuple[int, ...]]
    ratios: list[tuple[int, int] | None]
    layers: tuple[Layer, ...] = ()


def _run(
    net: Network,
    grow: int,
    local: bool,
    ratios: list[tuple[int, int] | None] | None = None,
    clone: nn.Module | None = None,
) -> _Pass:
    """Run ``clone``, a copy on the meta device; without one, a copy of the network where it is."""
    channels, height, width = net.input_size
    extent = (height + grow, width + grow)
    device = net.device if clone is None else "meta"
    image = torch.zeros(1, channels, *extent, device=device, dtype=input_dtype(net.module))
    grids: dict[str, Shadow | None] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    one_image: dict[tuple[int, ...], tuple[Shadow, Shadow]] = {}  # keeps the first alive, so that its id stays its own
    if clone is None:  # tensors of its own over the same memory: following leaves notes on tensors
        tensors = [*net.module.parameters(), *net.module.buffers()]
        clone = private_copy(net.module, memo={id(tensor): tensor.detach() for tensor in tensors})
    else:
        forget(clone)
    with follow(image, local, ratios, BUDGET if grow else None) as shadows:

        def note(layer: Layer, output: Tensor) -> None:
            shadow = shadows.shadow(output)
            shapes[layer.name] = layer.output_shape
            grids[layer.name] = None
            if shadow is not None:
                key = (*map(id, shadow.parts), hash(shadow.notes), len(output.shape))
                if key not in one_image:
                    one_image[key] = (shadow, shadow.map(lambda part: part[0]))
                grids[layer.name] = one_image[key][1]

        layers: tuple[Layer, ...] = ()
        try:
            layers = run_layers(clone, image, note)
        except OverBudget:
            pass
        except Exception:
            if not grow:
                raise
            # A flatten in front of a linear layer takes one size only. The layers before it have been seen.
    return _Pass(extent, grids, shapes, shadows.ratios, layers)


def survey(net: Network, local: bool) -> Survey:
    """Run the passes and read every layer."""
    clone = private_copy(net.module, to="meta")
    know(clone, net.module)
    growths = list(GROWTH)
    larger = None
    try:
        real = _run(net, 0, local, clone=clone)
        if real.layers and "layers" not in vars(net):  # none when the pass was cut short
            larger = _run(net, growths.pop(0), local, real.ratios, clone)
            vars(net)["layers"] = with_axes(real.layers, larger.shapes)  # what the property would find by two passes
        layers = net.layers
    except Exception:  # noqa: BLE001 - control flow that looks at values cannot run without them
        layers = net.layers  # says what is wrong when the network does not run at all
        real = _run(net, 0, local)
        growths, larger = list(GROWTH), None
    grids = {name: grid for name, grid in real.grids.items() if grid is not None}
    none = ReceptiveField(0, 0, 0, "unavailable", note="The output does not depend on the image.")
    fields = {layer.name: none for layer in layers}
    waiting = []
    for layer in layers:
        if layer.name in grids and len(layer.output_shape) == 3:  # channels first or last: both have positions
            waiting.append(layer)
        elif layer.name in grids:
            fields[layer.name] = _of_vector(layer, real)
    while waiting and (growths or larger):
        large = larger or _run(net, growths.pop(0), local, real.ratios, clone)
        larger = None
        if not any(layer.name in large.grids for layer in waiting):
            break  # it takes one image size only, from its first layer on
        known: dict[tuple[int, ...], ReceptiveField | None] = {}  # an activation has the boxes of what it follows
        for layer in waiting:
            both = (id(real.grids[layer.name]), id(large.grids.get(layer.name)), *layer.output_shape)
            if both not in known:
                known[both] = _of_map(layer, real, large)
            fields[layer.name] = known[both] or fields[layer.name]
        # A field of more than twice the image looks as if it were the whole of it: a much larger image tells.
        unsure = [layer for layer in waiting if _is_whole(fields[layer.name]) and not _is_one(layer, large)]
        waiting = [layer for layer in waiting if fields[layer.name] is none or layer in unsure]
        if not growths:
            waiting = [layer for layer in waiting if layer not in unsure or layer.name not in large.grids]
        elif len(unsure) == len(waiting):
            growths = growths[-1:]
    for layer in waiting:
        fields[layer.name] = _clipped(layer, real)
    return Survey(fields, grids)


def _is_whole(rf: ReceptiveField) -> bool:
    return rf.status == "whole image" or "see the whole image" in rf.note or "whole image is seen" in rf.note


def _is_one(layer: Layer, large: _Pass) -> bool:
    """Whether the layer has one position only, however large the image: what it sees is the whole."""
    return layer.name in large.shapes and max(large.shapes[layer.name][1:]) == 1


def _of_vector(layer: Layer, real: _Pass) -> ReceptiveField:
    """Behind a global pool or a flatten there are no positions: the field is all that is seen."""
    grid = real.grids[layer.name]
    assert grid is not None, "only layers that depend on the image are read"
    y0, y1, x0, x1 = (int(part[part < EMPTY].amin()) if bool((part < EMPTY).any()) else 0 for part in grid.parts)
    notes = set(grid.notes)
    if any(part.numel() > 1 for part in grid.parts):
        notes.add("single elements see less: this is the union over all of them")
    return _field((1 - y1 - y0, 1 - x1 - x0), (0, 0), (y0, x0), _status(grid.notes, "whole image"), notes)


def _planes(grid: Shadow, shape: tuple[int, ...], channels_last: bool) -> tuple[Shadow, tuple[int, ...]]:
    """The grid and shape as [channels, rows, columns], also of a map that the network keeps with channels last."""
    if channels_last:
        return grid.map(lambda part: part.permute(2, 0, 1)), (shape[2], shape[0], shape[1])
    return grid, shape


def _axis(grid: Shadow, shape: tuple[int, ...], axis: int) -> tuple[Tensor, Tensor]:
    """First and last pixel along axis 0 (y) or 1 (x): ``[channels or 1, units]``, of the row in the middle."""
    found = []
    for part in grid.parts[2 * axis : 2 * axis + 2]:
        other = 2 - axis
        line = part.select(other, shape[other] // 2 if part.shape[other] > 1 else 0)  # [channels or 1, units or 1]
        found.append(line.expand(-1, shape[1 + axis]))
    first, last = torch.broadcast_tensors(*found)
    return first, -last


def _of_map(layer: Layer, real: _Pass, large: _Pass) -> ReceptiveField | None:
    """The law of a layer with positions; None when a larger image is needed to see it."""
    grid = large.grids.get(layer.name)
    if grid is None:
        return None
    wide, narrow = large.shapes[layer.name], layer.output_shape
    last = wide[2] == narrow[2] and wide[0] != narrow[0] and wide[1] != narrow[1]  # channels are what does not grow
    grid, shape = _planes(grid, wide, last)
    near, small = _planes(real.grids[layer.name], narrow, last)  # type: ignore[arg-type]
    moves = any(part.shape[1:].numel() > 1 for part in grid.parts)
    if moves and shape[1:] == small[1:]:
        return _clipped(layer, real, "the map keeps its size whatever the image's, so the field grows with the image")
    laws = [axis_law(*_axis(grid, shape, axis), large.extent[axis]) for axis in (0, 1)]
    if None in laws:
        return None
    seen = [axis_law(*_axis(near, small, axis), real.extent[axis], clipped=True) for axis in (0, 1)]
    return _combine(laws, seen, near.notes | grid.notes, set())  # type: ignore[arg-type]


def _clipped(layer: Layer, real: _Pass, why: str = "no larger image could be run") -> ReceptiveField:
    """What the network's own image size tells, where no larger one does."""
    seen_by = real.grids[layer.name]
    assert seen_by is not None, "only layers that depend on the image are read"
    last = seen_by.parts[0].shape[0] > 1 and all(part.shape[2] == 1 for part in seen_by.parts)
    grid, shape = _planes(seen_by, layer.output_shape, last)
    laws = [axis_law(*_axis(grid, shape, axis), real.extent[axis]) for axis in (0, 1)]
    exact = all(law is not None and law.stride for law in laws)
    seen = [axis_law(*_axis(grid, shape, axis), real.extent[axis], clipped=True) for axis in (0, 1)]
    if exact:
        return _combine(laws, seen, grid.notes, set())  # type: ignore[arg-type]
    found = _combine(seen, seen, grid.notes, {f"the size is as the image clips it: {why}"})  # type: ignore[arg-type]
    return replace(found, status="partial")  # also where all of this image is seen: of a larger one it may not be


def _combine(laws: list[AxisLaw], seen: list[AxisLaw], followed: frozenset[str], notes: set[str]) -> ReceptiveField:
    """One answer from the laws along y and x; channels that see everything get what they see of the real image."""
    channels = max(len(law.size) for law in (*laws, *seen))
    sizes, starts, whole = [], [], torch.ones(channels, dtype=torch.bool)
    for law, near in zip(laws, seen, strict=True):
        everything = law.whole.expand(channels)
        sizes.append(torch.where(everything, near.size.expand(channels), law.size.expand(channels)))
        starts.append(torch.where(everything, near.start.expand(channels), law.start.expand(channels)))
        whole &= everything
    notes = notes | set(followed)
    status = _status(followed, "partial" if notes - followed else "complete")
    if not all(law.even for law in laws):
        status = "partial"
        notes.add("neighbouring units do not see the same shape one step further: the size is the largest")
    if bool(whole.any()):
        status = _status(followed, "whole image")
        if not bool(whole.all()):
            notes.add(f"{int(whole.sum())} of {channels} channels see the whole image")
    if any(bool((law.whole & ~whole).any()) for law in laws):
        notes.add("along one axis the whole image is seen")
    largest = [int(size.argmax()) for size in sizes]
    per_size = list(zip(sizes[0].tolist(), sizes[1].tolist(), strict=True))
    per_start = list(zip(starts[0].tolist(), starts[1].tolist(), strict=True))
    if len({(2 * a + h, 2 * b + w) for (h, w), (a, b) in zip(per_size, per_start, strict=True) if h and w}) > 1:
        notes.add(MISALIGNED)
    stride = tuple(0 if bool(whole.all()) else law.stride for law in laws)
    return _field(
        (per_size[largest[0]][0], per_size[largest[1]][1]),
        stride,  # type: ignore[arg-type]
        (per_start[largest[0]][0], per_start[largest[1]][1]),
        status,
        notes,
        None if len(set(per_size)) == 1 else tuple(_extent(size) for size in per_size),
        None if len(set(per_start)) == 1 else tuple(_extent(start) for start in per_start),
    )


def _status(followed: frozenset[str], otherwise: str) -> str:
    return "partial" if followed - {HELD, MISALIGNED} else otherwise


def _extent(both: tuple[int, int]) -> Extent:
    return both[0] if both[0] == both[1] else both


def _field(
    size: tuple[int, int],
    stride: tuple[float, float],
    start: tuple[int, int],
    status: str,
    notes: set[str],
    per_channel: tuple[Extent, ...] | None = None,
    per_channel_start: tuple[Extent, ...] | None = None,
) -> ReceptiveField:
    text = "; ".join(sorted(notes))
    text = f"{text[0].upper()}{text[1:]}." if text else ""
    step = stride[0] if stride[0] == stride[1] else stride
    return ReceptiveField(_extent(size), step, _extent(start), status, per_channel, text, per_channel_start)
