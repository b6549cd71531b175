"""The pages of `unitune ui` in a real browser: Chromium, driven by playwright, on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.sample_ledger import SampleLedger, comparison_under_way, fill, start_live_run
from support.served_pages import served

from unitune.evaluate.documents.history import history_folder, read_notes
from unitune.ui import pages
from unitune.ui.app import Access, _redirecting, application

from .conftest import LOOKS, Open, faults_of


@dataclass(frozen=True)
class Site:
    """The pages of the sample ledger with a run that goes on, on a server of their own."""

    address: str
    access: Access
    sample: SampleLedger
    live: str

    @property
    def paths(self) -> tuple[str, ...]:
        comparison = f"/comparisons/{self.sample.comparison.id}"
        return (
            "/runs",
            f"/runs/{self.live}",
            f"/runs/{self.sample.succeeded}",
            f"/runs/{self.sample.failed}",
            "/comparisons",
            f"{comparison}?show=gained&page=2",
            "/deployments",
            "/runs/nope",
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_DIR", str(folder / "home"))
        patch.setattr(pages, "INTERVAL_SECONDS", 0.2)
        sample = fill(folder)
        live = start_live_run(folder, steps=100_000, seconds_per_step=0.2)
        access = Access(1)
        with comparison_under_way(12), served(application(sample.ledger, access)) as address:
            yield Site(address, access, sample, live.id)


@pytest.fixture
def enter(new_page: Open, site: Site) -> Open:
    """Open the address that the command prints."""

    def entered(**options: Any) -> Any:
        return new_page(f"/?token={site.access.token}", base_url=site.address, **options)

    return entered


def test_the_printed_address_leads_to_the_runs_and_leaves_no_token(enter: Open, site: Site) -> None:
    page = enter()
    assert page.url == f"{site.address}/runs"
    assert page.locator("h1").inner_text() == "Runs"
    assert page.complaints == []


@pytest.mark.parametrize(("scheme", "size"), LOOKS)
def test_axe_finds_no_fault_and_no_page_scrolls_sideways(
    enter: Open, site: Site, scheme: str, size: Any
) -> None:
    page = enter(color_scheme=scheme, viewport=size)
    for path in site.paths:
        page.goto(path)
        assert faults_of(page) == [], path


def line(page: Any) -> str:
    """Return the points of the line of a training."""
    return page.evaluate("document.querySelector('polyline.training')?.outerHTML ?? ''")


def test_the_curve_of_a_run_that_goes_on_moves_in_place(enter: Open, site: Site) -> None:
    """The reader's place and what is open stay as they are."""
    page = enter()
    page.goto(f"/runs/{site.live}")
    page.locator("summary", has_text="The job file").click()
    lines, deadline = {line(page)}, time.monotonic() + 30
    while len(lines) < 4 and time.monotonic() < deadline:
        page.wait_for_timeout(200)
        lines.add(line(page))
    assert len(lines) >= 4
    assert page.locator("pre").is_visible()
    assert page.complaints == []


def test_without_javascript_all_can_be_read_and_a_live_page_loads_itself_anew(
    enter: Open, site: Site
) -> None:
    page = enter(java_script_enabled=False)
    for path in site.paths:
        page.goto(path)
        assert page.locator("h1").is_visible()
    page.goto("/runs")
    with page.expect_navigation(timeout=15_000):
        pass
    assert page.locator("polyline.training").first.is_visible()


def test_without_javascript_cases_are_filtered_and_a_note_is_written(
    enter: Open, site: Site
) -> None:
    page = enter(java_script_enabled=False)
    page.goto("/comparisons")
    page.locator("tbody a").first.click()
    page.locator(".filter a", has_text="Lost").click()
    assert page.locator("article").count() == 4
    page.locator("select").select_option("language = de")
    page.locator(".search button").click()
    assert page.locator("article").count() == 3

    card = page.locator("article").nth(1)
    card.locator("summary", has_text="Add a note").click()
    card.locator("textarea").fill("the label is wrong")
    card.locator("button").click()

    assert "show=lost" in page.url
    assert page.locator("article:target .remark").inner_text() == "Note the label is wrong"
    notes = read_notes(history_folder(site.sample.comparison.id or ""))
    assert list(notes.values()) == ["the label is wrong"]


def test_the_report_opens_with_its_own_style_and_filters(enter: Open, site: Site) -> None:
    page = enter()
    page.goto(f"/comparisons/{site.sample.comparison.id}")
    page.locator("a", has_text="The full report").click()
    page.locator('.filter a[href="#lost"]').click()
    assert page.locator('.filter a[href="#lost"]').get_attribute("aria-current") == "true"
    assert not page.locator("#gained").is_visible()
    assert page.complaints == []


def test_a_file_that_leads_to_the_address_enters(
    new_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cookie must be sent although the file is of another site."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    sample, access = fill(tmp_path), Access(1)
    with (
        served(application(sample.ledger, access)) as address,
        _redirecting(f"{address}/?token={access.token}", tmp_path) as file,
    ):
        page = new_page(file.as_uri())
        page.wait_for_url(f"{address}/runs")
        assert "Runs" in page.title()


def test_the_page_says_when_the_command_has_ended(
    new_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    sample, access = fill(tmp_path), Access(1)
    with served(application(sample.ledger, access)) as address:
        page = new_page(f"{address}/?token={access.token}")
    page.get_by_text("unitune ui does not answer").wait_for(timeout=15_000)
