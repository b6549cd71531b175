"""TotalCost in words, in the terminal and on the page: true to its figures, and fitting."""

from __future__ import annotations

import html
from decimal import Decimal

import pytest
from rich.cells import cell_len
from rich.console import Console
from support.sample_total_cost import PRICES, book, example_cost, job

from unitune.cost.break_even import Crossover, Range
from unitune.cost.spread import Spread
from unitune.ownership import page
from unitune.ownership.page import describe
from unitune.ownership.serving import TotalCost
from unitune.ownership.total_cost import total_cost
from unitune.render.terminal import view


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-25")


def unpriced() -> TotalCost:
    return total_cost(job("Qwen-32B"), book({**PRICES, "rows": [{"storage": "1"}]}))


def printed(found: TotalCost, width: int) -> str:
    console = Console(width=width, highlight=False, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(view(describe(found)))
    return capture.get()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "alternative", [None, {"model": "a-model-of-a-rather-long-name-2026-10-01"}]
)
def test_every_line_fits_the_terminal(width: int, alternative: object) -> None:
    lines = printed(example_cost(alternative=alternative), width).splitlines()

    assert max(map(cell_len, lines)) <= width


def test_the_headline_follows_the_totals() -> None:
    assert (
        page.headline(example_cost(requests_month=1_000))
        == "Tuning does not pay at 1,000 requests a month"
    )
    assert (
        page.headline(example_cost(requests_month=1_000_000))
        == "Tuning pays at 1,000,000 requests a month"
    )


def test_hosting_is_named_where_it_alone_keeps_tuning_from_paying() -> None:
    because = "Hosting, $36.50 a month, outweighs what its requests save."
    assert because in page.reason(example_cost(requests_month=10_000))
    assert "Hosting" not in page.reason(example_cost(requests_month=1_000_000))


def test_a_newest_model_that_costs_least_is_named() -> None:
    rows = [*PRICES["rows"], {"model": "newcomer-1", "input": "0.01", "output": "0.01"}]
    found = total_cost(job(alternative={"model": "newcomer-1"}), book({**PRICES, "rows": rows}))

    assert "newcomer-1, untuned, costs" in page.reason(found)


def test_unknown_is_said_and_never_shown_as_nothing() -> None:
    text = printed(unpriced(), 80)

    assert "is not known" in page.headline(unpriced())
    assert "total" not in text, "no table of unknown amounts"
    assert "$0" not in text.partition("Sources")[0]


def test_without_prices_the_screen_says_what_tuning_saves_and_which_price_decides() -> None:
    cost = unpriced()
    saved = cost.prompted_tokens - cost.tuned_tokens
    text = " ".join(printed(cost, 80).split())
    assert f"{cost.tuned_tokens:,} tokens with the tuned model" in text
    assert f"{saved * cost.requests_month / 1e6:,.2f} million tokens a month" in text
    assert "Give your own prices: unitune cost --price" in text
    free = Spread.of(Decimal(0))
    once = cost.columns[1].model_copy(
        update={"once_usd": Spread.of(Decimal(12)), "month_usd": free}
    )
    known = cost.model_copy(update={"columns": (cost.columns[0], once, *cost.columns[2:])})
    dollar = Decimal(12) / cost.horizon.months / (Decimal(saved) * cost.requests_month / 10**6)
    assert f"if a million tokens cost more than {page.usd(dollar)}" in page.price_to_type(known)


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
    assert expected == page.usd(rounded)


def test_volumes_are_rounded_to_the_side_where_it_holds() -> None:
    above, below = (Crossover(way, Decimal("10.5")) for way in (Range.ABOVE, Range.BELOW))

    assert page.volume_range(above) == "from 11 a month"
    assert page.volume_range(below) == "up to 10 a month"
    above, below = (Crossover(way, Decimal(8364481)) for way in (Range.ABOVE, Range.BELOW))
    assert page.volume_range(above) == "from 8,370,000 a month"
    assert page.volume_range(below) == "up to 8,360,000 a month"


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
    assert expected == page.months(Decimal(number))


def test_a_notebook_shows_totals_and_notes_in_a_table() -> None:
    found = example_cost()
    shown = found._repr_html_()
    assert "<b>triage: Tuning does not pay at 10,000 requests a month</b>" in shown
    assert all(note in html.unescape(shown) for note in found.notes)
    assert "total, 10.6 months" in shown
    assert str(found).startswith("triage  sft of gpt-4.1-mini-2025-04-14 on azure  10,000 requests")
