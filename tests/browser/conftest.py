"""A real browser for the tests of pages: Debian's Chromium, by its path."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest


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
