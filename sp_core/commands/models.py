"""``models``: the names that can be loaded."""

from __future__ import annotations

import argparse
from typing import Any


def arguments(parser: argparse.ArgumentParser) -> None:
    """No options beyond ``--json``."""


def run(args: argparse.Namespace) -> dict[str, Any]:
    """``bundled``, ``zoo`` and ``torchvision``: each a list of names, to be loaded as ``bundled:NAME`` and so on."""
    from sp_core import zoo
    from sp_core.checkpoints.catalogue import torchvision_names
    from sp_core.checkpoints.sources import bundled_names

    answer: dict[str, Any] = {"bundled": bundled_names(), "zoo": zoo.names(), "torchvision": list(torchvision_names())}
    about = {
        "bundled": "trained, come with the project",
        "zoo": "untrained architectures",
        "torchvision": "with weights where they are in its cache or can be downloaded",
    }
    lines = []
    for kind, names in answer.items():
        lines += [f"{kind}: ({about[kind]})", *(f"  {kind}:{name}" for name in names)]
    return answer | {"text": "\n".join([*lines, "or the path of a checkpoint file"])}
