"""The page of `unitune check --html` in a real browser: Chromium, on a file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from support.chat_rows import chat_rows

from unitune.data.load import Files
from unitune.data.quality.look import look_at
from unitune.data.report import DataReport, FileReport
from unitune.report.checked import render

from .conftest import Open, faults_of

SIZES = {"wide": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}
HOSTILE = "</style></script><script>window.hit=1</script><img src=x onerror=window.hit=1>"


def report_with(odd: str) -> DataReport:
    """Return the report of 200 rows of four labels, of which some are wrong and some odd."""
    chance = random.Random(2)  # noqa: S311 - repeatable, not secret
    topics = {
        label: [f"{label}{at}" for at in range(9)] for label in ("card", "rate", "pin", "fee")
    }
    pairs = [
        (" ".join(chance.sample(topics[label], 6)), chance.choice([*topics]) if at < 40 else label)
        for at, label in enumerate(list(topics) * 50)
    ]
    pairs += [(f"{pairs[60][0]} {odd}", "pin"), (f"{pairs[60][0]} {odd}!", odd[:40])]
    rows = chat_rows(pairs)
    file = FileReport(
        name="train.jsonl",
        purpose="train",
        rows=len(rows),
        messages=2 * len(rows),
        roles={},
        duplicates=0,
        contradictions=0,
        characters=None,
    )
    return DataReport(files=(file,), findings=(), quality=look_at(rows, Files(["train.jsonl"])))


@pytest.fixture
def open_page(new_page: Open, tmp_path: Path) -> Open:
    """Open the page of a report."""

    def opened(odd: str = "chip", **options: Any) -> Any:
        file = tmp_path / "check.html"
        file.write_text(render(report_with(odd), "unitune.yaml"), encoding="utf-8")
        return new_page(file.as_uri(), **options)

    return opened


def test_without_javascript_each_cause_is_reached_and_its_rows_stand_beside_others(
    open_page: Open,
) -> None:
    page = open_page(java_script_enabled=False)

    page.get_by_role("link", name="Labels that other rows contradict").click()
    assert page.url.endswith("#label-errors")
    section = page.locator("section[aria-labelledby=label-errors]")
    assert section.locator(".issues .related").first.is_visible()
    folded = section.locator("details .issues li").first
    assert not folded.is_visible()
    section.locator("summary").click()
    assert folded.is_visible()


def test_a_row_that_is_done_can_be_ticked_without_javascript(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    row = page.locator(".issues > li").first

    row.get_by_role("checkbox").check()
    assert not row.locator(".related").first.is_visible()
    assert row.locator(".row").is_visible()


@pytest.mark.parametrize("size", SIZES)
def test_rows_do_no_more_than_be_read_and_never_widen_the_page(open_page: Open, size: str) -> None:
    for odd in (HOSTILE, "x" * 300):
        page = open_page(odd, viewport=SIZES[size])
        assert not page.evaluate("window.hit")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
        assert page.complaints == []
        asked = [url for url in page.asked if not url.startswith("data:")]
        assert [url.rsplit("/", 1)[-1] for url in asked] == ["check.html"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_no_fault(open_page: Open, scheme: str, size: str) -> None:
    page = open_page(color_scheme=scheme, viewport=SIZES[size])
    page.locator(".issues input").first.check()
    assert faults_of(page) == []
