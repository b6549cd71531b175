"""TotalCost in words, in the terminal and on the page: true to its figures, and fitting."""

from __future__ import annotations

import re
from decimal import Decimal
from itertools import pairwise

import pytest
from rich.cells import cell_len
from rich.console import Console
from sample_total_cost import PRICES, book, example_cost, job

from unitune.cost.break_even import Crossover, Range
from unitune.report.tco import page, words
from unitune.report.tco.page import render
from unitune.report.tco.terminal import total_cost_view
from unitune.tco.documents import LeftOut, TotalCost, TotalCostList
from unitune.tco.total_cost import total_cost


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-25")


def unpriced() -> TotalCost:
    return total_cost(job("Qwen-32B"), book({**PRICES, "rows": [{"storage": "1"}]}))


def printed(found: TotalCost, width: int) -> str:
    console = Console(width=width, highlight=False, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(total_cost_view(found))
    return capture.get()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "alternative", [None, {"model": "a-model-of-a-rather-long-name-2026-10-01"}]
)
def test_every_line_fits_the_terminal(width: int, alternative: object) -> None:
    lines = printed(example_cost(alternative=alternative), width).splitlines()

    assert max(map(cell_len, lines)) <= width


def test_the_headline_follows_the_totals() -> None:
    assert "Tuning does not pay at 1,000 requests a month" == words.headline(
        example_cost(requests_month=1_000)
    )
    assert "Tuning pays at 1,000,000 requests a month" == words.headline(
        example_cost(requests_month=1_000_000)
    )


def test_a_newest_model_that_costs_least_is_named() -> None:
    rows = [*PRICES["rows"], {"model": "newcomer-1", "input": "0.01", "output": "0.01"}]
    found = total_cost(job(alternative={"model": "newcomer-1"}), book({**PRICES, "rows": rows}))

    assert "newcomer-1, untuned, costs" in words.reason(found)


def test_unknown_is_said_and_never_shown_as_nothing() -> None:
    text = printed(unpriced(), 80)

    assert "is not known" in words.headline(unpriced())
    assert "unknown" in text
    tuned = next(line for line in text.splitlines() if line.startswith("total"))
    assert "$0" not in tuned


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("0", "$0"),
        ("0.000076", "$0.000076"),
        ("0.00076", "$0.00076"),
        ("0.0123456", "$0.0123"),
        ("0.5", "$0.50"),
        ("12.345", "$12.35"),
        ("1241.4", "$1,241"),
    ],
)
def test_money_is_shown_to_the_digits_that_matter(amount: str, expected: str) -> None:
    rounded = Decimal(amount) + (Decimal("0.0001") if amount == "12.345" else 0)
    assert expected == words.usd(rounded)


def test_volumes_are_rounded_to_the_side_where_it_holds() -> None:
    above, below = (Crossover(way, Decimal("10.5")) for way in (Range.ABOVE, Range.BELOW))

    assert "from 11 a month" == words.volume_range(above)
    assert "up to 10 a month" == words.volume_range(below)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("0.001", "1 day"),
        ("0.5", "16 days"),
        ("1", "1 month"),
        ("1.64", "1.6 months"),
        ("12", "12 months"),
    ],
)
def test_less_than_a_month_is_told_in_days(number: str, expected: str) -> None:
    assert expected == words.months(Decimal(number))


class TestChart:
    def test_a_power_of_ten_is_the_same_step_everywhere(self) -> None:
        axis = page.LogAxis.around([Decimal(3), Decimal(40_000)])
        places = [axis.place(tick) for tick in axis.ticks]

        assert (1, 100_000) == (axis.ticks[0], axis.ticks[-1])
        assert {20.0} == {after - before for before, after in pairwise(places)}

    def test_the_crossing_is_drawn_where_it_was_reckoned(self) -> None:
        found = example_cost(cache_hit_rate=0, alternative=None)
        drawing = str(page.cost_chart(found))
        places = re.findall(r'<circle class="crossing" cx="([\d.]+)%"', drawing)
        assert found.break_even is not None
        at = found.break_even.expected.at
        assert at is not None
        axis = page.LogAxis.around([Decimal(1_000), Decimal(1_000_000), at])

        assert [axis.place(at)] == [float(place) for place in places]

    def test_lines_and_bands_stay_within_the_drawing(self) -> None:
        drawing = str(page.cost_chart(example_cost()))
        for points in re.findall(r'points="([^"]+)"', drawing):
            for place in re.split("[ ,]", points):
                assert 0 <= float(place) <= 100

    def test_it_tells_those_who_do_not_see_it_the_same(self) -> None:
        found = example_cost(alternative=None)
        told = page.description(found)

        assert "Prompted: " in told
        assert "Prompted and tuned cost the same at " in told
        assert told in str(page.cost_chart(found))

    def test_nothing_is_drawn_where_nothing_is_known(self) -> None:
        assert "" == page.cost_chart(unpriced())


def test_the_page_names_every_price_row_and_every_note() -> None:
    found = example_cost()
    page = render(TotalCostList(backends=(found,)))

    assert all(row.id in page for row in found.prices)
    assert all(note in page for note in found.notes)
    assert "script" not in page.split("</head>")[1]


def test_the_page_says_which_backends_are_left_out() -> None:
    none = LeftOut(backend="elsewhere", reason="it tunes <nothing> any more")
    page = render(TotalCostList(backends=(example_cost(),), left_out=(none,)))

    assert "<b>elsewhere</b>: it tunes &lt;nothing&gt; any more" in page
    assert "Left out" not in render(TotalCostList(backends=(example_cost(),)))


def test_names_out_of_a_job_are_text_on_the_page() -> None:
    page = render(TotalCostList(backends=(example_cost(alternative={"model": "<b>bold</b>"}),)))

    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
