"""A job's total cost: who is priced by which rows, what is paid once, and what stays unknown."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from support.known import known
from support.sample_total_cost import PRICES, TOKENS, book, example_cost, job

from unitune.cost.spread import Spread
from unitune.data.load import load
from unitune.errors import JobError, UserError
from unitune.job.job import Data
from unitune.ownership.page import headline
from unitune.ownership.serving import TotalCost
from unitune.ownership.total_cost import total_cost


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-25")


def origin_of(found: TotalCost, name: str) -> str:
    (figure,) = [one for one in found.figures if one.name == name]
    return figure.source


def test_every_column_is_priced_by_the_hand_reckoned_formula() -> None:
    """Prompted: 1,800 * 0.40 + 25 * 1.60 = 760 dollars a million; tuned: 90 * 0.40 + 40 = 76."""
    prompted, tuned, newest = example_cost(cache_hit_rate=0).columns

    assert known(prompted.request_usd).expected == Decimal("0.00076")
    assert known(tuned.request_usd).expected == Decimal("0.000076")
    assert (newest.role, newest.model) == ("newest", "newcomer-1")


def test_hosting_is_as_planned_and_always_at_the_high_end() -> None:
    """8 hours a day of 0.05 dollars is 12.17 a month; 24 hours are 36.50."""
    month = known(example_cost(hosting_hours_day=8).columns[1].month_usd)
    ends = (month.low, month.expected, month.high)
    assert [f"{end:.2f}" for end in ends] == ["12.17", "12.17", "36.50"]


def test_paid_once_are_trainings_with_their_judging_and_the_rows() -> None:
    """Two trainings instead of one pay everything twice but the preparation of the rows."""
    usages = ({}, {"runs": 2, "preparation_usd": 100})
    one, two = (
        known(example_cost(cache_hit_rate=0, **usage).columns[1].once_usd) for usage in usages
    )
    assert 2 * one.expected + 100 == two.expected
    cases = len(load(job().path("test.jsonl")))
    judging = cases * (Decimal("0.00076") + Decimal("0.000076"))
    assert judging < one.expected


def test_nothing_is_paid_once_for_prompting() -> None:
    assert Spread.of(Decimal(0)) == example_cost().columns[0].once_usd


def test_the_totals_meet_where_it_says() -> None:
    found = example_cost(cache_hit_rate=0)
    prompted, tuned = found.columns[:2]
    at = known(known(found.break_even).expected.at)
    costs = [one.monthly(at, found.horizon.months) for one in (prompted, tuned)]

    assert len({f"{cost.expected:.2f}" for cost in costs if cost}) == 1


def test_an_unknown_price_leaves_its_line_unknown_and_says_so() -> None:
    """Hosting and answers of a tuned model of this name stand in no row."""
    prices = {**PRICES, "rows": PRICES["rows"][1:2]}
    found = total_cost(job("Qwen-32B"), book(prices))
    prompted, tuned = found.columns[:2]

    assert prompted.request_usd is not None
    assert (tuned.request_usd, tuned.month_usd, tuned.once_usd) == (None, None, None)
    assert tuned.total_usd is None
    assert found.break_even is None
    assert found.pays_back is None
    assert any("hosting a tuned Qwen3-32B" in note for note in found.notes)


def test_a_shutdown_caps_the_horizon_and_the_notes_say_so() -> None:
    found = total_cost(job("gpt-4o-mini-2024-07-18", "openai"), book(backend="openai"))

    assert str(found.horizon.ends) == "2027-01-14"
    assert round(found.horizon.months, 1) == Decimal("1.6")
    assert any(
        "retired on 2027-01-14, so only 1.6 of the 12 planned months are left" in n
        for n in found.notes
    )


def test_a_vendor_that_is_closed_for_the_job_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI starts no training after 2027-01-06, and its tunes answer until 2027-01-14."""
    monkeypatch.setenv("UNITUNE_TODAY", "2027-01-07")
    found = total_cost(job("gpt-4o-mini-2024-07-18", "openai"), book(backend="openai"))

    assert found.notes[0].startswith("the job cannot be launched there: ")


def test_a_model_that_is_switched_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2027-01-14")
    with pytest.raises(UserError, match=r"switched off on 2027-01-14 \(today is 2027-01-14"):
        total_cost(job("gpt-4o-mini-2024-07-18", "openai"), book(backend="openai"))


def test_a_job_that_tunes_nothing_is_refused() -> None:
    compared_only = job().model_copy(update={"data": Data(test="test.jsonl")})
    with pytest.raises(JobError, match="has no training rows"):
        total_cost(compared_only, book())


def test_on_ones_own_machine_what_an_hour_costs_decides() -> None:
    """Without its price every line is unknown, and none is $0."""
    local = job("smollm2-135m-instruct", "local")
    priced = {**PRICES, "rows": [{"machine": "0.50"}]}

    unpriced = total_cost(local, book(backend="local"))
    rented = total_cost(local, book(priced, backend="local"))

    for column in unpriced.columns[:2]:
        assert column.month_usd is column.request_usd is column.total_usd is None
        assert set(column.by_volume_usd.values()) == {None}
    assert unpriced.columns[1].once_usd is None
    assert any("machine in prices.yaml" in note for note in unpriced.notes)
    assert "is not known" in headline(unpriced)
    for column in rented.columns[:2]:
        assert known(column.month_usd).expected == Decimal(365)


def test_the_command_lines_volume_goes_before_the_jobs() -> None:
    found = total_cost(job(requests_month=5), book(), requests_month=7)

    assert found.requests_month == 7
    assert origin_of(found, "requests a month") == "option"


def test_each_figure_says_where_it_comes_from() -> None:
    found = example_cost(months=6)

    assert origin_of(found, "months") == "job"
    assert origin_of(found, "tuned prompt") == "job"
    assert origin_of(found, "requests a month") == "assumed"
    assert origin_of(found, "cache hit rate") == "assumed"


def test_what_the_job_does_not_say_is_counted_from_its_rows() -> None:
    """The example's prompts are short: 100 tokens or so, and its records 24 at most."""
    usage = dict.fromkeys(TOKENS, "auto")
    found = example_cost(**usage)

    assert origin_of(found, "tuned prompt") == "counted"
    prompted, tuned = (known(column.request_usd) for column in found.columns[:2])
    assert tuned.expected < prompted.expected
    assert prompted.low < prompted.high, "4 to 16 shots"


def test_a_machine_that_nobody_named_leaves_hosting_a_range() -> None:
    """Hosting by the hour at 2 or 5 dollars: 1,460 is expected, 3,650 a month at most."""
    prices = {
        **PRICES,
        "rows": [{"tier": "small", "hosting": "2"}, {"tier": "large", "hosting": "5"}],
    }
    found = total_cost(job("Qwen/Qwen3-8B", "together"), book(prices, backend="together"))
    month = known(found.columns[1].month_usd)

    assert (f"{month.low:.2f}", f"{month.expected:.2f}") == ("1460.00", "1460.00")
    assert any("hosting depends on the machine: $2" in note for note in found.notes)


def test_where_tuned_tokens_cost_what_the_bases_do_one_price_tells_the_other() -> None:
    """Source of the rule: MicrosoftDocs/azure-ai-docs, fine-tuning cost management."""
    rows = [{"tuned": True, "tier": "regional", "input": "9", "cached-input": "3", "output": "27"}]
    prices = {**PRICES, "rows": rows}
    columns = total_cost(job(tuned_tokens=1_800), book(prices)).columns[:2]

    expected = (Decimal(1_800) * 9 + 25 * 27) / 1_000_000
    assert [expected] * 2 == [known(column.request_usd).high for column in columns]


def test_a_cached_price_above_the_plain_one_is_none() -> None:
    """It comes of rows that do not fit together, such as one's own and a vendor's."""
    prices = {**PRICES, "rows": [{"input": "0.05", "cached-input": "0.10", "output": "1.60"}]}
    prompted = known(total_cost(job(), book(prices)).columns[0].request_usd)

    assert prompted.exact, "no hit rate changes it"


def test_a_model_that_reasons_is_billed_for_more_than_is_seen() -> None:
    """gpt-6-luna reasons: answers 1 to 1.6 times as long; a base of another kind does not."""
    prices = {**PRICES, "rows": [{"input": "0", "output": "10"}]}
    alternative = {"alternative": {"model": "gpt-6-luna"}, "answer_tokens": 1_000}
    found = total_cost(
        job("gpt-4o-mini-2024-07-18", "openai", **alternative), book(prices, backend="openai")
    )

    assert Spread.of(Decimal("0.01")) == found.columns[0].request_usd
    expected = Spread(Decimal("0.01"), Decimal("0.013"), Decimal("0.016"))
    assert expected == found.columns[2].request_usd


def test_the_offer_names_the_newest_model_where_the_job_does_not() -> None:
    found = total_cost(job("gpt-4o-mini-2024-07-18", "openai"), book(backend="openai"))

    assert found.columns[2].model == "gpt-6-luna"


def test_old_prices_are_said_to_be_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2027-09-01")

    assert any("from 2026-11-01, 304 days ago" in note for note in example_cost().notes)


def test_a_model_that_is_on_this_machine_is_counted_by_its_own_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="needs the extra `local`")
    from support.tiny_model import tiny_tokenizer  # noqa: PLC0415 - imports torch

    name = "smollm2-135m-instruct"
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path))
    here = job(name, "local", tuned_tokens="auto")

    def counted() -> bool:
        return any("the model's own tokenizer" in note for note in total_cost(here).notes)

    assert not counted()
    tiny_tokenizer().save_pretrained(tmp_path / "models" / name)
    assert counted()
