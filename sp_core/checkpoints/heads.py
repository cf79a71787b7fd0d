"""Where checkpoints of one architecture differ: the number of classes, the input's channels, another head, a small
stem.

People keep a body and change its two ends. What the shapes dictate is adapted silently; what they leave open is
guessed, and the guess is a sentence in the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sp_core.checkpoints.catalogue import Blueprint, skeleton
from sp_core.checkpoints.verdict import Verdict
from sp_core.checkpoints.view import View


def class_count(plan: Blueprint, found: Mapping[str, tuple[int, ...]]) -> int | None:
    """How many classes the head's tensors have; None when they do not agree or differ in more than that; 0 without
    head.

    The weights of auxiliary classifiers count as head too, so all must agree.
    """
    counts = set()
    for key in plan.head & found.keys():
        if len(found[key]) != len(plan.shapes[key]) or found[key][1:] != plan.shapes[key][1:]:
            return None
        counts.add(found[key][0])
    if len(counts) > 1 or 0 in counts:
        return None
    return counts.pop() if counts else 0


def input_channels(plan: Blueprint, found: Mapping[str, tuple[int, ...]]) -> int | None:
    """How many channels the stem takes; None when its shape differs in more than that."""
    if not plan.stem:
        return plan.usual
    want, have = plan.shapes[plan.stem], found.get(plan.stem)
    if have is None or len(have) != len(want) or have[1] < 1 or have[:1] + have[2:] != want[:1] + want[2:]:
        return None
    return have[1]


def set_input_channels(module: nn.Module, plan: Blueprint, channels: int) -> None:
    """Replace the stem by one that takes ``channels`` (its weight is meta until it is filled)."""
    if plan.stem and channels != plan.shapes[plan.stem][1]:
        path = plan.stem.removesuffix(".weight")
        old = module.get_submodule(path)
        assert isinstance(old, nn.Conv2d), "the stem is a convolution"
        module.set_submodule(path, _like(old, channels))


def _like(old: nn.Conv2d, channels: int, kernel: tuple[int, int] | None = None, stride: int | None = None) -> nn.Conv2d:
    size = kernel or (old.kernel_size[0], old.kernel_size[1])
    return nn.Conv2d(
        channels,
        old.out_channels,
        size,
        stride=stride or old.stride,  # type: ignore[arg-type]
        padding=(size[0] // 2, size[1] // 2) if kernel else old.padding,  # type: ignore[arg-type]
        dilation=old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
        device="meta",
    )


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put ``tensors`` in place of the module's weights; weights without a tensor must already have real values.

    Batch counters that old files lack are zero: they are not used in evaluation.
    """
    own = module.state_dict()
    state = type(own)(own)
    metadata = getattr(own, "_metadata", None)
    for key, value in own.items():
        counter = key.endswith("num_batches_tracked")
        state[key] = tensors.get(key, torch.zeros((), dtype=torch.long) if counter else value)
    state._metadata = metadata  # type: ignore[attr-defined] # MNASNet reads the version of its own names from it
    module.load_state_dict(state, strict=True, assign=True)
    empty = [key for key, value in module.state_dict().items() if value.is_meta]
    assert not empty, f"every weight has a value, but not {empty[:3]}"


def _body_fits(plan: Blueprint, found: Mapping[str, tuple[int, ...]], container: str, ignore: str = "") -> bool:
    body = {key: shape for key, shape in plan.shapes.items() if key.split(".")[0] != container}
    have = {key: shape for key, shape in found.items() if key.split(".")[0] != container}
    return body.keys() == have.keys() and all(have[key] == shape for key, shape in body.items() if key != ignore)


def small_stem(plan: Blueprint, seen: View) -> tuple[Verdict, nn.Module] | None:
    """A torchvision ResNet whose 7 × 7 stem became a smaller one, as is usual for CIFAR; the rest of it is guessed."""
    found = seen.shapes
    stem = found.get(plan.stem, ())
    wanted = plan.shapes.get(plan.stem, ())
    classes = class_count(plan, found)
    if not plan.name.startswith("torchvision:") or "layer1.0.conv1.weight" not in plan.shapes or not classes:
        return None
    if len(stem) != 4 or stem[0] != wanted[0] or stem[2] >= wanted[2] or stem[2] % 2 == 0 or stem[3] % 2 == 0:
        return None
    if found.keys() != plan.shapes.keys():
        return None
    if any(found[key] != shape for key, shape in plan.shapes.items() if key not in plan.head | {plan.stem}):
        return None
    module = skeleton(plan.name, classes)
    path = plan.stem.removesuffix(".weight")
    old = module.get_submodule(path)
    assert isinstance(old, nn.Conv2d), "the stem of a ResNet is a convolution"
    module.set_submodule(path, _like(old, stem[1], (stem[2], stem[3]), stride=1))
    module.set_submodule("maxpool", nn.Identity())
    fill(module, seen.tensors)
    said = (
        f"The first convolution is {stem[2]}×{stem[3]} instead of {wanted[2]}×{wanted[3]}: stride 1, no pooling "
        "after it and images of 32×32 are guessed, as is usual for CIFAR.",
    )
    return Verdict(plan.name, "likely", said, classes=classes, channels=stem[1], small=True), module


def other_head(plan: Blueprint, seen: View) -> tuple[Verdict, nn.Module] | None:
    """The body of a torchvision network without a head (self-supervised), or with linear layers for a head."""
    container = next((key.split(".")[0] for key in sorted(plan.head, key=len)), "")
    if not plan.name.startswith("torchvision:") or not container:
        return None
    if not _body_fits(plan, seen.shapes, container, plan.stem):
        return None
    channels = input_channels(plan, seen.shapes)
    if channels is None:
        return None
    module = skeleton(plan.name)
    set_input_channels(module, plan, channels)
    own = {key: value for key, value in seen.tensors.items() if key.split(".")[0] == container}
    first = next(part for part in module.get_submodule(container).modules() if isinstance(part, nn.Linear | nn.Conv2d))
    if not own:
        module.set_submodule(container, nn.Identity())
        classes, said = 0, f"There is no classifier '{container}' in the file: features come out, not class scores."
    else:
        head = _linear_head(container, own)
        entry = next((value.shape[1] for value in own.values() if value.ndim == 2), 0)
        if head is None or not isinstance(first, nn.Linear) or entry != first.in_features:
            return None
        module.set_submodule(container, head)
        linear = [part for part in head.modules() if isinstance(part, nn.Linear)]
        classes = linear[-1].out_features
        said = f"The classifier '{container}' has {len(linear)} linear layers of its own; ReLU between them is a guess."
        if len(linear) == 1:
            said = f"The classifier '{container}' is one linear layer under another name; nothing else was assumed."
    fill(module, seen.tensors)
    return Verdict(plan.name, "likely", (said,), classes=classes, channels=channels), module


def _linear_head(container: str, own: Mapping[str, Tensor]) -> nn.Module | None:
    """Linear and BatchNorm layers in the order of their indices; the first gap after a linear layer is a ReLU."""
    weights = {key.removesuffix("weight").rstrip("."): value for key, value in own.items() if key.endswith("weight")}
    if not weights or any(value.ndim not in {1, 2} for value in weights.values()):
        return None
    layers = {path.removeprefix(container).lstrip("."): _layer(path, own) for path in weights}
    if any(layer is None for layer in layers.values()):
        return None
    if list(layers) == [""]:
        return layers[""]
    if not all(name.isdigit() and int(name) < 64 for name in layers):
        return None
    parts: list[nn.Module] = []
    waiting = False  # for an activation after a linear layer
    last = max(int(name) for name in layers)
    for index in range(last + 1):
        layer = layers.get(str(index))
        if layer is None:
            layer, waiting = (nn.ReLU(), False) if waiting else (nn.Identity(), False)
        elif isinstance(layer, nn.Linear):
            waiting = True
        parts.append(layer)
    return nn.Sequential(*parts)


def _layer(path: str, own: Mapping[str, Tensor]) -> nn.Module | None:
    weight = own[f"{path}.weight"]
    if weight.ndim == 2:
        return nn.Linear(weight.shape[1], weight.shape[0], bias=f"{path}.bias" in own, device="meta")
    if f"{path}.running_mean" in own:
        return nn.BatchNorm1d(weight.shape[0], device="meta")
    return None
