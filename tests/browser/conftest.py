"""A real browser for the tests of pages: Debian's Chromium, by its path."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

WIDE = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}
LOOKS = [
    pytest.param("light", WIDE, id="light-wide"),
    pytest.param("dark", PHONE, id="dark-phone"),
    pytest.param("dark", WIDE, id="dark-wide", marks=pytest.mark.slow),
    pytest.param("light", PHONE, id="light-phone", marks=pytest.mark.slow),
]
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Skip, saying so, where Playwright or Chromium is absent."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    chromium_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if chromium_path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=chromium_path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser: Any) -> Iterator[Open]:
    """Open an address with options of its own; requests and complaints are noted on the page."""
    contexts: list[Any] = []

    def opened(address: str, **options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": WIDE, **options}))
        page = contexts[-1].new_page()
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()


def faults_of(page: Any, least: int = 15) -> list[str]:
    """Return the faults that axe-core finds by all of its rules, with everything unfolded."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > least, "rules that apply"
    faults = [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in found["violations"]]
    if page.evaluate("document.documentElement.scrollWidth") > page.viewport_size["width"]:
        faults.append("it scrolls sideways")
    return faults
