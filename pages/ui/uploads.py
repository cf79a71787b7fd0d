"""What this session has uploaded: a table of names and content hashes. The bytes stay in the upload widgets."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import streamlit as st

from pages.ui import cache

WIDGETS = {"network": "upload-network", "image": "upload-image"}
MOST_INDEX_BYTES = 16 * 2**20  # of the index of a sharded checkpoint


def table() -> dict[str, dict[str, str]]:
    """Content hash to ``{"what", "name", "id"}``: ``what`` is "network", "image", or "shard" (a part of a network)."""
    return st.session_state.setdefault("uploads", {})


def content(key: str) -> bytes:
    """The bytes of the upload with this content hash."""
    row = table()[key]
    return next(file.getvalue() for file in _files(row["what"]) if file.file_id == row["id"])


def siblings(key: str) -> dict[str, bytes]:
    """The other parts of a sharded checkpoint whose index has this content hash: name to bytes."""
    shards = st.session_state.get("upload-shards", {}).get(table()[key]["id"], frozenset())
    return {file.name: file.getvalue() for file in _files("network") if file.name in shards}


def note() -> list[str]:
    """Keep the table in step with the upload widgets, hashing each file once; return the new networks' hashes.

    A sharded checkpoint is named by its index and by the shards that are here.
    """
    known: dict[str, str] = st.session_state.setdefault("upload-ids", {})
    shards: dict[str, frozenset[str]] = st.session_state.setdefault("upload-shards", {})
    before, present = table(), {}
    for what in WIDGETS:
        for file in _files(what):
            if file.file_id not in known:
                data = file.getvalue()
                known[file.file_id] = cache.digest(data)
                shards[file.file_id] = _shards(file.name, data) if what == "network" else frozenset()
            present[known[file.file_id]] = {"what": what, "name": file.name, "id": file.file_id}
    for key, row in list(present.items()):
        wanted = shards.get(row["id"])
        if not wanted:
            continue
        parts = sorted(k for k, other in present.items() if other["what"] == "network" and other["name"] in wanted)
        for part in parts:
            present[part] = {**present[part], "what": "shard"}
        name = hashlib.sha256("|".join([key, *parts]).encode()).hexdigest()[:16]
        present[name] = present.pop(key)
    st.session_state["uploads"] = present
    return [key for key, row in present.items() if row["what"] == "network" and key not in before]


def _files(what: str) -> list[Any]:
    files = st.session_state.get(WIDGETS["image" if what == "image" else "network"]) or []
    return files if isinstance(files, list) else [files]


def _shards(name: str, data: bytes) -> frozenset[str]:
    """The files that the index of a sharded checkpoint names; none for any other file."""
    if not name.endswith(".json") or len(data) > MOST_INDEX_BYTES:
        return frozenset()
    try:
        return frozenset(str(shard) for shard in json.loads(data)["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return frozenset()
