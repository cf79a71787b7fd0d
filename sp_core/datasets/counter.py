"""Random numbers by counter: the same integers in give the same number out, on every device, in every order.

A generator with a state gives image 7 its numbers only after images 0 … 6 have taken theirs. Here a number is a
hash of (seed, index, stream, position), so image 7 can be drawn alone, on a GPU, or in another process. The hash is
the output function of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA
2014) in int64 arithmetic, which wraps around alike on CPU and CUDA.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the same 64 bits as the unsigned ``value``, because torch has no uint64 arithmetic."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


# The three constants of SplitMix64: 2^64 / golden ratio, and Stafford's "Mix13" multipliers.
_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)


def mix(bits: Tensor) -> Tensor:
    """Scramble int64 bits, one to one; any shape in, the same shape out.

    Shifts are masked because ``>>`` on int64 copies the sign bit and SplitMix64 shifts zeros in.

    >>> mix(torch.tensor([0, 1])).tolist()
    [0, 6238072747940578789]
    """
    bits = (bits ^ ((bits >> 30) & ((1 << 34) - 1))) * _MULTIPLIER_1
    bits = (bits ^ ((bits >> 27) & ((1 << 37) - 1))) * _MULTIPLIER_2
    return bits ^ ((bits >> 31) & ((1 << 33) - 1))


def keys(seed: int, indices: Tensor) -> Tensor:
    """One int64 key for each index under ``seed``; different indices never share one.

    >>> keys(0, torch.arange(3)).shape
    torch.Size([3])
    """
    start = mix(torch.tensor(_signed(seed * _GOLDEN + _GOLDEN), dtype=torch.int64))
    return mix(start.to(indices.device) + indices.to(torch.int64) * _GOLDEN)


def uniform(key: Tensor, stream: int, count: int) -> Tensor:
    """Float32 numbers in [0, 1), ``[n, count]``, for keys ``[n]``; streams (0 … 65,535) are independent of one another.

    The numbers are multiples of 2⁻²⁴, so that float32 holds each exactly and no device rounds.

    >>> a = uniform(keys(0, torch.arange(4)), stream=1, count=5)
    >>> a.shape, bool((a >= 0).all() and (a < 1).all())
    (torch.Size([4, 5]), True)
    """
    positions = torch.arange(count, dtype=torch.int64, device=key.device) + (stream << 32)
    bits = mix(mix(key)[:, None] + (positions + 1) * _GOLDEN)  # [n, count]
    return ((bits >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24
