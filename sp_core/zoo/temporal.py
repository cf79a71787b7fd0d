"""Networks over time: a temporal convolutional network, a residual one for electrocardiograms, an LSTM and a GRU.

A signal of c channels and t samples is an image ``[n, c, 1, t]`` of height 1, and a filter over k samples is 1 × k: the
same weights and the same arithmetic as in one dimension, and everything that looks at images can look at them.

``tcn``: Bai, Kolter and Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence
modeling", arXiv 1803.01271, 2018 (github.com/locuslab/TCN), the network for MNIST digits read pixel by pixel.
``ecg-resnet34``: Hannun et al., "Cardiologist-level arrhythmia detection", Nature Medicine 2019 (github.com/awni/ecg).
``lstm``, ``gru``: Hochreiter and Schmidhuber 1997; Cho et al. 2014, in PyTorch's form with two biases.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sp_core.errors import SpError
from sp_core.zoo.entry import Entry, untrained


class TemporalBlock(nn.Module):
    """Two causal convolutions that skip ``dilation`` - 1 samples, weight-normalised, with dropout and a skip."""

    def __init__(self, channels_in: int, channels: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.pad = (kernel - 1) * dilation
        convs = [nn.Conv2d(wide, channels, (1, kernel), dilation=(1, dilation)) for wide in (channels_in, channels)]
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
        self.conv1, self.conv2 = (weight_norm(conv) for conv in convs)
        self.drop = nn.Dropout(0.05)
        self.downsample = nn.Conv2d(channels_in, channels, kernel_size=1) if channels_in != channels else None

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, 1, t]`` to ``[n, channels, 1, t]``; no sample depends on a later one."""
        skip = x if self.downsample is None else self.downsample(x)
        for conv in (self.conv1, self.conv2):
            x = self.drop(F.relu(conv(F.pad(x, (self.pad, 0)))))
        return F.relu(x + skip)


class TCN(nn.Module):
    """Blocks of dilation 1, 2, 4, …: signals ``[n, 1, 1, t]`` to the logits ``[n, classes]`` at the last sample.

    A sample sees 1 + 2 · (kernel - 1) · (2 ^ levels - 1) samples back.
    """

    def __init__(self, levels: int = 8, hidden: int = 25, kernel: int = 7, classes: int = 10) -> None:
        super().__init__()
        blocks = [TemporalBlock(hidden if i else 1, hidden, kernel, 2**i) for i in range(levels)]
        self.network = nn.Sequential(*blocks)
        self.linear = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Signals in [0, 1] to logits."""
        return self.linear(self.network(x)[:, :, 0, -1])


def _same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Keras's padding "same": ``⌈t / stride⌉`` samples come out; where the padding is odd, one more on the right."""
    length = x.shape[3]
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return F.pad(x, (total // 2, total - total // 2))


class BeatBlock(nn.Module):
    """BatchNorm, ReLU, 16 samples, dropout, twice; the skip is pooled, and padded with channels of zeros."""

    def __init__(self, channels_in: int, channels: int, stride: int, first: bool) -> None:
        super().__init__()
        self.stride, self.extra = stride, channels - channels_in
        self.bn1 = None if first else nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, (1, 16), stride=(1, stride))
        self.bn2 = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.2)
        self.conv2 = nn.Conv2d(channels, channels, (1, 16))
        self.pool = nn.MaxPool2d((1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, 1, t]`` to ``[n, channels, 1, t / stride]``."""
        skip = F.pad(self.pool(x), (0, 0, 0, 0, 0, self.extra))
        x = x if self.bn1 is None else F.relu(self.bn1(x))
        x = self.drop(F.relu(self.bn2(self.conv1(_same(x, 16, self.stride)))))
        return self.conv2(_same(x, 16, 1)) + skip


class BeatNet(nn.Module):
    """33 convolutions and a dense layer: ``[n, 1, 1, t]`` to logits ``[n, classes, 1, t / 256]``, one a 256 samples."""

    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, (1, 16))
        self.bn = nn.BatchNorm2d(32)
        blocks, channels = [], 32
        for index in range(16):
            wide = 32 * 2 ** (index // 4)
            blocks.append(BeatBlock(channels, wide, 1 + index % 2, index == 0))
            channels = wide
        self.blocks = nn.Sequential(*blocks)
        self.bn_last = nn.BatchNorm2d(channels)
        self.dense = nn.Conv2d(channels, classes, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Signals, standardised over the training set, to logits."""
        x = self.blocks(F.relu(self.bn(self.conv(_same(x, 16, 1)))))
        return self.dense(F.relu(self.bn_last(x)))


class LSTMCell(nn.Module):
    """i, f, o = σ(W x + U h), g = tanh(W x + U h); c ← f · c + i · g; h ← o · tanh(c). Gates in PyTorch's order."""

    states = 2

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input, self.hidden = nn.Linear(inputs, 4 * hidden), nn.Linear(hidden, 4 * hidden)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """``[n, inputs]`` and ``(h, c)``, each ``[n, hidden]``, to the next ``(h, c)``."""
        h, c = state
        i, f, g, o = (self.input(x) + self.hidden(h)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class GRUCell(nn.Module):
    """r, z = σ(W x + U h), n = tanh(W x + r · U h); h ← n + z · (h - n). Gates in PyTorch's order."""

    states = 1

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input, self.hidden = nn.Linear(inputs, 3 * hidden), nn.Linear(hidden, 3 * hidden)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """``[n, inputs]`` and ``(h,)`` to the next ``(h,)``."""
        (h,) = state
        (r, z, n), (hr, hz, hn) = self.input(x).chunk(3, 1), self.hidden(h).chunk(3, 1)
        new = torch.tanh(n + torch.sigmoid(r + hr) * hn)
        return (new + torch.sigmoid(z + hz) * (h - new),)


# A step costs a dozen operations, whatever the machine; who follows a network over a huge image must not wait for them.
_LONGEST = 1024


class Unrolled(nn.Module):
    """A cell run over time from a state of zeros."""

    def __init__(self, cell: LSTMCell | GRUCell, hidden: int) -> None:
        super().__init__()
        self.cell, self.width = cell, hidden
        for parameter in cell.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, 1, t]`` to the states h, ``[n, hidden, 1, t]``; t is at most 1024, one step after the other."""
        if x.shape[3] > _LONGEST:
            raise SpError(f"A sequence has at most {_LONGEST} steps; got {x.shape[3]}. Cut it into shorter ones.")
        state = (x.new_zeros(x.shape[0], self.width),) * self.cell.states
        seen = []
        for t in range(x.shape[3]):
            state = self.cell(x[:, :, 0, t], state)
            seen.append(state[0])
        return torch.stack(seen, 2)[:, :, None]


class Recurrent(nn.Module):
    """A memory and a readout: sequences ``[n, inputs, 1, t]`` to the logits ``[n, classes]`` of what comes next."""

    def __init__(self, cell: type[LSTMCell | GRUCell], inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.memory = Unrolled(cell(inputs, hidden), hidden)
        self.readout = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences to logits."""
        return self.readout(self.memory(x)[:, :, 0, -1])


def _make(cell: type[LSTMCell | GRUCell], inputs: int = 10, hidden: int = 20, classes: int = 10) -> nn.Module:
    return Recurrent(cell, inputs, hidden, classes)


def _recurrent(cell: type[LSTMCell | GRUCell], about: str) -> Entry:
    return untrained(partial(_make, cell), (10, 1, 16), about, {"memory.cell.input.weight", "readout.weight"})


ENTRIES: dict[str, Entry] = {
    "tcn": untrained(
        TCN,
        (1, 1, 784),
        "Temporal convolutional network for MNIST pixel by pixel (Bai et al. 2018)",
        {"network.7.conv2.parametrizations.weight.original1", "linear.weight"},
    ),
    "ecg-resnet34": untrained(
        BeatNet,
        (1, 1, 7680),
        "34-layer residual network for electrocardiograms, one rhythm a 256 samples (Hannun et al. 2019)",
        {"blocks.15.conv2.weight", "dense.weight"},
    ),
    "lstm": _recurrent(LSTMCell, "LSTM over sequences of 10 numbers, 20 cells (Hochreiter and Schmidhuber 1997)"),
    "gru": _recurrent(GRUCell, "GRU over sequences of 10 numbers, 20 cells (Cho et al. 2014)"),
}
