"""Every architecture that a checkpoint may turn out to be: names and shapes of its weights, without the weights.

A blueprint is built with empty *meta* tensors, so 600 million parameters cost milliseconds. Blueprints are made when
they are first asked for and kept for the process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sp_core import zoo
from sp_core.checkpoints.expression import parsed
from sp_core.errors import SpError

# What every checkpoint of a torchvision family holds, and the beginnings of the names of its members. A test proves
# that the table is complete; it saves building 80 networks to name one.
_FAMILIES = (
    ({"layer1.0.conv1.weight", "layer1.0.conv3.weight"}, ("resnet50", "resnet101", "resnet152", "resnext", "wide_")),
    ({"layer1.0.conv1.weight", "layer4.0.conv1.weight"}, ("resnet18", "resnet34")),
    ({"features.0.weight"}, ("alexnet", "vgg", "squeezenet")),
    ({"features.conv0.weight"}, ("densenet",)),
    ({"features.1.conv.0.0.weight"}, ("mobilenet_v2",)),
    ({"features.1.block.0.0.weight"}, ("mobilenet_v3",)),
    ({"features.1.0.block.1.fc1.weight"}, ("efficientnet_b",)),
    ({"features.1.1.block.0.1.weight", "features.4.0.block.2.fc1.weight"}, ("efficientnet_v2",)),
    ({"features.1.0.layer_scale"}, ("convnext",)),
    ({"features.1.0.norm1.weight"}, ("swin",)),
    ({"inception3a.branch1.conv.weight"}, ("googlenet",)),
    ({"Mixed_5b.branch1x1.conv.weight"}, ("inception",)),
    ({"layers.0.weight", "layers.8.0.layers.0.weight"}, ("mnasnet",)),
    ({"conv1.0.weight", "stage2.0.branch1.0.weight"}, ("shufflenet",)),
    ({"stem.0.weight", "trunk_output.block1.block1-0.proj.0.weight"}, ("regnet",)),
    ({"conv_proj.weight", "class_token"}, ("vit",)),
    ({"stem.0.0.weight", "blocks.0.layers.0.layers.MBconv.proj.1.weight"}, ("maxvit",)),
)
# In-place operations by which layers are initialised.
_INITIALISERS = {
    *("uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_", "eye_", "dirac_", "orthogonal_"),
    *("sparse_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"),  # of torch.nn.init
    *("fill_", "zero_", "copy_", "add_", "sub_", "mul_", "div_", "erfinv_", "clamp_", "random_"),  # of tensors
}
_AUXILIARY = {"torchvision:googlenet": "aux1.", "torchvision:inception_v3": "AuxLogits."}


@dataclass(frozen=True)
class Blueprint:
    """The names and shapes of an architecture's weights.

    Attributes:
        name: ``"torchvision:resnet18"`` or ``"zoo:textures-vgg"``.
        shapes: name of each parameter and buffer to its shape, without BatchNorm's batch counters.
        head: the names whose first dimension is the number of classes.
        stem: the weight of the first convolution, whose second dimension is the input's channels; "" without one.
        classes: the number of classes it was built with.
        usual: the input channels of an architecture without a first convolution.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]
    head: frozenset[str]
    stem: str
    classes: int
    usual: int = 3

    @property
    def channels(self) -> int:
        """The input channels it was built with."""
        return self.shapes[self.stem][1] if self.stem else self.usual


class empty_on_meta(TorchFunctionMode):
    """Within it, in this thread only, ``torch.empty`` (what layers are made of) allocates nothing.

    ``torch.device("meta")`` would also move the arithmetic with which RegNet works out its widths. Drawing random
    numbers into tensors that hold none is skipped: it would import torch's Python kernels, which takes seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        target = args[0] if args else kwargs.get("tensor")
        if isinstance(target, torch.Tensor) and target.is_meta and getattr(func, "__name__", "") in _INITIALISERS:
            return target
        return func(*args, **kwargs)


def build(name: str, classes: int | None = None, auxiliary: bool = True) -> nn.Module:
    """The architecture with random weights drawn from torch's global generator; ``classes`` None: its usual number.

    ``name`` may have options: ``"torchvision:mobilenet_v2(width_mult=0.5)"``.
    """
    base, options = parsed(name)
    kind, _, short = base.partition(":")
    if kind == "zoo":
        return zoo.create(short, **options, **({} if classes is None else {"classes": classes}))
    if kind == "timm":
        from sp_core.checkpoints.timm_names import create

        return create(short, classes)
    options["weights"] = None
    if classes is not None:
        options["num_classes"] = classes
    if base in _AUXILIARY:
        options |= {"aux_logits": auxiliary, "init_weights": False}
    return _torchvision(short, options)


def _torchvision(short: str, options: dict[str, Any]) -> nn.Module:
    """Where an option is one that the builder of this name fixes, the class behind it is called."""
    from torchvision import models

    beyond = {key for key in ("layers", "alpha", "stages_repeats", "growth_rate") if key in options}
    if not beyond:
        return models.get_model(short, **options)
    del options["weights"]
    if "layers" in beyond:
        block = models.resnet.BasicBlock if short in {"resnet18", "resnet34"} else models.resnet.Bottleneck
        return models.ResNet(block, **options)
    if "alpha" in beyond:
        return models.MNASNet(**options)
    return models.DenseNet(**options) if "growth_rate" in beyond else models.ShuffleNetV2(**options)


def skeleton(name: str, classes: int | None = None, auxiliary: bool = True) -> nn.Module:
    """The same with empty meta tensors for weights: made in milliseconds, to be filled by
    ``load_state_dict(assign=True)``.

    >>> next(skeleton("torchvision:alexnet").parameters()).is_meta
    True
    """
    if name.startswith("timm:"):
        from sp_core.checkpoints import timm_names

        return timm_names.skeleton(name.partition(":")[2], classes)
    with empty_on_meta():
        return build(name, classes, auxiliary)


def has_auxiliary(name: str, names: Iterable[str]) -> bool:
    """Whether ``names`` hold the training-time side classifiers of GoogLeNet or Inception."""
    prefix = _AUXILIARY.get(name.partition("(")[0])
    return prefix is not None and any(key.startswith(prefix) for key in names)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name to shape of everything in the state dict, without BatchNorm's batch counters (older files lack them)."""
    state = module.state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}


@lru_cache(maxsize=1024)  # options are without end, and a stranger's file may ask for any
def blueprint(name: str, auxiliary: bool = True) -> Blueprint:
    """The blueprint of ``"torchvision:…"``, ``"zoo:…"`` or, where it is installed, ``"timm:…"``, options and all.

    >>> blueprint("torchvision:alexnet").shapes["features.0.weight"]
    (64, 3, 11, 11)
    """
    module = skeleton(name, auxiliary=auxiliary)
    shapes = shapes_of(module)
    if name.startswith("torchvision:") and "(" not in name:
        classes = 1000
        head = frozenset(key for key, shape in shapes.items() if shape[:1] == (1000,))
    else:
        # What grows with the number of classes is the head.
        more = _with_more_classes(name) or shapes
        head = frozenset(key for key, shape in shapes.items() if more.get(key) != shape)
        classes = next((shapes[key][0] for key in head), 0)
    stem = next((f"{path}.weight" for path, part in module.named_modules() if isinstance(part, nn.Conv2d)), "")
    kind, _, short = name.partition(":")
    usual = zoo.entry(short.partition("(")[0]).input_size[0] if kind == "zoo" else 3
    return Blueprint(name, shapes, head, stem if stem in shapes else "", classes, usual)


def _with_more_classes(name: str) -> dict[str, tuple[int, ...]] | None:
    try:
        return shapes_of(skeleton(name, classes=1013))
    except SpError:  # a family without that option
        return None


@cache
def torchvision_names() -> tuple[str, ...]:
    """Torchvision's image classifiers, in alphabetical order."""
    from torchvision import models

    return tuple(models.list_models(module=models))


def candidates(names: Iterable[str]) -> list[str]:
    """The architectures worth comparing with a checkpoint that holds ``names``: the common ones first.

    >>> "zoo:wrn-16-1" in candidates(["conv1.weight", "fc.weight"])
    False
    """
    present = set(names)
    members = tuple(start for marks, starts in _FAMILIES if marks <= present for start in starts)
    usual = [f"torchvision:{name}" for name in torchvision_names() if members and name.startswith(members)]
    ours = (name for name in zoo.names() if not zoo.entry(name).elsewhere and zoo.entry(name).marks <= present)
    return usual + [f"zoo:{name}" for name in ours]
