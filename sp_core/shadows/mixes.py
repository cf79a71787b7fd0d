"""Operations that mix elements: arithmetic, reductions, products of matrices, normalisations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sp_core.shadows.shadow import HELD, MISALIGNED, Shadow, align, misaligned, nothing, reduce, union
from sp_core.trace import tensors_in


def elementwise(call: Any) -> Any:
    """Arithmetic: the union of the operands' boxes, position by position."""
    shadows = [call.shadow_of(tensor) for tensor in tensors_in([*call.args, *call.kwargs.values()])]
    out = call.out if isinstance(call.out, Tensor) else call.out[0]
    known = [shadow for shadow in shadows if shadow is not None]
    found = union(known, out.ndim)
    if len(known) > 1 and misaligned(known, out.ndim, call.extent):
        found = found.noting(MISALIGNED)
    return found if out is call.out else first_only(call, found)


def product(call: Any) -> Any:
    """Multiplication; where gates are local, a factor that is the same for the whole map is held constant.

    Squeeze-and-excitation multiplies each channel by one number computed from the whole map. Strictly every unit
    behind it then sees the whole image, which is true and says nothing about *where* it looks.
    """
    if call.local and len(call.args) > 1 and call.out.ndim >= 3:
        shadows = [call.shadow_of(tensor) for tensor in tensors_in(call.args[:2])]
        kept = [shadow for shadow in shadows if shadow is not None and not shadow.is_flat]
        if len(shadows) == 2 and None not in shadows and len(kept) == 1:
            return union(kept, call.out.ndim).noting(HELD)
    return elementwise(call)


def _dims(value: Any, ndim: int) -> list[int]:
    if value is None or value == []:
        return list(range(ndim))
    return [dim % ndim for dim in ([value] if isinstance(value, int) else value)]


def reduction(call: Any) -> Shadow | list[Shadow]:
    """sum, mean, amax, var, norm, argmax …: the union over the dimensions that are reduced."""
    x = call.args[0]
    named = call.named()
    dims = _dims(named.get("dim"), x.ndim)
    outputs = call.out if isinstance(call.out, (list, tuple)) else [call.out]
    keep = outputs[0].ndim == x.ndim
    shadow = call.shadow(0).map(lambda part: reduce(part, dims))
    if not keep:
        shadow = shadow.map(lambda part: part.squeeze(tuple(dims)))
    return [shadow] * len(outputs) if isinstance(call.out, (list, tuple)) else shadow


def along(call: Any) -> Shadow | list[Shadow]:
    """softmax, cumsum, sort, topk …: every element sees all the others along one dimension, which stays."""
    named = call.named()
    dim = named.get("dim", -1)
    shadow = call.shadow(0).map(lambda part: reduce(part, [dim % part.ndim]))
    return [shadow] * len(call.out) if isinstance(call.out, (list, tuple)) else shadow


def matmul(call: Any) -> Shadow:
    """mm, bmm, addmm, baddbmm, mv, dot: entry (i, j) sees row i of the left and column j of the right."""
    terms = call.args[:3] if call.name in {"addmm", "baddbmm", "addmv", "addbmm"} else (None, *call.args[:2])
    found = []
    added, left, right = (call.shadow_of(term) if isinstance(term, Tensor) else None for term in terms)
    if left is not None:
        rows = left.map(lambda part: reduce(part, [part.ndim - 1]))
        found.append(rows if terms[2].ndim > 1 else rows.map(lambda part: part.squeeze(-1)))
    if right is not None:
        vector = terms[2].ndim == 1
        columns = right.map(lambda part: reduce(part, [part.ndim - 1 if vector else part.ndim - 2]))
        found.append(columns)
    if added is not None:
        found.append(added)
    ndim = call.out.ndim
    return union([shadow.map(lambda part: _leading(part, ndim)) for shadow in found], ndim)


def _leading(part: Tensor, ndim: int) -> Tensor:
    while part.ndim > ndim and part.shape[0] == 1:
        part = part.squeeze(0)
    return align(part, ndim)


def linear(call: Any) -> Shadow:
    """A linear map of the last dimension: every output element sees all inputs of its row."""
    return call.shadow(0).map(lambda part: reduce(part, [part.ndim - 1]))


def attention(call: Any) -> Shadow:
    """Scaled dot-product attention ``[…, tokens, d]``: a token sees its own query and all keys and values."""
    query, *others = (call.shadow_of(tensor) for tensor in call.args[:3])
    found = [] if query is None else [query.map(lambda part: reduce(part, [part.ndim - 1]))]
    for shadow in others:
        if shadow is not None:
            found.append(shadow.map(lambda part: reduce(part, [part.ndim - 2, part.ndim - 1])))
    return union(found, call.args[0].ndim)


def batch_norm(call: Any) -> list[Shadow]:
    """With running statistics every element stays by itself; with the batch's own, the map is mixed."""
    named = call.named()
    training = named.get("training", named.get("train", "no_training" not in call.name))
    shadow = call.shadow(0)
    if training and call.local:
        shadow = shadow.noting(HELD)
    elif training:
        ndim = call.args[0].ndim
        shadow = shadow.map(lambda part: reduce(part, [0, *range(2, ndim)]))
    return first_only(call, shadow)


def group_norm(call: Any) -> list[Shadow]:
    """Mean and variance over the channels of a group and the whole map."""
    shadow = call.shadow(0)
    if call.local:
        return first_only(call, shadow.noting(HELD))
    groups, channels = call.named()["group"], call.args[0].shape[1]

    def change(part: Tensor) -> Tensor:
        part = reduce(part, range(2, part.ndim))
        if part.shape[1] > 1:
            grouped = part.view(part.shape[0], groups, -1).amin(2)
            part = grouped.repeat_interleave(channels // groups, 1).view(part.shape)
        return part

    return first_only(call, shadow.map(change))


def layer_norm(call: Any) -> list[Shadow]:
    """Mean and variance over the last dimensions; over channels alone it mixes no positions."""
    count = len(call.args[1])
    if call.local and count > 1:
        return first_only(call, call.shadow(0).noting(HELD))
    return first_only(call, call.shadow(0).map(lambda part: reduce(part, range(part.ndim - count, part.ndim))))


def first_only(call: Any, shadow: Shadow) -> Any:
    """The shadow of the first output; further ones (statistics) are constants to everything behind."""
    if isinstance(call.out, Tensor):
        return shadow
    return [shadow, *(nothing(out.ndim) for out in call.out[1:] if isinstance(out, Tensor))]


def everything(call: Any) -> list[Shadow | None]:
    """No rule: every output element is taken to see whatever any input element sees. Said in the notes."""
    shadows = [call.shadow_of(tensor) for tensor in tensors_in([*call.args, *call.kwargs.values()])]
    known = [shadow for shadow in shadows if shadow is not None]
    notes = frozenset().union(*(shadow.notes for shadow in known))
    note = f"{call.name} has no rule here: its outputs are taken to see all that its inputs see"
    smallest = [torch.stack([s.parts[k].amin() for s in known]).amin() for k in range(4)]

    def shaped(out: Tensor) -> Shadow:
        return Shadow(tuple(part.view((1,) * out.ndim) for part in smallest), notes | {note})

    outputs = call.out if isinstance(call.out, (list, tuple)) else [call.out]
    return [shaped(out) if isinstance(out, Tensor) else None for out in outputs]  # .item() gives a number
