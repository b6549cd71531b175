"""The page of `unitune cost` in a real browser: Chromium, driven by playwright, on a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_total_cost import TOKENS, example_cost

from unitune.report.tco.page import render
from unitune.tco.documents import TotalCostList

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
if CHROMIUM is None:
    pytest.skip("needs Chromium (chromium on the PATH)", allow_module_level=True)

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a page of two backends; what it asked for and complained about is noted on it."""
    contexts: list[Any] = []
    counted = dict.fromkeys(TOKENS, "auto")  # whose ranges are long to print
    found = example_cost(hosting_hours_day=8), example_cost(requests_month=500_000, **counted)
    file = tmp_path / "cost.html"
    file.write_text(render(TotalCostList(backends=found)), encoding="utf-8")

    def opened(**options: Any) -> Any:
        context = browser.new_context(**{"viewport": WIDE, **options})
        contexts.append(context)
        page = context.new_page()
        page.asked, page.complaints = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.complaints.append(message.text))
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


def test_it_asks_for_nothing_and_complains_of_nothing(open_page: Open) -> None:
    page = open_page()

    asked = [url for url in page.asked if not url.startswith("data:")]
    assert ["cost.html"] == [url.rsplit("/", 1)[-1] for url in asked]
    assert [] == page.complaints


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_sideways(open_page: Open, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 844})

    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_label_of_the_plot_leaves_the_page(open_page: Open, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 844})
    ends = page.evaluate(
        "[...document.querySelectorAll('.costs text')].map((label) => "
        "{const box = label.getBoundingClientRect(); return [box.left, box.right]})"
    )

    assert len(ends) > 20
    assert all(left >= 0 and right <= width for left, right in ends)


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_figure_of_a_table_leaves_the_page(open_page: Open, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 844})
    ends = page.evaluate(
        "[...document.querySelectorAll('td.number, td.number *')]"
        ".map((cell) => cell.getBoundingClientRect().right)"
    )

    assert len(ends) > 40
    assert max(ends) <= width


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(open_page: Open, scheme: str, size: Any) -> None:
    """Source: axe-core, all of its rules, best practices too."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(open_page(color_scheme=scheme, viewport=size)).response

    assert [] == [(fault["id"], fault["impact"]) for fault in found["violations"]]
    assert len(found["passes"]) > 15


def test_without_javascript_all_of_it_can_be_read(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)

    assert page.locator("h1").inner_text().startswith("Tuning")
    assert 2 == page.locator("svg.costs").count()
    assert page.locator("svg.costs polyline.tuned").first.is_visible()
