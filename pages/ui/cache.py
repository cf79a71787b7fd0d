"""Caching and turn-taking: what is asked twice is computed once, and torch works for one script at a time.

Keys hold everything that changes a result: the fingerprint of the weights, the layer, the settings, the seed, the
content hash of the image. Arrays are never keys (Streamlit samples large ones); their digests are.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import streamlit as st

T = TypeVar("T")


class _Turn:
    """One script at a time, waiting for the others; a script that would wait for itself for ever is told so."""

    def __init__(self) -> None:
        self._lock, self._owner = threading.Lock(), 0

    def __enter__(self) -> None:
        if self._owner == threading.get_ident():
            raise RuntimeError("This script holds torch's turn already: ask `cache.answer` outside `cache.turn()`.")
        self._lock.acquire()
        self._owner = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._owner = 0
        self._lock.release()


# Several torch computations at once slow each other, and every light page, down; one at a time they do not.
_turn = _Turn()


def turn() -> _Turn:
    """Torch's one turn, to be held as shortly as possible (``with cache.turn(): …``)."""
    return _turn


def digest(data: bytes) -> str:
    """16 hexadecimal digits that name these bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


@st.cache_data(max_entries=400, max_size="300MB", show_spinner=False)
def _answer(question: str, key: Hashable, _compute: Callable[[], Any]) -> Any:
    with _turn:
        return _compute()


def answer(question: str, key: tuple[Hashable, ...], compute: Callable[[], T]) -> T:
    """``compute()``, remembered under ``(question, key)`` for all viewers; each caller gets a copy of its own.

    ``key`` must hold everything that ``compute`` depends on. Exceptions are not remembered.
    """
    return _answer(question, key, compute)


@st.cache_resource(max_entries=6, show_spinner="Loading the network …")
def _network(name: str, _load: Callable[[], Any]) -> Any:
    with _turn:
        return _load()


def network(name: str, load: Callable[[], Any]) -> Any:
    """The network called ``name``, loaded once and shared by all viewers, who never change it."""
    return _network(name, load)
