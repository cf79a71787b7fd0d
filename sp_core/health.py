"""Do the weights of a network look healthy? What a glance at every tensor can say, without one image.

A weight matrix fresh from its initialisation is a table of independent draws of one distribution. Training leaves
traces in it that no such table has: a mean, skewness or heavy tails, filters of unequal length, directions that many
filters share. A layer without any of these traces is reported as untrained: a head that was replaced and never fitted,
a checkpoint that was saved before the first step, or weights that were not in the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sp_core.network import Network

DEAD = 0.01  # of the layer's largest norm: below, a filter is dead; as in sp_core.filters
LEAST_WEIGHTS = 256  # fewer draws tell nothing about their distribution
MOST_ROWS, MOST_COLUMNS = 256, 1024  # of the sample that stands for a larger matrix
SIGMAS = 4.0  # how far from what chance gives a number must be before it counts as a trace of training
LEAST_VARIANCE, MOST_VARIANCE = 1e-12, 1e6  # of a batch normalisation's input
KINDS = {
    "nan": "hold NaN or infinity",
    "constant": "are constant",
    "batch norm": "have statistics of batch normalisation that are out of range",
    "untrained": "look untrained",
    "dead": "have dead filters",
}
_NORMS = (nn.modules.batchnorm._BatchNorm,)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Finding:
    """Something odd about one weight or layer.

    Attributes:
        where: the weight's or layer's name.
        kind: one of ``KINDS``.
        text: a sentence: the value, the rule, and what it means.
    """

    where: str
    kind: str
    text: str


def health(net: Network) -> tuple[Finding, ...]:
    """What is odd about the weights of ``net``, in the order of ``KINDS``; empty where nothing is.

    ``"nan"``: a tensor with NaN or infinity (which is then not looked at further). ``"constant"``: a convolution or
    linear layer whose weights are all equal, or a batch normalisation whose scale is all zero. ``"batch norm"``:
    running variances below 0, practically 0 (at most 1e-12) or above 1e6. ``"untrained"``: a batch normalisation with
    means of exactly 0 and variances of exactly 1, or weights without a trace of training (:func:`looks_untrained`).
    ``"dead"``: filters whose norm is below 1 % of the layer's largest.

    >>> net = Network(nn.Sequential(nn.Conv2d(3, 16, 3)), input_size=(3, 8, 8))
    >>> [(finding.where, finding.kind) for finding in health(net)]
    [('0', 'untrained')]
    """
    found: list[Finding] = []
    broken = set()
    for name, tensor in net.module.state_dict().items():
        # The sum is NaN or infinite when any number is: one pass, no mask. It may overflow, hence the second look.
        if tensor.is_floating_point() and not math.isfinite(float(tensor.sum())):
            count = int((~torch.isfinite(tensor)).sum())
            if count:
                broken.add(name)
                text = (
                    f"{name}: {count:,} of {tensor.numel():,} numbers are NaN or infinity; every answer may be wrong."
                )
                found.append(Finding(name, "nan", text))
    for name, module in net.module.named_modules():
        own = {f"{name}.{what}".lstrip(".") for what in ("weight", "running_mean", "running_var")}
        if own & broken:
            continue
        if isinstance(module, _NORMS):
            found += _of_norm(name, module)
        elif isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)) and module.weight.numel():
            weight = module.weight.detach()
            if isinstance(module, _TRANSPOSED):
                weight = weight.transpose(0, 1)  # [in, out, ...] to [out, in, ...]
            found += _of_weight(name, weight.flatten(1))
    order = list(KINDS)
    return tuple(sorted(found, key=lambda finding: order.index(finding.kind)))


def _of_norm(name: str, module: nn.Module) -> Iterator[Finding]:
    scale, mean, variance = module.weight, module.running_mean, module.running_var
    if isinstance(scale, Tensor) and not bool(scale.any()):
        yield Finding(name, "constant", f"{name}: all {len(scale)} scales are 0, so the branch it ends adds nothing.")
    if not isinstance(mean, Tensor) or not isinstance(variance, Tensor):
        return
    if not bool(mean.any()) and bool((variance == 1).all()):
        text = f"{name}: every running mean is exactly 0 and every variance exactly 1: it was never run in training."
        yield Finding(name, "untrained", text)
        return
    rules = [
        (variance < 0, "below 0, which no data gives: the square root of it may be NaN"),
        (
            (variance >= 0) & (variance <= LEAST_VARIANCE),
            "practically 0 (at most 1e-12): its input was always the same",
        ),
        (variance > MOST_VARIANCE, "above 1e6: training may have diverged, or images were not brought into range"),
    ]
    for mask, meaning in rules:
        count = int(mask.sum())
        if count:
            value = float(variance[mask].abs().max()) * (-1 if bool((variance[mask] < 0).any()) else 1)
            text = f"{name}: {count} of {len(variance)} running variances are {meaning} (such as {value:.3g})."
            yield Finding(name, "batch norm", text)


def _of_weight(name: str, rows: Tensor) -> Iterator[Finding]:
    first = float(rows[0, 0])
    if rows.numel() > 1 and bool((rows == rows[0, 0]).all()):
        text = f"{name}: all {rows.numel():,} weights are {first:.4g}, so all its channels are the same."
        yield Finding(name, "constant", text)
        return
    law = looks_untrained(rows)
    if law:
        text = f"{name}: its {rows.numel():,} weights cannot be told from {law}: no trace of training was found."
        yield Finding(name, "untrained", text)
    norms = rows.norm(dim=1)
    dead = int((norms < DEAD * norms.max()).sum())
    if dead:
        text = f"{name}: {dead} of {len(norms)} filters are dead: their norm is below 1 % of the layer's largest."
        yield Finding(name, "dead", text)


def looks_untrained(rows: Tensor) -> str:
    """Which initialisation the matrix ``rows`` ``[filters, weights]`` cannot be told from, in words; "" if from none.

    A large matrix is represented by at most 256 × 1024 evenly spaced entries. With ``n`` entries of variance ``v`` in
    ``p`` rows and ``q`` columns, independent draws of one symmetric distribution obey, within 4 standard errors:

    - the mean is 0 (± ``sqrt(v / n)``) and the skewness 0 (± ``sqrt(6 / n)``);
    - the kurtosis is 3 for a normal distribution (± ``sqrt(24 / n)``), 1.8 for a uniform one, 2.37 for a normal one
      cut at two standard deviations;
    - the mean squares of rows (of columns) scatter by ``v² (kurtosis - 1) / q`` (``/ p``), up to 4 standard errors of a
      chi-squared variance: filters are of one length;
    - the largest squared singular value stays below ``v (m + 4.5 s)``, the edge of Marchenko and Pastur 1967 with
      Johnstone's centre ``m = (sqrt(q - 1) + sqrt(p))²`` and scale ``s = (sqrt(q - 1) + sqrt(p)) (1 / sqrt(q - 1) +
      1 / sqrt(p))^(1/3)`` (Annals of Statistics 29, 2001): filters share no direction.

    No rule asks for the scale, so every gain of Kaiming's, Xavier's or plain normal and uniform initialisation is
    covered. A matrix whose singular values are all equal is orthogonal initialisation (Saxe et al. 2014). Fewer than
    256 weights are not judged.

    >>> looks_untrained(torch.randn(64, 27, generator=torch.Generator().manual_seed(0)) / 9)
    'independent normal draws'
    """
    sample = _sample(rows.detach()).double()
    count, (p, q) = sample.numel(), sample.shape
    if count < LEAST_WEIGHTS or min(p, q) < 4:
        return ""
    mean = sample.mean()
    centred = sample - mean
    squares = centred.square()
    variance = float(squares.mean())
    if variance <= 0:
        return ""
    if _orthogonal(rows):
        return "a random orthogonal matrix"
    skewness = float((squares * centred).mean()) / variance**1.5
    kurtosis = float(squares.square().mean()) / variance**2
    law = _law(kurtosis, count)
    if (
        not law
        or abs(float(mean)) > SIGMAS * math.sqrt(variance / count)
        or abs(skewness) > SIGMAS * math.sqrt(6 / count)
    ):
        return ""
    for dim, length in ((1, q), (0, p)):
        scatter = squares.mean(dim=dim).var() / (variance**2 * (kurtosis - 1) / length)
        degrees = count // length - 1
        # The mean squares are themselves skewed when few weights go into each, which widens the variance's error.
        if float(scatter) > 1 + SIGMAS * math.sqrt(2 / degrees + 12 / (length * degrees)):
            return ""
    root, other = math.sqrt(q - 1), math.sqrt(p)
    centre, scale = (root + other) ** 2, (root + other) * (1 / root + 1 / other) ** (1 / 3)
    narrow = sample if p <= q else sample.T
    largest = float(torch.linalg.eigvalsh((narrow @ narrow.T) / variance)[-1])
    return law if largest < centre + 4.5 * scale else ""


def _law(kurtosis: float, count: int) -> str:
    laws = (
        # name, kurtosis, and the variance of its estimate times the number of draws
        ("independent normal draws", 3.0, 24.0),
        ("independent uniform draws", 1.8, 0.8),
        ("independent normal draws cut at two standard deviations", 2.37, 5.0),
    )
    for name, value, spread in laws:
        if abs(kurtosis - value) < SIGMAS * math.sqrt(spread / count):
            return name
    return ""


def _orthogonal(rows: Tensor) -> bool:
    """Are the rows (or columns, whichever are fewer) orthogonal and of one length?

    Looks at 64 of them: chance never makes even these orthogonal to four digits.
    """
    narrow = rows if rows.shape[0] <= rows.shape[1] else rows.T
    few = narrow[:64].double()
    product = few @ few.T
    length = product.diagonal().mean()
    return bool(
        (product - length * torch.eye(len(few), dtype=few.dtype, device=few.device)).abs().max() < 1e-4 * length
    )


def _sample(rows: Tensor) -> Tensor:
    for dim, most in ((0, MOST_ROWS), (1, MOST_COLUMNS)):
        if rows.shape[dim] > most:
            rows = rows.index_select(dim, torch.linspace(0, rows.shape[dim] - 1, most, device=rows.device).long())
    return rows


def summary(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """``(kind, sentence)`` for each kind found: the finding's own sentence, or how many and the first names.

    >>> two = [Finding(f"conv{i}", "dead", f"conv{i}: 3 of 9 filters are dead.") for i in (1, 2)]
    >>> summary(two)[0][1]
    '2 layers have dead filters (conv1, conv2).'
    """
    lines = []
    findings = list(findings)
    for kind, words in KINDS.items():
        some = [finding for finding in findings if finding.kind == kind]
        if len(some) == 1:
            lines.append((kind, some[0].text))
        elif some:
            names = list(dict.fromkeys(finding.where for finding in some))
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            noun = "tensors" if kind == "nan" else "layers"
            lines.append((kind, f"{len(names)} {noun} {words} ({shown})."))
    return lines
