"""The networks that can be chosen, and what a person said by hand of one: its architecture, and how it is fed.

What is said by hand belongs to one network, is kept across pages, and stands in the address bar (``PARAMETERS``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from pages.ui import cache, uploads
from sp_core.errors import SpError

PARAMETERS = ("as", "input", "resize", "norm", "names")  # not "size", which is the size of pictures that are made
FEEDING = PARAMETERS[1:]
MOST_SIDE = 1024  # pixels of an input that a viewer may ask this server for
CHECKPOINT_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".th", ".tar", ".pkl", ".t7", ".model", ".onnx")


def sources() -> list[str]:
    """Every network that can be chosen: bundled, uploaded, the owner's folder, untrained, torchvision."""
    from sp_core import checkpoints, zoo

    return [
        *(f"bundled:{name}" for name in checkpoints.bundled_names()),
        *(f"file:{key}" for key, row in uploads.table().items() if row["what"] == "network"),
        *(f"path:{name}" for name in owner_files()),
        *(f"zoo:{name}" for name in zoo.names() if not zoo.entry(name).elsewhere),  # those are torchvision's
        *(f"torchvision:{name}" for name in _torchvision_names()),
    ]


def _torchvision_names() -> list[str]:
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def label(source: str) -> str:
    """How a source reads in the picker."""
    kind, _, name = source.partition(":")
    if kind == "file":
        row = uploads.table().get(name)
        return f"{row['name']} (yours)" if row else f"file {name} (not uploaded here)"
    return {"bundled": f"{name}", "zoo": f"{name} (untrained)", "path": name}.get(kind, source)


def load(source: str) -> Any:
    """The network that ``source`` names, fed as was said by hand; raises SpError where there is none."""
    net = found(source)
    given = _given(source, net.input_size[0])
    if not given:
        return net
    said = "|".join(f"{name}={value}" for name, value in sorted(by_hand(source).items()))
    # The name is in the key: a network carries its file's name, which is no one else's business.
    return cache.network(f"fed|{source}|{net.name}|{net.identity}|{said}", lambda: net.fed(**given))


def found(source: str) -> Any:
    """The network that ``source`` names, fed as its file says or as is usual for it."""
    from sp_core import checkpoints

    kind = source.partition(":")[0]
    if is_file(source):
        return read_as(source, by_hand(source).get("as", ""))
    if kind not in {"bundled", "zoo", "torchvision", "timm"}:
        raise SpError(f"'{source}' is not a network; write bundled:NAME, torchvision:NAME, zoo:NAME, or upload a file.")
    return cache.network(source, lambda: checkpoints.load(source))


def is_file(source: str) -> bool:
    """Whether it is a file, an upload or the owner's, of which a person may say what it is."""
    return source.partition(":")[0] in {"file", "path"}


def read_as(source: str, written: str) -> Any:
    """The network in the file that ``source`` names, as the architecture that is written, if any is."""
    how = how_to_read(source)
    return cache.network(f"{how.key}|{written}", lambda: how.load(**_as(written)))


class Reading:
    """How the bytes of a file are had: ``key`` names them, ``load(**how)`` makes a network, ``read()`` a checkpoint."""

    def __init__(self, key: str, load: Callable[..., Any], read: Callable[[], Any]) -> None:
        self.key, self.load, self.read = key, load, read


def how_to_read(source: str) -> Reading:
    """The upload or the owner's file that ``source`` names; raises SpError where it is not here."""
    from sp_core import checkpoints
    from sp_core.checkpoints import read

    kind, _, name = source.partition(":")
    if kind == "file":
        row = uploads.table().get(name)
        if row is None:
            raise SpError(
                f"This link shows a checkpoint with content hash {name} that is not uploaded in this session. "
                "Upload the file in the sidebar under “Use your own” to see the same view."
            )
        data, parts = uploads.content(name), uploads.siblings(name)
        more = {"siblings": parts} if parts else {}
        return Reading(
            f"{source}|{row['name']}",
            lambda **how: checkpoints.load_bytes(data, row["name"], **more, **how),
            lambda: read.read_bytes(data, row["name"], **more),
        )
    folder = _owner_folder()
    if folder is None or name not in owner_files():
        raise SpError(f"'{name}' is not in the folder that this server's owner shares; choose another network.")
    path = folder / name
    stat = path.stat()
    return Reading(
        f"{source}|{stat.st_mtime_ns}|{stat.st_size}",
        lambda **how: checkpoints.load(str(path), **how),
        lambda: read.read(path),
    )


def _as(written: str) -> dict[str, Any]:
    from sp_core.checkpoints import by_hand as texts

    return {"architecture": texts.architecture(written)} if written else {}


def _owner_folder() -> Path | None:
    folder = os.environ.get("SP_FOLDER")
    return Path(folder) if folder and Path(folder).is_dir() else None


def owner_files() -> dict[str, int]:
    """Checkpoints in the one folder that the server's owner allows (``SP_FOLDER``) and one level below it, in bytes."""
    from sp_core.checkpoints.snapshots import checkpoint_files

    folder = _owner_folder()
    return {} if folder is None else checkpoint_files(folder, CHECKPOINT_ENDINGS)


# --- said by hand ---------------------------------------------------------------------------------------------------


def by_hand(source: str) -> dict[str, str]:
    """What was said of ``source``: names of ``PARAMETERS`` to texts, as they stand in the address."""
    return st.session_state.get("by-hand", {}).get(source, {})


def facts_by_hand(source: str) -> set[str]:
    """Which of "architecture", "size" and "normalisation" were said by hand."""
    words = {"as": "architecture", "input": "size", "norm": "normalisation"}
    return {words[name] for name in by_hand(source) if name in words}


def say(source: str, **values: str | None) -> None:
    """Say something of ``source`` by hand; None takes it back."""
    kept = by_hand(source) | {name.rstrip("_"): value for name, value in values.items()}
    every = st.session_state.setdefault("by-hand", {})
    every[source] = {name: value for name, value in kept.items() if value}


def link(source: str) -> None:
    """Take from the address what it says of ``source`` (once a session), then keep the address in step."""
    if "by-hand" not in st.session_state:
        said = {name: st.query_params[name][:200] for name in PARAMETERS if st.query_params.get(name)}
        st.session_state["by-hand"] = {source: said}
    said = by_hand(source)
    for name in PARAMETERS:
        if name not in said:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != said[name]:
            st.query_params[name] = said[name]


def class_names() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Content hash to file name and class names of the files that this session uploaded."""
    return st.session_state.setdefault("class-names", {})


def missing_names(source: str) -> str:
    """A sentence where the link names a file of class names that is not here, else ""."""
    wanted = by_hand(source).get("names")
    if not wanted or wanted in class_names():
        return ""
    return (
        f"This link names a file of class names with content hash {wanted} that is not uploaded in this session; "
        "upload it on the identity card. Classes are shown as without it."
    )


def _given(source: str, channels: int) -> dict[str, Any]:
    """The arguments of :meth:`sp_core.Network.fed`."""
    from sp_core.checkpoints import by_hand as texts

    said, given = by_hand(source), {}
    if "input" in said:
        given["input_size"] = texts.size(said["input"])
        if max(given["input_size"]) > MOST_SIDE:
            raise SpError(f"This server shows inputs of at most {MOST_SIDE} pixels a side; got {said['input']}.")
    if "resize" in said:
        given["resize"] = texts.size(said["resize"])[0]
    if "norm" in said:
        given["mean"], given["std"] = texts.normalisation(said["norm"], channels)
    if said.get("names") in class_names():
        given["classes"] = class_names()[said["names"]][1]
    return given


def loads_as(source: str) -> str:
    """What ``sp.load`` takes to load this network elsewhere: the source, or the file's own name."""
    kind, _, name = source.partition(":")
    if kind == "file":
        return uploads.table().get(name, {}).get("name", name)
    return f"./{name}" if kind == "path" else source


def code(source: str) -> str:
    """The Python that loads this network, fed as here: ``sp.load("bundled:…")``."""
    said = by_hand(source)
    how = "".join(f", {key}={value!r}" for key, value in _as(said.get("as", "")).items())
    try:
        given = _given(source, found(source).input_size[0])
    except SpError:
        given = {}
    parts = [f"{key}={value!r}" for key, value in given.items() if key != "classes"]
    if "classes" in given:
        parts.append(f"classes=sp.checkpoints.by_hand.read_class_names({class_names()[said['names']][0]!r})")
    return f"sp.load({loads_as(source)!r}{how})" + (f".fed({', '.join(parts)})" if parts else "")
