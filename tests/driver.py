"""The app as Streamlit's test driver runs it, for every test of a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).resolve().parents[1]


def opened(page: str = "home.py", timeout: int = 120, **state) -> AppTest:
    """The app after a visitor with ``state`` in the session has gone to ``page``."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=timeout)
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    return app if page == "home.py" else app.switch_page(f"pages/{page}").run()


def complaints(app: AppTest) -> list[str]:
    return [element.value for element in [*app.exception, *app.error]]


@contextmanager
def served(folder: Path, cache: Path | None = None) -> Iterator[None]:
    """``folder`` shared by the server's owner, with a cache of its own."""
    before = {name: os.environ.get(name) for name in ("SP_FOLDER", "SP_CACHE")}
    os.environ.update(SP_FOLDER=str(folder), SP_CACHE=str(cache or folder / "cache"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
