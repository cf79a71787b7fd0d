"""Where a network comes from: a source is one text, such as ``bundled:textures-alexnet`` or the path of a file."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sp_core import zoo
from sp_core.checkpoints import feeding, hub
from sp_core.checkpoints.catalogue import build, skeleton, torchvision_names
from sp_core.checkpoints.expression import parsed, written
from sp_core.checkpoints.identify import identify
from sp_core.checkpoints.named import Options, asked
from sp_core.checkpoints.names import record
from sp_core.checkpoints.read import Checkpoint, read, read_bytes
from sp_core.errors import SpError
from sp_core.network import Network
from sp_core.parameterizations.factored import restructured
from sp_core.parameterizations.recognised import unfactored

BUNDLED = Path(__file__).resolve().parents[2] / "assets" / "checkpoints"
SEED = 0  # of weights that are random because there are no others
MOST_NUMBERS = 2**28  # of those: 1 GB; a link may ask for any number of classes
_SEEDED = threading.Lock()  # torch's generator is one for all threads


def load(
    source: str | Path, *, device: str | torch.device | None = None, architecture: str = "", **options: Any
) -> Network:
    """The network that ``source`` names.

    ====================================  ==========================================================================
    ``bundled:NAME`` or ``NAME``          a checkpoint that comes with the project
    ``torchvision:NAME``                  torchvision's weights if in its cache, else random ones, and it says so
    ``torchvision:NAME@DEFAULT``          those (or ``@IMAGENET1K_V1`` …), downloaded if need be; ``@none``: random
    ``zoo:NAME``                          an untrained architecture of the zoo, always the same random weights
    ``zoo:NAME(OPTION=VALUE, …)``         the same with options: ``zoo:wrn-16-1-bottleneck(symmetry=eigen, classes=5)``
    ``timm:NAME``                         an architecture of timm, if installed; ``@pretrained`` with its weights
    a path                                ``torch.save``, ``.safetensors``, TorchScript, ONNX or the index of several
                                          files, whatever its ending
    ====================================  ==========================================================================

    ``device`` is ``"cpu"``, ``"cuda"`` …; by default the GPU when there is one. ``architecture`` and ``options`` say
    what a file is, where its names and shapes do not show it: ``load("x.pth", architecture="torchvision:resnet18",
    classes=10, small=True)``; the options are those of :func:`sp_core.checkpoints.named.asked`.

    Raises:
        SpError: there is no such source, it is not readable, or no known architecture fits it.

    >>> load("zoo:textures-vgg", device="cpu").input_size
    (3, 64, 64)
    """
    where = check_device(device)
    if architecture or options:
        return _as_asked(source, where, architecture, options)
    if isinstance(source, Path):
        return from_checkpoint(read(source), f"file {source.name}", where, source)
    text = source.strip()
    kind, colon, rest = text.partition(":")
    loaders: dict[str, Callable[[str, torch.device], Network]] = {
        "bundled": from_bundled,
        "torchvision": from_torchvision,
        "zoo": from_zoo,
        "timm": hub.from_timm,
    }
    if colon and kind in loaders:
        return loaders[kind](rest, where)
    path = Path(text)
    if text and (_exists(path) or "/" in text or "\\" in text):
        return from_checkpoint(read(path), f"file {path.name}", where, path)
    if text in bundled_names():
        return from_bundled(text, where)
    raise SpError(_unknown(text))


def _as_asked(source: str | Path, where: torch.device, architecture: str, options: Options) -> Network:
    if not architecture:
        raise SpError(f"{next(iter(options))}= needs architecture=, such as torchvision:resnet18.")
    path = Path(str(source).strip())
    if str(source).partition(":")[0] in {"bundled", "torchvision", "zoo", "timm"} and not _exists(path):
        raise SpError(f"{source} says itself what it is; an architecture is named for a file.")
    return from_checkpoint(read(path), f"file {path.name}", where, path, architecture=architecture, options=options)


def load_bytes(
    data: bytes,
    filename: str,
    *,
    device: str | torch.device | None = None,
    siblings: Mapping[str, bytes] | None = None,
    architecture: str = "",
    options: Options | None = None,
) -> Network:
    """The network in the bytes of a checkpoint file, for example an upload; ``filename`` is what messages call it.

    ``siblings`` are the files uploaded with it by name: the parts that an index (``…index.json``) names.
    ``architecture`` and ``options`` are those of :func:`load`.
    """
    where = check_device(device)
    source = f"upload {Path(filename).name}"
    checkpoint = read_bytes(data, filename, siblings)
    return from_checkpoint(checkpoint, source, where, architecture=architecture, options=options)


def check_device(device: str | torch.device | None) -> torch.device:
    """The device to work on; None is the GPU when there is one. Raises SpError for one that is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.empty(1, device=where)
    except (RuntimeError, AssertionError, TypeError, ValueError, ImportError, NotImplementedError) as error:
        raise SpError(f"There is no device '{device}' here; use cpu{_gpu()}.") from error
    if where.type == "meta":
        raise SpError(f"There is no device '{device}' here; use cpu{_gpu()}.")
    return where


def _gpu() -> str:
    return " or cuda" if torch.cuda.is_available() else ""


def bundled_names() -> list[str]:
    """The checkpoints that come with the project: those with a patch index first, each part in alphabetical order."""
    names = sorted(path.stem for path in BUNDLED.glob("*.safetensors"))
    return sorted(names, key=lambda name: not (BUNDLED.parent / "indexes" / name).is_dir())


def from_bundled(name: str, device: torch.device) -> Network:
    """A checkpoint of ``assets/checkpoints`` with its model card."""
    if name not in bundled_names():
        raise SpError(f"'{name}' is not bundled; {_choose(name, bundled_names())}")
    path = BUNDLED / f"{name}.safetensors"
    net = from_checkpoint(read(path), f"bundled:{name}", device, path)
    net.name = name
    return net


def from_checkpoint(
    checkpoint: Checkpoint,
    source: str,
    device: torch.device | None = None,
    path: Path | None = None,
    hint: str | None = None,
    *,
    architecture: str = "",
    options: Options | None = None,
) -> Network:
    """The network of a checkpoint that was read; a model card beside ``path`` (``NAME.json``) says how it is fed.

    ``hint`` is an architecture to try first (else that of the card), which saves seconds where it fits exactly, and
    decides where several fit; ``architecture`` is what a person says it is.
    """
    card = feeding.read_card(path.with_suffix(".json")) if path is not None and path.suffix == ".safetensors" else None
    hint = hint or _of_card(card)
    dense, plan = unfactored(checkpoint.tensors)
    if plan and not architecture:  # layers in small ones: what they make says which architecture it is
        net = from_checkpoint(replace(checkpoint, tensors=dense), source, device, path, hint)
        if net.confidence == "exact":
            module = restructured(net.clone(), plan)
            module.load_state_dict(checkpoint.tensors)
            why = f"{len(plan)} layers of {net.architecture} are factored: {', '.join(list(plan)[:4])}."
            return replace(net, module=module, architecture=None, warnings=(*net.warnings, why))
    verdict, module, notes = identify(checkpoint, hint, architecture=architecture, options=options)
    fed = feeding.of_verdict(verdict)
    if card is not None:
        fed = feeding.with_card(fed, card, verdict.classes)
    said = list(verdict.warnings)
    if hasattr(module, "transform_input") and fed.mean is not None and verdict.classes == 1000:
        # torchvision's GoogLeNet and Inception weights convert from ImageNet's mean and std to their own 0.5.
        module.transform_input = True  # type: ignore[assignment]
        said.append("transform_input is on, as with torchvision's own weights; the file does not say.")
    stem = Path(checkpoint.filename).stem
    said += [*fed.warnings, *checkpoint.notes, *notes]
    known = None if verdict.changed else verdict.architecture or None
    net = _network(module, stem, fed, device, source, known, verdict.confidence, tuple(said))
    net.record = _record(checkpoint, card)
    return net


def _of_card(card: Mapping[str, Any] | None) -> str | None:
    """The architecture that a model card names, ``"wrn-16-1(symmetry='ldl')"`` or with ``zoo:``; None without one."""
    text = str((card or {}).get("architecture") or "")
    if not text:
        return None
    try:
        return asked(text if ":" in text else f"zoo:{text}").name
    except SpError:  # a card of another program: its word is not asked
        return None


def _record(checkpoint: Checkpoint, card: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the file and its model card say about the training, less what the card says about the network."""
    said = {"format"}
    if card is not None:
        said |= {"name", "architecture", "parameters", "sha256", "input_size", "mean", "std", "classes"}
    facts = {**checkpoint.metadata, **record(card)}
    return {key: value for key, value in facts.items() if key not in said}


def _network(
    module: nn.Module,
    name: str,
    fed: feeding.Feeding,
    device: torch.device | None,
    source: str,
    architecture: str | None,
    confidence: str = "exact",
    warnings: tuple[str, ...] = (),
) -> Network:
    return Network(
        module.to(device or torch.device("cpu")),
        name=name,
        input_size=fed.input_size,
        mean=fed.mean,
        std=fed.std,
        classes=fed.classes,
        architecture=architecture,
        confidence=confidence,
        source=source,
        resize=fed.resize,
        warnings=warnings,
        guesses=fed.guesses,
    )


def from_zoo(text: str, device: torch.device) -> Network:
    """An untrained network of the zoo, ``NAME`` or ``NAME(OPTION=VALUE, …)``; see :func:`load`.

    The seed is fixed, so its random weights are always the same.
    """
    wanted = asked(f"zoo:{text}")
    if wanted.channels is not None:
        raise SpError(
            f"channels= says what a file holds; an untrained zoo:{text.partition('(')[0]} has its own number."
        )
    architecture = wanted.name
    base, options = parsed(architecture)
    numbers = sum(part.numel() for part in _empty(architecture, wanted.classes).parameters())
    if numbers > MOST_NUMBERS:
        raise SpError(
            f"{architecture} would have {numbers:,} weights; at most {MOST_NUMBERS:,} random ones are made. "
            "Choose smaller options."
        )
    module = _random(architecture, wanted.classes)
    fed = feeding.of_zoo(base.partition(":")[2], options)
    source = written(architecture, {} if wanted.classes is None else {"classes": wanted.classes})
    if wanted.classes is not None and len(fed.classes or ()) != wanted.classes:
        fed = replace(fed, classes=None)
    own = source.partition(":")[2]
    said = (f"{own} is untrained: its weights are random (seed {SEED}).",)
    return _network(module, own, fed, device, source, architecture, warnings=said)


def _empty(architecture: str, classes: int | None) -> nn.Module:
    """The network without numbers, which costs nothing; raises SpError where its options make none."""
    try:
        return skeleton(architecture, classes)
    except SpError:
        raise
    except Exception as error:  # a constructor raises ValueError, ZeroDivisionError, OverflowError … on odd options
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SpError(f"{architecture} cannot be built ({reason}); choose other options.") from error


def _random(architecture: str, classes: int | None = None) -> nn.Module:
    with _SEEDED, torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build(architecture, classes)


def from_torchvision(text: str, device: torch.device) -> Network:
    """``NAME``, ``NAME@none`` or ``NAME@WEIGHTS``; see :func:`load`."""
    name, _, wanted = text.partition("@")
    if name not in torchvision_names():
        raise SpError(f"torchvision has no classifier '{name}'; {_choose(name, list(torchvision_names()))}")
    architecture = f"torchvision:{name}"
    weights = hub.cached_weights(name) if not wanted else hub.named_weights(name, wanted)
    if weights is None:
        fed = feeding.of_weights(hub.named_weights(name, "DEFAULT"))
        module = _random(architecture)
        hint = f"; {architecture}@DEFAULT loads trained ones" if not wanted else ""
        said = (f"The weights of {name} are random (seed {SEED}): no trained ones are in torchvision's cache{hint}.",)
        if wanted:
            said = (f"The weights of {name} are random (seed {SEED}), as asked.",)
        fed = replace(fed, classes=None, warnings=())
        return _network(module, name, fed, device, f"torchvision:{text}", architecture, warnings=said)
    fed = feeding.of_weights(weights)
    checkpoint = hub.weights_file(weights)
    verdict, module, _ = identify(checkpoint)
    if verdict.architecture != architecture or verdict.confidence != "exact":
        raise SpError(f"{checkpoint.filename} in torchvision's cache is not {name}; delete it and load {text} again.")
    if hasattr(module, "transform_input"):
        module.transform_input = True  # type: ignore[assignment]
    tag = str(weights).rpartition(".")[2]
    return _network(module, name, fed, device, f"torchvision:{name}@{tag}", architecture, warnings=fed.warnings)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


def _choose(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"choose one of: {', '.join(names)}." if 0 < len(names) <= 20 else "'models' lists what there is."


def _unknown(text: str) -> str:
    short = text if len(text) <= 100 else text[:100] + "…"
    everything = [f"bundled:{name}" for name in bundled_names()]
    everything += [f"torchvision:{name}" for name in torchvision_names()] + [f"zoo:{name}" for name in zoo.names()]
    same = [name for name in everything if name.partition(":")[2] == text]
    hint = (
        f"did you mean {' or '.join(same)}?" if same else "name a file or one of bundled:, torchvision:, zoo:, timm:."
    )
    return f"There is no file '{short}' and nothing bundled of that name; {hint}"
