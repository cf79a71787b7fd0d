"""The data sets a page can offer, by the name they have in the address bar.

Names: ``textures`` and ``textures:SEED``; ``folder:NAME`` and ``cifar10:NAME`` in the folder that the server's owner
shares (environment variable ``SP_FOLDER``); ``zip:HASH``, a zip of images that someone uploaded to this server.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import streamlit as st

from sp_core import datasets
from sp_core.errors import SpError

CIFAR = ("test_labels.npy", "test_batch", "test_batch.bin", "cifar-10-batches-py", "cifar-10-batches-bin")


def sources() -> list[str]:
    """Every data set that can be chosen without typing."""
    found = ["textures"]
    shared = _shared()
    for path in sorted(shared.iterdir()) if shared else []:
        if path.is_dir() and any((path / probe).exists() for probe in CIFAR):
            found.append(f"cifar10:{path.name}")
        elif path.is_dir() or path.suffix == ".zip":
            found.append(f"folder:{path.name}")
    return found + [f"zip:{path.stem}" for path in sorted(_uploads().glob("*.zip"))]


def label(source: str) -> str:
    """How a data set reads in a picker."""
    kind, _, name = source.partition(":")
    words = {"textures": f"Textures{f', seed {name}' if name else ''}", "cifar10": f"CIFAR-10 ({name})"}
    return words.get(kind) or (f"uploaded zip {name}" if kind == "zip" else name)


def choose() -> str:
    """The picker of a data set; a zip that is uploaded here is kept on the server."""
    with st.popover("Your own images", icon=":material/upload:"):
        file = st.file_uploader("A zip of images, one folder a class", type="zip", key="upload-images")
        st.caption("Or a folder, a zip or CIFAR-10 in the folder that the server's owner shares (SP_FOLDER).")
    if file is not None and st.session_state.get("kept-upload") != file.file_id:
        st.session_state["data"], st.session_state["kept-upload"] = keep_upload(file.getvalue()), file.file_id
    return st.selectbox(
        "Images",
        sources(),
        key="data",
        bind="query-params",
        format_func=label,
        accept_new_options=True,
        width=260,
        help="Textures of another seed: write textures:7.",
    )


def dataset(source: str) -> Any:
    """The data set called ``source``; raises SpError where it is not here."""
    kind, _, name = source.partition(":")
    if kind == "textures":
        return datasets.open(source)
    path = _uploads() / f"{name}.zip" if kind == "zip" else _inside(name)
    if kind not in {"zip", "folder", "cifar10"} or path is None or not path.exists():
        raise SpError(
            f"'{source}' is not a data set of this server: choose textures, write textures:SEED, upload a zip of "
            "images, or ask the server's owner to put a folder of images where SP_FOLDER points."
        )
    return _open(f"cifar10:{path}" if kind == "cifar10" else str(path), path.stat().st_mtime_ns)


@st.cache_resource(max_entries=4, show_spinner="Listing the images …")
def _open(source: str, _changed: int) -> Any:
    return datasets.open(source)


def keep_upload(data: bytes) -> str:
    """Put an uploaded zip into the cache folder; return the name of the data set."""
    name = hashlib.sha256(data).hexdigest()[:16]
    path = _uploads() / f"{name}.zip"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(data)
        try:
            datasets.open(str(part.rename(part.with_suffix(".zip"))))
        except SpError:
            path.unlink(missing_ok=True)
            raise
    return f"zip:{name}"


def _uploads() -> Path:
    root = Path(os.environ.get("SP_CACHE") or Path.home() / ".cache" / "structural-priors")
    return root / "uploads"


def _shared() -> Path | None:
    folder = os.environ.get("SP_FOLDER")
    return Path(folder) if folder and Path(folder).is_dir() else None


def _inside(name: str) -> Path | None:
    shared = _shared()
    path = (shared / name).resolve() if shared else None
    return path if shared and path and path.is_relative_to(shared.resolve()) and path != shared.resolve() else None
