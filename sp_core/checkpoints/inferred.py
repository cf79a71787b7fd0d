"""Networks of a family in a size that has no name of its own: widths, depths and groups, read from the shapes.

A ResNet's shapes say everything that its constructor asks for, so do ShuffleNet's and DenseNet's; a width multiplier is
found by trying the few that round to the widths seen. What comes out are architectures with options
(``torchvision:mobilenet_v2(width_mult=0.35)``), which are then compared like any other: strictly.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sp_core.checkpoints.catalogue import blueprint
from sp_core.checkpoints.expression import written

Shapes = Mapping[str, tuple[int, ...]]

_MOST_BLOCKS = 400  # of one stage: a name may hold any number, and each block is built
_TENSORS_A_BLOCK = 10  # at least: two convolutions and two BatchNorms; fewer are no such network, and it is not built
_MOST_CHANNELS = 65_536
_USUAL_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.25, 1.3, 1.4, 1.5, 2.0, 3.0, 4.0)  # of the papers and their followers
_FINE = [*(step / 100 for step in range(5, 401)), *(step / 1000 for step in range(50, 4001))]
_WIDTHS = tuple(dict.fromkeys([*_USUAL_WIDTHS, *_FINE]))
_MOST_TRIES = 4  # of widths that fit where they are looked at: each is built


def proposals(found: Shapes) -> Iterator[str]:
    """Architectures with options that ``found`` may be; the standard sizes are not repeated.

    >>> from sp_core.checkpoints.catalogue import blueprint
    >>> list(proposals(blueprint("torchvision:resnext50_32x4d").shapes))[0]
    'torchvision:resnet50(groups=32, layers=[3, 4, 6, 3], width_per_group=4)'
    """
    for mark, family in _FAMILIES.items():
        if mark in found:
            try:
                yield from family(found)
            except (KeyError, IndexError, ZeroDivisionError):  # a tensor of the family is missing or has fewer axes
                continue


def blocks(found: Shapes, pattern: str) -> int:
    """How many different numbers ``pattern`` finds: the blocks of a stage; 0 where they are too many to be one."""
    numbers = {match.group(1) for key in found if (match := re.match(pattern, key))}
    return len(numbers) if len(numbers) <= _MOST_BLOCKS else 0


def _resnet(found: Shapes) -> Iterator[str]:
    if "linear.weight" in found:
        yield from _cifar_resnet(found)
        return
    layers = [blocks(found, rf"layer{stage}\.(\d+)\.conv1\.weight$") for stage in (1, 2, 3, 4)]
    if not all(layers) or len(found) < _TENSORS_A_BLOCK * sum(layers):
        return
    if "layer1.0.conv3.weight" not in found:
        yield written("torchvision:resnet18", {"layers": layers})
        return
    width, grouped = found["layer1.0.conv2.weight"][:2]
    groups = width // grouped
    if groups < 1 or width % groups or width > _MOST_CHANNELS:
        return
    # torchvision makes the width int(planes * (width_per_group / 64)) * groups, with 64 planes in the first stage.
    yield written("torchvision:resnet50", {"layers": layers, "groups": groups, "width_per_group": width // groups})


def _cifar_resnet(found: Shapes) -> Iterator[str]:
    """Three stages of as many blocks each: 6 · n + 2 layers, with option A or B."""
    layers = [blocks(found, rf"layer{stage}\.(\d+)\.conv2\.weight$") for stage in (1, 2, 3)]
    if 0 < layers[0] == layers[1] == layers[2] <= 200:
        yield f"zoo:cifar-resnet{6 * layers[0] + 2}{'b' * ('layer2.0.shortcut.0.weight' in found)}"


def _wide_resnet(found: Shapes) -> Iterator[str]:
    """Three groups of as many blocks each: 6 · n + 4 layers, 16 · width channels in the first."""
    layers = [blocks(found, rf"block{group}\.layer\.(\d+)\.conv2\.weight$") for group in (1, 2, 3)]
    width = found["block1.layer.0.conv1.weight"][0]
    if 0 < layers[0] == layers[1] == layers[2] <= 32 and width % 16 == 0:
        yield f"zoo:wrn-{6 * layers[0] + 4}-{width // 16}"


def _wide_bottleneck(found: Shapes) -> Iterator[str]:
    """The same of bottlenecks, under other names."""
    layers = [blocks(found, rf"group{group}\.(\d+)\.conv3\.weight$") for group in (0, 1, 2)]
    width = found["group0.0.conv1.weight"][0]
    if 0 < layers[0] == layers[1] == layers[2] <= 32 and width % 16 == 0:
        yield f"zoo:wrn-{6 * layers[0] + 4}-{width // 16}-bottleneck"


def _dirac_net(found: Shapes) -> Iterator[str]:
    """Three groups of as many convolutions each: 3 · n + 4 layers, 16 · width channels in the stem."""
    weight = r"(?:weight|parametrizations\.weight\.original0)"
    layers = [blocks(found, rf"features\.group{group}\.block(\d+)\.conv\.{weight}$") for group in (0, 1, 2)]
    width = found["features.conv.weight"][0]
    if 0 < layers[0] == layers[1] == layers[2] <= 64 and layers[0] % 2 == 0 and width % 16 == 0:
        folded = "features.group0.block0.conv.weight" in found
        yield f"zoo:diracnet-{3 * layers[0] + 4}-{width // 16}{'-folded' if folded else ''}"


def _shufflenet(found: Shapes) -> Iterator[str]:
    repeats = [blocks(found, rf"stage{stage}\.(\d+)\.branch2\.0\.weight$") for stage in (2, 3, 4)]
    widths = [2 * found[f"stage{stage}.0.branch2.5.weight"][0] for stage in (2, 3, 4)]
    channels = [found["conv1.0.weight"][0], *widths, found["conv5.0.weight"][0]]
    if all(repeats) and max(channels) <= _MOST_CHANNELS:
        yield written("torchvision:shufflenet_v2_x1_0", {"stages_out_channels": channels, "stages_repeats": repeats})


def _densenet(found: Shapes) -> Iterator[str]:
    stages = blocks(found, r"features\.denseblock(\d+)\.denselayer1\.conv2\.weight$")
    config = [
        blocks(found, rf"features\.denseblock{stage}\.denselayer(\d+)\.conv2\.weight$")
        for stage in range(1, min(stages, 16) + 1)
    ]
    growth, bottleneck = found["features.denseblock1.denselayer1.conv2.weight"][:2]
    first = found["features.conv0.weight"][0]
    if len(found) < _TENSORS_A_BLOCK * sum(config):
        return
    if config and all(config) and growth > 0 and bottleneck % growth == 0 and max(first, bottleneck) <= _MOST_CHANNELS:
        options: dict[str, Any] = {"growth_rate": growth, "block_config": config, "num_init_features": first}
        options |= {} if bottleneck == 4 * growth else {"bn_size": bottleneck // growth}
        yield written("torchvision:densenet121", options)


def _widths(name: str, option: str, scaled: str) -> Callable[[Shapes], Iterator[str]]:
    """A family with a width multiplier: the outputs of the weights whose names match ``scaled`` are multiplied by it
    and rounded to 8, so those seen leave an interval of possible widths, of which one is as good as another.
    """

    def family(found: Shapes) -> Iterator[str]:
        usual = blueprint(f"torchvision:{name}").shapes
        pairs = {(shape[0], found[key][0]) for key, shape in usual.items() if re.fullmatch(scaled, key)}
        fitting = (width for width in _WIDTHS if all(_rounded(base * width) == seen for base, seen in pairs))
        for width in itertools.islice(fitting, _MOST_TRIES):
            yield written(f"torchvision:{name}", {option: width})

    return family


def _rounded(channels: float) -> int:
    """To the nearest multiple of 8 that is not more than 10 % lower, as in the papers' and torchvision's code."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8


_FAMILIES: dict[str, Callable[[Shapes], Iterator[str]]] = {
    "layer1.0.conv1.weight": _resnet,
    "block1.layer.0.conv1.weight": _wide_resnet,
    "group0.0.conv3.weight": _wide_bottleneck,
    "features.group0.block0.conv.parametrizations.weight.original0": _dirac_net,
    "features.group0.block0.conv.weight": _dirac_net,
    "stage2.0.branch1.0.weight": _shufflenet,
    "features.denseblock1.denselayer1.conv2.weight": _densenet,
    "features.18.0.weight": _widths("mobilenet_v2", "width_mult", r"features\.(0\.0|1\.conv\.1|\d+\.conv\.2)\.weight"),
    "features.16.0.weight": _widths("mobilenet_v3_large", "width_mult", r"features\.(0|\d+\.block\.\d+)\.0\.weight"),
    "features.12.0.weight": _widths("mobilenet_v3_small", "width_mult", r"features\.(0|\d+\.block\.\d+)\.0\.weight"),
    "layers.13.0.layers.6.weight": _widths("mnasnet1_0", "alpha", r"layers\.(0|6|\d+\.\d+\.layers\.6)\.weight"),
}
