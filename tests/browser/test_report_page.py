"""The report in a real browser: Chromium, driven by playwright, on a file and without a network."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.sample_comparison import gated, infested, measured, sample_comparison

from unitune.evaluate.documents.results import Comparison
from unitune.job.job import Gate
from unitune.report.files import html_page

from .conftest import PHONE, WIDE, Open, faults_of

HOSTILE = "</style></script><script>window.hit=1</script><img src=x onerror=window.hit=1>"

CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }).reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((numbers(colour)[3] ?? 1) > 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const own = (element) => [...element.childNodes].some(
    (node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  return [...document.querySelectorAll("body *")]
    .filter((element) => own(element) && element.checkVisibility() && element.tagName !== "SCRIPT")
    .map((element) => {
      const style = getComputedStyle(element);
      const pair = [light(element.closest("svg") ? style.fill : style.color),
                    light(ground(element))].sort((a, b) => b - a);
      return {text: element.textContent.slice(0, 40), ratio: (pair[0] + 0.05) / (pair[1] + 0.05)};
    });
}"""


@pytest.fixture
def open_page(new_page: Open, tmp_path: Path) -> Open:
    """Open the page of a comparison."""

    def opened(comparison: Comparison, **options: Any) -> Any:
        file = tmp_path / "report.html"
        file.write_text(html_page(comparison), encoding="utf-8")
        return new_page(file.as_uri(), **options)

    return opened


def whole_comparison() -> Comparison:
    """One that shows every part of the page: gate, errors, caveats, curve, cases."""
    gate = Gate(mode="no-regress", baseline="baseline.jsonl")
    return gated(measured(sample_comparison(errors=3)), gate, required=4)


def visible_groups(page: Any) -> list[str]:
    groups = page.locator(".group").all()
    return [group.get_attribute("id") for group in groups if group.is_visible()]


def test_the_page_asks_for_nothing_and_complains_of_nothing(open_page: Open) -> None:
    page = open_page(whole_comparison())

    assert [url.rsplit("/", 1)[-1] for url in page.asked if not url.startswith("data:")] == [
        "report.html"
    ]
    assert page.complaints == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_scrolls_sideways(open_page: Open, width: int) -> None:
    page = open_page(whole_comparison(), viewport={"width": width, "height": 844})

    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_unbroken_text_scrolls_the_page_sideways(open_page: Open, size: Any) -> None:
    page = open_page(infested(whole_comparison(), "x" * 200), viewport=size)

    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_headings_begin_with_one_h1_and_skip_no_level(open_page: Open) -> None:
    levels = open_page(whole_comparison()).evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((heading) => +heading.tagName[1])"
    )

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(open_page: Open, scheme: str) -> None:
    """Source: WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    page = open_page(whole_comparison(), color_scheme=scheme)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    contrasts = page.evaluate(CONTRASTS)

    assert len(contrasts) > 500
    assert [found for found in contrasts if found["ratio"] < 4.5] == []


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_paper_follows_the_readers_colour_scheme(
    open_page: Open,
    scheme: str,
    dark: bool,  # noqa: FBT001 - a parameter
) -> None:
    page = open_page(whole_comparison(), color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(paper.removeprefix("rgb(").split(",")[0])

    assert dark == (red < 64)


def test_without_javascript_verdict_and_cases_can_be_read_and_reached(open_page: Open) -> None:
    page = open_page(whole_comparison(), java_script_enabled=False)

    assert page.locator("h1").inner_text() == "The tuned model is better than the best prompt"
    assert page.locator("#gained tbody tr").first.is_visible()
    assert not page.locator(".find").is_visible()
    page.locator('.filter a[href="#lost"]').click()
    assert page.url.endswith("#lost")


def test_a_folded_group_opens_without_javascript(open_page: Open) -> None:
    page = open_page(whole_comparison(), java_script_enabled=False)
    first = page.locator("#both-wrong tbody tr").first

    assert not first.is_visible()
    page.locator("#both-wrong > summary").click()
    assert first.is_visible()


def test_a_filter_leaves_only_its_group_and_all_brings_the_rest_back(open_page: Open) -> None:
    page = open_page(whole_comparison())

    page.locator('.filter a[href="#both-wrong"]').click()
    assert visible_groups(page) == ["both-wrong"]
    assert page.locator("#both-wrong tbody tr").first.is_visible()
    assert page.locator('.filter a[href="#both-wrong"]').get_attribute("aria-current") == "true"

    page.locator('.filter a[href="#cases"]').click()
    assert visible_groups(page) == ["gained", "lost", "both-wrong", "both-right"]


@pytest.mark.parametrize(("mark", "count"), [("error", 3), ("required", 4)])
def test_errors_and_pinned_cases_can_be_shown_alone_from_any_group(
    open_page: Open, mark: str, count: int
) -> None:
    page = open_page(whole_comparison())
    rows = page.locator(".group tbody tr:visible")

    page.locator(f'.filter a[href="#only-{mark}"]').click()
    assert count == rows.count()
    assert page.locator(f"#only-{mark}").is_visible()

    page.locator(f"#only-{mark} a").click()
    assert rows.count() > count
    assert not page.locator(f"#only-{mark}").is_visible()


def test_searching_within_a_filter_counts_only_what_it_leaves(open_page: Open) -> None:
    page = open_page(whole_comparison())

    page.locator('.filter a[href="#only-required"]').click()
    page.locator(".find input").fill("{")

    assert page.locator(".find output").inner_text() == "4 found"


def test_an_address_can_name_a_filter(open_page: Open) -> None:
    page = open_page(whole_comparison())
    page.goto(f"{page.url}#lost")
    page.reload()

    assert visible_groups(page) == ["lost"]


def test_without_javascript_an_address_shows_errors_alone(open_page: Open) -> None:
    page = open_page(whole_comparison(), java_script_enabled=False)
    before = page.locator("#gained tbody tr:visible").count()

    page.locator('.filter a[href="#only-error"]').click()

    assert 10 <= before < 10 + 3 + 4 + 1
    assert page.locator("#gained tbody tr:visible").count() < 3
    assert page.locator("#only-error").is_visible()


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(open_page: Open, scheme: str, size: Any) -> None:
    page = open_page(whole_comparison(), color_scheme=scheme, viewport=size)
    assert faults_of(page, least=30) == []


def test_searching_leaves_the_cases_that_hold_the_words_and_counts_them(open_page: Open) -> None:
    comparison = whole_comparison()
    wanted = comparison.cases[5].id
    page = open_page(comparison)

    page.locator(".find input").fill(wanted.upper())

    assert page.locator(".find output").inner_text() == "1 found"
    assert page.locator("#cases ~ .group tbody tr:visible").count() == 1


def test_a_folded_text_opens_from_the_keyboard(open_page: Open) -> None:
    page = open_page(sample_comparison(texts={"question": "wobble " * 300}))
    text = page.locator("#gained .long").first

    text.locator("summary").focus()
    page.keyboard.press("Enter")

    assert text.locator(".text").is_visible()
    assert text.locator(".text").inner_text().count("wobble") == 300


def test_keyboard_focus_can_be_seen(open_page: Open) -> None:
    page = open_page(whole_comparison())

    page.keyboard.press("Tab")

    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_script_in_any_text_is_inert(open_page: Open) -> None:
    page = open_page(infested(whole_comparison(), HOSTILE))

    assert page.evaluate("window.hit === undefined")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.complaints == []


def test_only_our_own_script_may_run(open_page: Open) -> None:
    """Were escaping ever to fail, the policy would still stand."""
    page = open_page(whole_comparison())

    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), "
        "{textContent: 'window.hit = 1'}))"
    )

    assert page.evaluate("window.hit === undefined")


def test_right_to_left_text_stands_on_the_right(open_page: Open) -> None:
    page = open_page(sample_comparison(texts={"question": "متى تصل الطاولة؟"}))
    direction = "(text) => getComputedStyle(text).direction"

    assert page.locator("#gained th .text").first.evaluate(direction) == "rtl"
    assert page.locator("#gained td .text").first.evaluate(direction) == "ltr"
