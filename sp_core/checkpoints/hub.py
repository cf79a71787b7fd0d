"""Weights that others keep: torchvision's (its own download and cache) and timm's, which is optional.

Offline is a normal state here: whether a file is in the cache is looked at first, and whether the server answers is
asked with a short limit, so that a lecture without a network waits seconds, not minutes.
"""

from __future__ import annotations

import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from sp_core.checkpoints.read import Checkpoint, read
from sp_core.errors import SpError
from sp_core.network import Network

PATIENCE = 5.0  # seconds to wait for the first answer of a server


def named_weights(name: str, wanted: str) -> Any:
    """Torchvision's weights ``wanted`` of the classifier ``name``; None for ``"none"``. Raises SpError for others."""
    from torchvision import models

    if wanted.lower() == "none":
        return None
    options = models.get_model_weights(name)
    for key, weights in options.__members__.items():
        if key.lower() == wanted.lower():
            return weights
    known = ", ".join([*options.__members__, "none"])
    raise SpError(f"torchvision has no weights '{wanted}' for {name}; choose one of: {known}.")


def cached_weights(name: str) -> Any:
    """Weights of the classifier ``name`` that are in the cache, DEFAULT before others; None when there are none."""
    from torchvision import models

    options = models.get_model_weights(name)
    wanted = [*dict.fromkeys([named_weights(name, "DEFAULT"), *options])]
    return next((weights for weights in wanted if cache_path(weights).is_file()), None)


def cache_path(weights: Any) -> Path:
    """Where torchvision keeps ``weights`` once they are downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name


def weights_file(weights: Any) -> Checkpoint:
    """The checkpoint of ``weights`` from the cache, downloaded first when it is not there.

    Raises:
        SpError: it is neither in the cache nor to be had, or the file in the cache is damaged.
    """
    path = cache_path(weights)
    if not path.is_file():
        _download(weights, path)
    try:
        return read(path)
    except SpError as error:
        raise SpError(
            f"{error} It lies in torchvision's cache ({path.parent}): delete it to download it anew."
        ) from error


def _download(weights: Any, path: Path) -> None:
    complaint = _unreachable(weights.url)
    if complaint is None:
        prefix = path.stem.rpartition("-")[2]  # torchvision's names end in the beginning of the file's sha256
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(weights.url, str(path), prefix or None, progress=False)
            return
        except (OSError, RuntimeError, ValueError) as error:
            complaint = " ".join(str(error).split())[:120] or type(error).__name__
    raise SpError(
        f"{weights} is not in torchvision's cache and cannot be downloaded ({complaint}); connect to the internet "
        f"once, or put {path.name} into {path.parent}, or load it with @none for random weights."
    )


def _unreachable(url: str) -> str | None:
    """Why the server of ``url`` does not answer, or None when it does. Looking a name up can hang: hence the thread."""
    answer: list[str | None] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE):
                answer.append(None)
        except urllib.error.HTTPError:
            answer.append(None)  # it answers, if not this question
        except (OSError, ValueError, http.client.HTTPException) as error:
            answer.append(str(getattr(error, "reason", error)) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answer[0] if answer else f"no answer in {PATIENCE:g} seconds"


def from_timm(text: str, device: torch.device) -> Network:
    """``NAME`` (random weights) or ``NAME@pretrained``, where timm is installed."""
    name, _, wanted = text.partition("@")
    try:
        import timm
    except ImportError as error:
        raise SpError("timm is not installed; install it with: pip install timm") from error
    if wanted not in {"", "none", "pretrained"}:
        raise SpError(f"timm:{name} takes @pretrained or nothing; got '@{wanted}'.")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", f"{PATIENCE:.0f}")  # its reader takes whole seconds only
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = timm.create_model(name, pretrained=wanted == "pretrained")
    except Exception as error:  # timm raises RuntimeError, and whatever its hub client raises offline
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise SpError(f"timm:{text} cannot be made ({reason}); check the name, or your connection.") from error
    facts = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None) or {}
    size = tuple(facts.get("input_size", (3, 224, 224)))
    resize = round(min(size[1:]) / float(facts.get("crop_pct") or 0.875))
    said = (
        ()
        if wanted == "pretrained"
        else (f"The weights of {name} are random (seed 0); add @pretrained for trained ones.",)
    )
    return Network(
        module.to(device),
        name=name,
        input_size=size,
        mean=facts.get("mean"),
        std=facts.get("std"),
        architecture=f"timm:{name}",
        source=f"timm:{text}",
        resize=resize,
        warnings=said,
    )
