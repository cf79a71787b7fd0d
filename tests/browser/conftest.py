"""A Chromium, and a page that fails on what a person would call broken."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, TimeoutError, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))

from chromium import found
from server import serving

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What Chromium says of the machine rather than of the app; failed requests are noted by their address below.
HARMLESS = re.compile(r"Failed to load resource|WebGL|GPU stall|preload|ResizeObserver")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found(), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """One server for most of the tests."""
    with serving() as url:
        yield url


class Visitor:
    """One person with one tab, who notices console errors, exception boxes and traces of a crash."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("response", lambda response: self._answered(response.status, response.url))
        page.on("requestfailed", self._failed)
        page.set_default_timeout(60_000)

    def _note(self, kind: str, text: str) -> None:
        if kind == "error" and not HARMLESS.search(text):
            self.complaints.append(f"console: {text}")

    def _answered(self, status: int, url: str) -> None:
        # Streamlit finds the server's root by asking for /_stcore/… below the page's own path first.
        if status >= 400 and "/_stcore/" not in url:
            self.complaints.append(f"{status}: {url}")

    def _failed(self, request: Request) -> None:
        # Aborted: the tab went to another page before the answer came. What the server refuses has other words.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"failed: {request.url} ({request.failure})")

    def open(self, url: str) -> None:
        self.page.goto(url, wait_until="domcontentloaded")
        self.settle()

    def settle(self, timeout: float = 90_000) -> None:
        """Wait until the script has run to its end and the page has stood still for a moment."""
        self.page.wait_for_selector("[data-testid=stApp]", timeout=timeout)
        quiet = "[data-testid=stApp][data-test-script-state=notRunning]"
        self.page.wait_for_selector(quiet, timeout=timeout)
        # Opened by a link, a page first runs without its frame, and starts over; only then is there something to see.
        self.page.wait_for_selector("[data-testid=stMain] :is(h1, [data-testid=stAlert])", timeout=timeout)
        self.page.wait_for_timeout(500)
        self.page.wait_for_selector(quiet, timeout=timeout)
        # A figure is drawn by a script that is fetched when the first one is needed.
        drawn = """() => [...document.querySelectorAll("[data-testid=stPlotlyChart]")]
                   .every((chart) => chart.querySelector("svg.main-svg"))"""
        with contextlib.suppress(TimeoutError):  # check() says what is missing
            self.page.wait_for_function(drawn, timeout=timeout)

    def main(self) -> str:
        """The text of the page, without the sidebar."""
        return self.page.locator("[data-testid=stMain]").inner_text()

    def check(self) -> None:
        """Fail on anything broken: exception boxes, error sentences, console errors, blank pictures and figures."""
        assert self.page.locator("[data-testid=stException]").count() == 0, self.main()
        errors = self.page.locator("[data-testid=stAlertContentError]").all_inner_texts()
        assert not errors, errors
        assert not self.complaints, self.complaints
        blank = self.page.evaluate(
            """() => [...document.querySelectorAll("[data-testid=stMain] img")]
                 .filter((image) => image.complete && image.naturalWidth === 0 && image.offsetParent !== null)
                 .map((image) => image.alt || image.outerHTML.slice(0, 80))"""
        )
        assert not blank, f"blank pictures: {blank}"
        figures = self.page.evaluate(
            """() => [...document.querySelectorAll("[data-testid=stPlotlyChart]")]
                 .filter((chart) => !chart.querySelector("svg.main-svg")).length"""
        )
        assert figures == 0, f"{figures} blank figures"
        without_alt = self.page.evaluate(
            """() => [...document.querySelectorAll("[data-testid=stMain] img")].filter((image) => !image.alt).length"""
        )
        assert without_alt == 0, f"{without_alt} pictures say nothing to those who do not see them"


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors; each has a browser context of its own, as another person would."""
    contexts = []

    def make(width: int = 1440, height: int = 900, dark: bool = False) -> Visitor:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        return Visitor(context.new_page())

    yield make
    for context in contexts:
        context.close()
