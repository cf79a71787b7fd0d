"""Operations that look through a window that slides: convolutions, pooling, resizing, padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sp_core.shadows.shadow import EMPTY, FINE, MISALIGNED, Shadow, mixes_misaligned, shrink, take, widen


def slide(part: Tensor, dim: int, kernel: int, stride: int, padding: int, dilation: int, out: int) -> Tensor:
    """Union over each of ``out`` windows along ``dim``; positions outside the tensor count as nothing.

    Window u covers positions ``u·stride − padding + j·dilation`` for j < kernel (Araujo, Norris & Sim 2019, eq. 1).
    """
    size, span = part.shape[dim], (kernel - 1) * dilation + 1
    needed = (out - 1) * stride + span
    pieces = [part.narrow(dim, 0, max(0, min(size, needed - padding)))]
    for side, count in ((0, padding), (1, needed - padding - size)):
        if count > 0:
            shape = [*part.shape[:dim], count, *part.shape[dim + 1 :]]
            pieces.insert(side * len(pieces), part.new_full((), EMPTY).expand(shape))
    padded = torch.cat(pieces, dim).narrow(dim, 0, needed) if len(pieces) > 1 else pieces[0]
    if kernel == 1:
        return padded.index_select(dim, torch.arange(0, needed, stride)) if stride > 1 else padded
    return padded.unfold(dim, span, stride)[..., ::dilation].amin(-1)


def _blind(size: int, kernel: int, stride: int, padding: int, dilation: int, out: int) -> bool:
    """Whether some window lies wholly in the padding, so that its unit sees nothing."""
    if dilation == 1 or (kernel % 2 and 2 * padding == dilation * (kernel - 1)):
        return padding >= (kernel - 1) * dilation + 1 or (out - 1) * stride - padding >= size
    seen = slide(torch.zeros(size, dtype=torch.int32), 0, kernel, stride, padding, dilation, out)
    return bool((seen == EMPTY).any())


Axis = tuple[int, int, int, int, int]  # kernel, stride, padding, dilation, how many windows


def windows(shadow: Shadow, sizes: Sequence[int], axes: Sequence[Axis]) -> Shadow:
    """Windows along the last ``len(axes)`` dimensions, whose real sizes are ``sizes``."""
    if all(axis[:3] == (1, 1, 0) for axis in axes):
        return shadow  # a 1 × 1 convolution: what is found of the layer before holds for this one
    first = shadow.parts[0].ndim - len(axes)
    blind = [_blind(size, *axis) for size, axis in zip(sizes, axes, strict=True)]

    def change(part: Tensor) -> Tensor:
        for offset, (size, axis) in enumerate(zip(sizes, axes, strict=True)):
            dim = first + offset
            if part.shape[dim] == 1 and blind[offset] and part.numel() * size <= FINE:
                part = widen(part, dim, size)
            if part.shape[dim] > 1 or (size == 1 and blind[offset]):
                part = slide(part, dim, *axis)
        return shrink(part)

    return shadow.map(change)


def per_axis(value: Any, count: int, default: int = 0) -> list[int]:
    """``value`` as ``count`` integers: a list as it is, a list of one repeated, an empty one ``default``."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return [int(v) for v in (values if len(values) == count else (values or [default]) * count)][:count]


def mix_channels(part: Tensor, groups: int, out: int) -> Tensor:
    """Each output channel sees all input channels of its group (dimension 1)."""
    channels = part.shape[1]
    if channels == 1:
        return part
    if groups == 1:
        return part.amin(1, keepdim=True)
    grouped = part.view(part.shape[0], groups, channels // groups, *part.shape[2:]).amin(2)
    return grouped.repeat_interleave(out // groups, 1) if out > groups else grouped


def convolution(call: Any) -> Shadow:
    """aten.convolution, transposed or not, in one to three dimensions."""
    x, weight, _, stride, padding, dilation, transposed, _output_padding, groups = call.args[:9]
    count = x.ndim - 2
    stride, padding, dilation = per_axis(stride, count), per_axis(padding, count), per_axis(dilation, count)
    kernel, out = list(weight.shape[2:]), call.out.shape
    shadow = call.shadow(0)
    mixed = groups < x.shape[1] and MISALIGNED not in shadow.notes and mixes_misaligned(shadow, groups, call.extent)
    shadow = shadow.map(lambda part: mix_channels(part, groups, out[1]))
    shadow = shadow.noting(MISALIGNED) if mixed else shadow
    if not transposed:
        return windows(shadow, x.shape[2:], list(zip(kernel, stride, padding, dilation, out[2:], strict=True)))
    sizes = []
    for offset in range(count):
        shadow = _spread(shadow, 2 + offset, x.shape[2 + offset], stride[offset], kernel[offset])
        sizes.append((x.shape[2 + offset] - 1) * stride[offset] + 1)
    # Output u sees input i where u = i·stride − padding + j·dilation: a window of stride 1 over the spread-out map.
    before = [dilation[i] * (kernel[i] - 1) - padding[i] for i in range(count)]
    for offset, cut in enumerate(before):
        if cut < 0:
            keep = torch.arange(-cut, sizes[offset])
            shadow = shadow.map(lambda part, d=2 + offset, k=keep, n=sizes[offset]: take(part, d, k, n))
            sizes[offset], before[offset] = sizes[offset] + cut, 0
    axes = [(kernel[i], 1, before[i], dilation[i], out[2 + i]) for i in range(count)]
    return windows(shadow, sizes, axes)


def _spread(shadow: Shadow, dim: int, size: int, stride: int, kernel: int) -> Shadow:
    """Put ``stride − 1`` positions that see nothing between each two; not needed where no unit could notice."""
    if stride == 1:
        return shadow
    index = torch.full(((size - 1) * stride + 1,), -1)
    index[::stride] = torch.arange(size)
    constant_is_fine = kernel >= stride
    return shadow.map(lambda part: part if constant_is_fine and part.shape[dim] == 1 else take(part, dim, index, size))


def pool(call: Any) -> Shadow | list[Shadow]:
    """Max and average pooling in one to three dimensions; the output's real size settles ``ceil_mode``."""
    x, name = call.args[0], call.name
    count = int(name[name.index("pool") + 4])
    kernel = per_axis(call.arg(1, "kernel_size"), count)
    stride = per_axis(call.arg(2, "stride", None) or kernel, count)
    padding = per_axis(call.arg(3, "padding", 0), count)
    dilation = per_axis(call.arg(4, "dilation", 1), count) if "max" in name else [1] * count
    out = call.out if isinstance(call.out, Tensor) else call.out[0]  # max pooling also gives the indices
    axes = list(zip(kernel, stride, padding, dilation, out.shape[-count:], strict=True))
    shadow = windows(call.shadow(0), x.shape[-count:], axes)
    return shadow if out is call.out else [shadow, shadow]


def adaptive_pool(call: Any) -> Shadow | list[Shadow]:
    """Window u of an adaptive pool runs from ⌊u·n/out⌋ to ⌈(u+1)·n/out⌉."""
    x, count = call.args[0], len(call.args[1])
    out_map = call.out if isinstance(call.out, Tensor) else call.out[0]

    def change(part: Tensor) -> Tensor:
        for dim in range(x.ndim - count, x.ndim):
            size, out = x.shape[dim], out_map.shape[dim]
            if part.shape[dim] > 1:
                edges = [(u * size // out, -(-(u + 1) * size // out)) for u in range(out)]
                part = torch.cat([part.narrow(dim, a, b - a).amin(dim, keepdim=True) for a, b in edges], dim)
        return part

    shadow = call.shadow(0).map(change)
    return shadow if out_map is call.out else [shadow, shadow]


def _taps(name: str, size: int, out: int, scale: float | None, align: bool) -> list[Tensor]:
    """Which source positions each of ``out`` positions reads; taps with weight zero repeat another tap."""
    u = torch.arange(out, dtype=torch.float64)
    step = (size - 1) / max(out - 1, 1) if align else (1 / scale if scale else size / out)
    if "nearest" in name:
        at = torch.floor((u + 0.5) * step if "exact" in name else u * step + 1e-9)
        return [at.long().clamp(0, size - 1)]
    at = u * step if align else (u + 0.5) * step - 0.5
    if "bicubic" not in name:
        at = at.clamp(min=0)
    low = torch.floor(at + 1e-6)
    between = (at - low) > 1e-5
    reach = [0, 1] if "bicubic" not in name else [-1, 0, 1, 2]
    return [torch.where(between | (tap == 0), low + tap, low).long().clamp(0, size - 1) for tap in reach]


def resize(call: Any) -> Shadow:
    """aten.upsample_{nearest,linear,bilinear,bicubic,…}: each position reads one, two or four neighbours a side."""
    x, name = call.args[0], call.name
    digits = [character for character in name if character.isdigit()]
    count = int(digits[-1]) if digits else x.ndim - 2
    named = call.named()
    align = bool(named.get("align_corners") or False)
    factors = named.get("scale_factors")
    shadow = call.shadow(0)
    for dim, letter in zip(range(x.ndim - count, x.ndim), "dhw"[-count:], strict=True):
        scale = factors[dim - (x.ndim - count)] if factors else named.get(f"scales_{letter}", named.get("scales"))
        taps = _taps(name, x.shape[dim], call.out.shape[dim], scale, align)

        def change(part: Tensor, dim: int = dim, taps: list[Tensor] = taps) -> Tensor:
            if part.shape[dim] == 1:
                return part
            return torch.stack([part.index_select(dim, tap) for tap in taps]).amin(0)

        shadow = shadow.map(change)
    return shadow


def _padded_index(size: int, before: int, after: int, mode: str) -> Tensor:
    """Where each position of a padded dimension comes from; -1 is the constant that pads."""
    at = torch.arange(-before, size + after)
    if mode == "replicate":
        return at.clamp(0, size - 1)
    if mode == "circular":
        return at % size
    if mode == "reflect":
        return torch.where(at < 0, -at, torch.where(at >= size, 2 * (size - 1) - at, at))
    return torch.where((at < 0) | (at >= size), -1, at)


def pad(mode: str) -> Callable[[Any], Shadow]:
    """The rule of padding in ``mode``; the amounts come in pairs from the last dimension on, and may be negative."""

    def rule(call: Any) -> Shadow:
        x, amounts = call.args[0], list(call.args[1])
        shadow = call.shadow(0)
        for k in range(len(amounts) // 2):
            dim, size = x.ndim - 1 - k, x.shape[x.ndim - 1 - k]
            if amounts[2 * k] or amounts[2 * k + 1]:
                index = _padded_index(size, amounts[2 * k], amounts[2 * k + 1], mode)
                shadow = shadow.map(lambda part, d=dim, i=index, n=size: take(part, d, i, n))
        return shadow.map(shrink)

    return rule


def unfold_patches(call: Any) -> Shadow:
    """aten.im2col: columns of patches; each column element is one tap of a sliding window."""
    x, kernel, dilation, padding, stride = call.args[:5]
    out = [
        math.floor((x.shape[-2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) / stride[i]) + 1
        for i in range(2)
    ]
    taps = []
    for j in range(kernel[0] * kernel[1]):
        at = (j // kernel[1], j % kernel[1])
        shadow = call.shadow(0)
        for i, dim in enumerate((x.ndim - 2, x.ndim - 1)):
            index = torch.arange(out[i]) * stride[i] - padding[i] + at[i] * dilation[i]
            index = torch.where((index < 0) | (index >= x.shape[dim]), -1, index)
            shadow = shadow.map(lambda part, d=dim, k=index, n=x.shape[dim]: take(part, d, k, n))
        taps.append(shadow)
    channels = x.shape[-3]
    parts = []
    for parts_of_taps in zip(*(shadow.parts for shadow in taps), strict=True):
        full = [part.expand(*part.shape[:-3], channels, *out) for part in parts_of_taps]
        stacked = torch.stack(full, -3)  # [n, c, taps, out_y, out_x]
        parts.append(stacked.reshape(*stacked.shape[:-4], channels * len(taps), out[0] * out[1]))
    return Shadow(tuple(parts), taps[0].notes)
