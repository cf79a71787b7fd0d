"""Which pixels reach each unit, measured: the support of a network's Jacobian, made exact.

A gradient can vanish where there is a path: a rectifier is shut, signs cancel, a deep net underflows. So only the
paths are followed: each function is replaced, when it is called, by the union of what it reads. A map holds one bit for
each row of pixels (30 in a number) and all rows are followed at once; bit k of a unit says whether its derivative by
row k can be other than 0. Then the same by columns. Which positions a convolution, a pool or a resizing reads is asked
of torch's own kernel: what it cuts out, or makes of a single 1. A function that is not listed here raises.

Nothing is shared with the engine that is proven by this, which moves boxes below autograd and does no arithmetic; here
every unit has its own bits, above autograd.
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sp_core.network import Network
from sp_core.receptive_field import ReceptiveField, clipped_boxes, pair, receptive_fields
from sp_core.trace import private_copy, run_layers

BITS = 30
LINES = 16 * BITS  # followed in one pass: bounds the memory
ASKS = {"__get__", "size", "dim", "numel", "stride", "is_floating_point", "is_contiguous", "__len__", "ndimension"}
MOVES = {"view", "reshape", "flatten", "permute", "transpose", "contiguous", "chunk", "split", "unbind", "unflatten"}
MOVES |= {"__getitem__", "narrow", "select", "squeeze", "unsqueeze", "expand", "expand_as", "roll", "flip", "clone"}
MOVES |= {
    "detach",
    "movedim",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
    "swapaxes",
    "repeat",
    "t",
    "stack",
}
MOVES |= {"cat", "concat", "copy_", "__setitem__", "index_select"}
MADE = {
    "ones",
    "zeros",
    "full",
    "empty",
    "rand",
    "randn",
    "new_zeros",
    "new_ones",
    "new_empty",
    "zeros_like",
    "ones_like",
}
SAME = {"relu", "relu_", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "silu", "gelu", "hardswish", "hardsigmoid"}
SAME |= {"sigmoid", "tanh", "softplus", "prelu", "mish", "dropout", "dropout2d", "alpha_dropout", "sqrt"}
SAME |= {"threshold", "_threshold"}
SAME |= {
    "clamp",
    "exp",
    "pow",
    "square",
    "__pow__",
    "abs",
    "neg",
    "to",
    "float",
    "double",
    "type_as",
    "feature_dropout",
}
SUMS = {"add", "add_", "__add__", "__radd__", "__iadd__", "sub", "__sub__", "__rsub__", "__isub__", "maximum", "div"}
SUMS |= {"__truediv__", "true_divide"}
PRODUCTS = {"mul", "mul_", "__mul__", "__rmul__", "__imul__"}
REDUCTIONS = {"mean", "sum", "amax", "amin"}


def union(*maps: Tensor) -> Tensor:
    """Position by position, done once along dimensions in which each map lies in one place."""
    maps = torch.broadcast_tensors(*maps)
    thin = list(maps)
    for dim in range(maps[0].ndim):
        if all(part.stride(dim) == 0 for part in maps):
            thin = [part.narrow(dim, 0, 1) for part in thin]
    found = thin[0]
    for part in thin[1:]:
        found = found | part
    return found.expand(maps[0].shape)


def over(x: Tensor, dims: int | Sequence[int]) -> Tensor:
    """The union over ``dims``, which stay with size 1."""
    for dim in [dims] if isinstance(dims, int) else dims:
        x = x.narrow(dim, 0, 1) if x.stride(dim) == 0 else x
        while (size := x.shape[dim]) > 1:
            half = size // 2
            both = x.narrow(dim, 0, half) | x.narrow(dim, half, half)
            x = torch.cat([both, x.narrow(dim, size - 1, 1)], dim) if size % 2 else both
    return x


Kernel = tuple  # (name, options along the axis …): hashable, so that each is asked once


@cache
def _reads(kernel: Kernel, size: int) -> tuple[Tensor, Tensor]:
    """Which positions each output of a kernel along one axis reads: ``[out, most]``, repeated; and which read none."""
    name, *options = kernel
    if name == "conv":  # a convolution is a product with what `unfold` cuts out
        length, stride, padding, dilation = options
        line = torch.arange(1.0, size + 1).view(1, 1, size, 1)
        at = F.unfold(line, (length, 1), (dilation, 1), (padding, 0), (stride, 1))[0].T.long() - 1  # [out, length]
        most = at.amax(1, keepdim=True)
        return torch.where(at < 0, most, at).clamp(min=0), most[:, 0] < 0
    if name in {
        "max",
        "adaptive",
    }:  # the largest number in a window is its last position, of the negative ones the first
        line = torch.arange(1.0, size + 1).view(1, 1, size, 1)
        if name == "max":
            length, stride, padding, dilation, ceil = options
            most = [
                F.max_pool2d(part, (length, 1), (stride, 1), (padding, 0), (dilation, 1), ceil)
                for part in (-line, line)
            ]
        else:
            dilation, most = 1, [F.adaptive_max_pool2d(part, (options[0], 1)) for part in (-line, line)]
        first, last = -most[0].flatten().long() - 1, most[1].flatten().long() - 1
        at = first.view(-1, 1) + dilation * torch.arange(int((last - first).max()) // dilation + 1)
        return torch.minimum(at, last.view(-1, 1)), torch.zeros_like(first, dtype=torch.bool)
    one = torch.eye(size).view(size, 1, size, 1)  # image i has a 1 at i
    if name == "transposed":
        length, stride, padding, extra, dilation = options
        weight = torch.ones(1, 1, length, 1)
        out = F.conv_transpose2d(one, weight, None, (stride, 1), (padding, 0), (extra, 0), 1, (dilation, 1))
    elif name == "resize":
        to, factor, mode, align = options
        factors = None if factor is None else (factor, 1.0)
        out = F.interpolate(one, None if to is None else (to, 1), factors, mode, align)
    else:
        out = F.pad(one, (0, 0, *options[:2]), options[2])
    reads = (out[:, 0, :, 0].abs() > 1e-6).T  # [out, in]
    count, where = reads.sum(1), reads.nonzero()[:, 1]
    first = (count.cumsum(0) - count).view(-1, 1)
    within = torch.arange(max(int(count.max()), 1)).expand(len(count), -1)
    at = first + torch.where(within < count.view(-1, 1), within, 0)
    return where[at.clamp(max=max(len(where) - 1, 0))], count == 0


def slid(x: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    """Kernels along the last two dimensions of ``[n, c, h, w]``, done once where all channels lie in one place."""
    channels = x.shape[1]
    x = x[:, :1] if x.stride(1) == 0 else x
    for dim, kernel in zip((2, 3), kernels, strict=True):
        index, nothing = _reads(kernel, x.shape[dim])
        found = x.index_select(dim, index[:, 0])
        for column in index[:, 1:].unbind(1):
            found |= x.index_select(dim, column)
        if bool(nothing.any()):
            found.index_fill_(dim, nothing.nonzero()[:, 0], 0)
        x = found
    return x.expand(-1, channels, -1, -1) if x.shape[1] == 1 else x


def two(value, default=None) -> tuple:
    """(along y, along x)."""
    value = default if value is None or value == [] else value
    return tuple(value) * (2 // len(value)) if isinstance(value, (list, tuple)) else (value, value)


class Reach(TorchFunctionMode):
    """Replaces functions by the union of what they read. Weights lie on the meta device: they are not read.

    ``local``: of a product, a factor that is one number a channel for the whole map is held constant, and so are the
    statistics of a normalisation over positions; ``held`` tells whether that came up. ``ratios``: of each adaptive
    pool, how many positions it takes together on the network's own input, so that a larger one meets the same network.
    """

    def __init__(self, local: bool, ratios: list | None = None) -> None:
        super().__init__()
        self.local, self.held, self.paused = local, False, False
        self.given, self.ratios = None if ratios is None else list(ratios), []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", str(function))
        if self.paused or name in ASKS:
            return function(*args, **kwargs)
        maps = [part for part in _tensors([*args, *kwargs.values()]) if part.dtype == torch.int32 and not part.is_meta]
        if name in MADE:
            made = function(*args, **kwargs)
            return made if made.is_meta or not made.is_floating_point() else torch.zeros_like(made, dtype=torch.int32)
        if not maps:
            return function(*args, **kwargs)
        rule = getattr(self, f"_{name}", None)
        if rule is not None:
            return rule(*args, **kwargs)
        if name in SAME:
            return args[0]
        if name in MOVES:
            return function(*args, **kwargs) if name != "view" else args[0].reshape(*args[1:])
        if name in SUMS | PRODUCTS:
            shape = torch.broadcast_shapes(*(part.shape for part in args if isinstance(part, Tensor)))
            maps = self._kept(maps) if name in PRODUCTS and len(maps) == 2 and len(shape) > 2 else maps
            return union(*maps).expand(shape)
        if name in REDUCTIONS:
            return self._reduced(args[0], *args[1:], **kwargs)
        raise NotImplementedError(f"it is not written here what {name} reads")

    def _conv2d(self, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        sides = zip(weight.shape[2:], two(stride), two(padding), two(dilation), strict=True)
        return self._convolved(x, weight.shape[0], groups, [("conv", *side) for side in sides])

    def _conv_transpose2d(self, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
        sides = zip(weight.shape[2:], two(stride), two(padding), two(output_padding), two(dilation), strict=True)
        return self._convolved(x, weight.shape[1] * groups, groups, [("transposed", *side) for side in sides])

    def _convolved(self, x, out, groups, kernels):
        n, channels = x.shape[:2]
        lies_in_one = x.stride(1) == 0
        x = x[:, :1] if lies_in_one else over(x.reshape(n, groups, channels // groups, *x.shape[2:]), 2).squeeze(2)
        x = slid(x, kernels)
        return x.expand(-1, out, -1, -1) if x.shape[1] == 1 else x.repeat_interleave(out // groups, 1)

    def _batch_norm(self, x, mean, var, weight=None, bias=None, training=False, *rest, **more):
        assert not training
        return x

    def _max_pool2d(self, x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
        assert not return_indices
        sides = zip(two(kernel_size), two(stride, kernel_size), two(padding), two(dilation), strict=True)
        return slid(x, [("max", *side, ceil_mode) for side in sides])

    def _avg_pool2d(self, x, kernel_size, stride=None, padding=0, ceil_mode=False, *rest, **more):
        sides = zip(two(kernel_size), two(stride, kernel_size), two(padding), strict=True)
        return slid(x, [("max", *side, 1, ceil_mode) for side in sides])

    def _adaptive_avg_pool2d(self, x, output_size, return_indices=False):
        size = [n if out is None else out for n, out in zip(x.shape[2:], two(output_size), strict=True)]
        ratio = [n / out for n, out in zip(x.shape[2:], size, strict=True)]
        given = None
        if self.given is None:
            whole = max(size) > 1 and all(r == int(r) for r in ratio)
            self.ratios.append([int(r) for r in ratio] if whole else None)
        else:
            given = self.given.pop(0)
        own = [("adaptive", out) for out in size]
        return slid(x, own if given is None else [("max", r, r, 0, 1, False) for r in given])

    _adaptive_max_pool2d = _adaptive_avg_pool2d

    def _interpolate(self, x, size=None, scale_factor=None, mode="nearest", align_corners=None, *rest, **more):
        sides = zip(two(size), two(scale_factor), strict=True)
        return slid(x, [("resize", to, factor and float(factor), mode, align_corners) for to, factor in sides])

    def _pad(self, x, pad, mode="constant", value=None):
        if mode == "constant":
            return F.pad(x, pad)
        return slid(x, [("pad", *pad[2:], mode), ("pad", *pad[:2], mode)])

    def _linear(self, x, weight, bias=None):
        return over(x, x.ndim - 1).expand(*x.shape[:-1], weight.shape[0])

    def _layer_norm(self, x, shape, *rest, **more):
        return x if self._hold(len(shape) > 1) else over(x, range(x.ndim - len(shape), x.ndim)).expand(x.shape)

    def _group_norm(self, x, groups, *rest, **more):
        grouped = x.reshape(len(x), groups, -1)
        return x if self._hold(True) else over(grouped, 2).expand(grouped.shape).reshape(x.shape)

    def _softmax(self, x, dim=-1, *rest, **more):
        return over(x, dim % x.ndim).expand(x.shape)

    def _local_response_norm(self, x, size, *rest, **more):
        if x.stride(1) == 0:
            return x
        wide = F.pad(x, (0, 0, 0, 0, size // 2, (size - 1) // 2))
        return union(*(wide[:, k : k + x.shape[1]] for k in range(size)))

    def _reduced(self, x, dim=None, keepdim=False, **rest):
        dims = [d % x.ndim for d in (range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim)]
        found = over(x, dims)
        return found if keepdim else found.squeeze(dims)

    def _hold(self, gate: bool) -> bool:
        self.held |= gate
        return gate and self.local

    def _kept(self, maps):
        """Of a product of two maps, those that count: a factor that is one number for the whole map may be held."""
        one = [max(part.shape[-2:]) == 1 or part.stride()[-2:] == (0, 0) for part in maps]
        return [maps[one.index(False)]] if one.count(True) == 1 and self._hold(True) else maps


def _tensors(values) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, (list, tuple)):
        return [tensor for value in values for tensor in _tensors(value)]
    return []


def _ends(bits: Tensor) -> tuple[Tensor, Tensor]:
    """First and last line whose bit is set, the last one plus 1; 0 and 0 where none is. ``[words, …]`` to ``[…]``."""
    for dim in range(1, bits.ndim):
        bits = bits.narrow(dim, 0, 1) if bits.stride(dim) == 0 else bits
    low, high = torch.zeros_like(bits[0]), torch.zeros_like(bits[0])
    for word in reversed(range(len(bits))):
        part = bits[word]
        some = part > 0
        low = torch.where(some, BITS * word + (part & -part).double().log2().int(), low)
        high = torch.where(some & (high == 0), BITS * word + part.double().log2().floor().int() + 1, high)
    return low, high


class Run:
    """One network made ready to be measured. ``held``: it has gates, so that strict and local fields may differ."""

    def __init__(self, net: Network, local: bool) -> None:
        self.net, self.local, self.held = net, local, False
        self.clone = private_copy(net.module, to="meta")
        for name, buffer in net.module.named_buffers():
            if not buffer.is_floating_point():  # indices are read, weights are not
                path, _, last = name.rpartition(".")
                setattr(self.clone.get_submodule(path), last, buffer)
        self.ratios: list | None = None
        self.ratios = self._pass(net.input_size[1:], [[]], 0, lambda layer, output: None)

    def _pass(self, extent: Sequence[int], lit: Sequence[Sequence[range]], axis: int, visit: Callable) -> list:
        """Run with a bit for each entry of ``lit``, set on the lines that it lists."""
        sides = [1, 1]
        sides[axis] = extent[axis]
        images = torch.zeros(max(-(-len(lit) // BITS), 1), 1, *sides, dtype=torch.int32)
        for k, lines in enumerate(lit):
            for some in lines:
                images[k // BITS, 0].narrow(axis, some.start, len(some)).bitwise_or_(1 << k % BITS)
        images = images.expand(-1, -1, *extent).clone().expand(-1, self.net.input_size[0], -1, -1)
        mode, clone = Reach(self.local, self.ratios), private_copy(self.clone)  # hooks stay on what is run

        def paused(layer, output: Tensor) -> None:
            mode.paused = True
            visit(layer, output)
            mode.paused = False

        with mode:
            run_layers(clone, images, paused)
        self.held |= mode.held
        return mode.ratios

    def boxes(self) -> dict[str, Tensor]:
        """What each unit of each layer sees of the network's own image: ``[4, …]`` as ``clipped_boxes`` gives it."""
        sides, found = self.net.input_size[1:], {}
        for axis, side in enumerate(sides):
            ends: dict[str, tuple[Tensor, Tensor]] = {}
            for first in range(0, side, LINES):
                last: list = [None, None]  # an activation puts out what it was given

                def visit(layer, output: Tensor, last=last, first=first, ends=ends) -> None:
                    if output.is_meta:  # computed of weights alone
                        return
                    if last[0] is None or not _same_map(last[0], output):
                        last[:] = output, _ends(output)
                    low, high = last[1]
                    if first:
                        low, high = torch.where(high > 0, low + first, 0), torch.where(high > 0, high + first, 0)
                        low0, high0 = ends[layer.name]
                        low, high = torch.where(high0 > 0, low0, low), torch.where(high > 0, high, high0)
                    ends[layer.name] = low, high

                lines = range(first, min(first + LINES, side))
                self._pass(sides, [[range(line, line + 1)] for line in lines], axis, visit)
            for name, both in ends.items():
                found.setdefault(name, []).extend(both)
        return {name: torch.stack(torch.broadcast_tensors(*four)) for name, four in found.items()}

    def laws(self, fields: dict[str, ReceptiveField], axis: int, side: int, other: int) -> dict[str, bool]:
        """Whether the middle unit along ``axis`` of an image of ``side`` pixels, and the next, see what the law says.

        ``fields`` as the engine gives them, by layer; the answer has those whose maps grow with the image. For each end
        of a field that any layer claims a bit is set on all lines before it, and one on all lines from it on.
        """
        extent = (side, other) if axis == 0 else (other, side)
        shapes: dict[str, tuple[int, ...]] = {}
        self._pass(extent, [[]], 0, lambda layer, output: shapes.setdefault(layer.name, tuple(output.shape[1:])))
        own = {layer.name: layer.output_shape for layer in self.net.layers}
        claims = {}
        for name in fields.keys() & shapes.keys():
            grown = [dim for dim, (a, b) in enumerate(zip(own[name], shapes[name], strict=True)) if a < b]
            along = next((dim for dim in grown if dim in (1 + axis, axis)), None)
            if along is not None:
                claims[name] = (along == axis, *_claimed(fields[name], axis, shapes[name][along] // 2))
        if not claims:
            return {}
        ends = torch.cat([torch.cat([low.flatten(), high.flatten()]) for _, low, high in claims.values()])
        cuts = torch.cat([ends, ends + 1]).unique()
        cuts = cuts[(cuts >= 0) & (cuts <= side)]
        answers: dict[str, bool] = {}

        def visit(layer, output: Tensor) -> None:  # looks at `cuts`, those of the pass
            if layer.name not in claims:
                return
            channels_last, low, high = claims[layer.name]
            maps = output.movedim(-1, 1) if channels_last else output
            units = maps.narrow(2 + axis, maps.shape[2 + axis] // 2, 2)
            units = units.select(3 - axis, maps.shape[3 - axis] // 2)  # [words, channels, 2]
            bits = torch.stack([units >> k & 1 for k in range(BITS)], 1).flatten(0, 1)[: 2 * len(cuts)]
            found, at = bits.view(-1, 2, *bits.shape[1:]) > 0, cuts.view(-1, 1, 1)
            right = bool(((found[:, 0] == (at > low)) & (found[:, 1] == (at <= high))).all())
            answers[layer.name] = right and answers.get(layer.name, True)

        every = cuts
        for cuts in every.split(LINES // 2):
            lit = [[lines] for cut in cuts.tolist() for lines in (range(cut), range(cut, side))]
            self._pass(extent, lit, axis, visit)
        return answers


def _same_map(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def _claimed(field: ReceptiveField, axis: int, unit: int) -> tuple[Tensor, Tensor]:
    """First and last line along ``axis`` that ``unit`` and the next one see by the law: ``[channels or 1, 2]``."""
    channels = range(len(field.per_channel or field.per_channel_start or ())) or [None]
    boxes = [[field.box(u, u, channel) for u in (unit, unit + 1)] for channel in channels]
    nothing = (1 << 20, 0)
    lines = [[nothing if box.is_empty else ((box.y0, box.y1), (box.x0, box.x1))[axis] for box in row] for row in boxes]
    low, high = torch.tensor(lines).unbind(2)
    return low, high - 1


def compared(net: Network, gates: str = "local") -> dict:
    """What the engine says of every unit of every layer of ``net`` beside what is measured.

    ``layers``, ``units``; ``gates``: whether strict and local may differ; ``wrong boxes``: layers any unit of which
    sees another box of the network's own image; ``laws``, ``wrong laws``: layers whose size, stride and start by
    channel were compared on a larger image, and those that fail.
    """
    fields, run = receptive_fields(net, gates), Run(net, gates == "local")
    measured = run.boxes()
    wrong = []
    for layer in net.layers:
        said = fields[layer.name].status != "unavailable"
        nothing = torch.zeros(4, *[1] * len(layer.output_shape))  # a layer that follows weights alone sees nothing
        got = clipped_boxes(net, layer.name, gates) if said else nothing
        got, want = torch.broadcast_tensors(got.long(), measured.get(layer.name, nothing).long())
        if not torch.equal(got, want):
            wrong.append(layer.name)
    laws: dict[str, bool] = {}
    complete = {n: f for n, f in fields.items() if f.status == "complete" and len(net.layer(n).output_shape) == 3}
    if complete:
        sides = net.input_size[1:]
        grow = (max(max(pair(field.size)) for field in complete.values()) + 128) // 1536 * 1536 + 1536
        for axis in (axis for axis in (0, 1) if sides[axis] > 1):  # a signal has one
            try:
                found = run.laws(complete, axis, sides[axis] + grow, min(sides[1 - axis], 96))
            except Exception:  # noqa: BLE001 - a pool that does not fit into so narrow an image, or a flatten
                found = run.laws(complete, axis, sides[axis] + grow, sides[1 - axis])
            laws = {name: right and laws.get(name, True) for name, right in found.items()}
    return {
        "layers": len(net.layers),
        "units": sum(torch.Size(layer.output_shape).numel() for layer in net.layers),
        "gates": run.held,
        "wrong boxes": wrong,
        "laws": len(laws),
        "complete": len(complete),
        "wrong laws": [name for name, right in laws.items() if not right],
    }
