"""An estimate is lines of priced ranges: published answers, laws, and what is unknown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.known import known

from unitune.backends.offer import Billing, Offer, OfferedModel
from unitune.cost.billing import measure
from unitune.cost.documents import Estimate
from unitune.cost.estimate import estimate, repriced
from unitune.cost.prices.book import PriceBook
from unitune.cost.spread import Spread
from unitune.cost.tokens import Count, RowCount
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.data.split import Splits
from unitune.job.contenders import FewShot, Tuned, ZeroShot
from unitune.job.job import Data, Evaluate, Job, TokenPrice, TrainingBudget, Tuning
from unitune.job.prices import PriceEntry

DAY = date(2026, 11, 25)
MILLION = Decimal(1_000_000)
ROWS = st.lists(st.integers(0, 400), max_size=8)


def offer(billing: Billing | None = None, **prices: str) -> Offer:
    entry = {"model": "priced", "as_of": DAY, "source": "a page", **prices}
    return Offer(
        name="vendor",
        summary="",
        as_of=DAY,
        methods=("sft", "dpo", "rft"),
        models=(OfferedModel(name="priced"), OfferedModel(name="unpriced")),
        billing=billing or Billing(epochs_auto=1, validation="free"),
        prices=(PriceEntry.model_validate(entry),) if prices else (),
    )


def book_of(told: Offer) -> PriceBook:
    return PriceBook(offers={told.name: told})


def job(**changes: object) -> Job:
    content: dict[str, object] = {
        "name": "demo",
        "model": "priced",
        "backend": "vendor",
        "data": Data(train="t.jsonl"),
    }
    return Job.model_validate({**content, **changes})


@dataclass(frozen=True)
class Words:
    """A counter for laws: a row has as many tokens as its words, and up to 3 more."""

    basis: str = "words"
    assumptions: tuple[str, ...] = ()

    def row(self, example: Example) -> RowCount:
        words = sum(len(message.text.split()) for message in example.messages)
        answer = Count.of(len((example.answer or "").split()))
        return RowCount(Count.of(words), answer, Count(words, words, words + 3))


def examples(*words: int) -> Dataset:
    made = (
        Example(
            messages=(
                Message(role="user", content="word " * count),
                Message(role="assistant", content="a"),
            )
        )
        for count in words
    )
    return Dataset("t.jsonl", tuple(Row(at, each) for at, each in enumerate(made, 1)))


def costs(
    wanted: Job, told: Offer, train: Dataset, validation: Dataset | None = None, **more: Any
) -> Estimate:
    splits = Splits(train, validation or Dataset("v", ()), more.pop("test", None))
    return estimate(wanted, measure(splits, Words()), book_of(told), DAY)


def high(words: list[int], epochs: int = 1) -> Decimal:
    told, wanted = offer(training="25.00"), job(tuning=Tuning(epochs=epochs))
    found = known(costs(wanted, told, examples(*words)).launch_usd)
    return found.high


# Published answers.


def test_the_toy_set_of_openais_cookbook_is_counted_and_multiplied_as_published() -> None:
    """4,306 tokens by cl100k_base, 20 epochs, 86,120 in all; 4,291 without the opened replies.

    Source: openai/openai-cookbook, examples/Chat_finetuning_data_prep.ipynb, its five rows' counts
    (45, 111, 26, 28 and 8,032 tokens).
    """

    @dataclass(frozen=True)
    class Cookbook(Words):
        def row(self, example: Example) -> RowCount:
            tokens = int(example.messages[0].text)
            return RowCount(Count(), Count(), Count(tokens - 3, tokens - 3, tokens))

    counts = ("45", "111", "26", "28", "8032")
    # The notebook sums what its rows have without the tail, and bills with it.
    rows = tuple(
        Row(at, Example(messages=(Message(role="user", content=count),)))
        for at, count in enumerate(counts, 1)
    )
    rules = Billing(epochs_auto="openai-cookbook", validation="free")
    told = offer(rules, training="8.00")
    work = measure(Splits(Dataset("t", rows), Dataset("v", ()), None), Cookbook())
    made = estimate(job(tuning=Tuning(epochs=20)), work, book_of(told), DAY)
    assert known(made.trained_tokens).high == 8242 * 20
    auto = estimate(job(), work, book_of(told), DAY)
    assert Count(2, 20, 21) == auto.epochs


def test_tokens_times_epochs_and_validation_once_as_ori_bills() -> None:
    """Ori: tokens x epochs + validation once, at $0.46 a million up to 10B.

    Source: docs.ori.co, fine-tuning/billing.
    """
    told = offer(Billing(validation="once"), training="0.46")
    wanted = job(tuning=Tuning(epochs=3))
    # A word more in each answer makes 1,000 tokens a row.
    made = costs(wanted, told, examples(*[999] * 1000), examples(*[999] * 100))
    assert known(made.launch_usd).expected == (3 * 1_000_000 + 100_000) * Decimal("0.46") / MILLION


def test_high_is_an_upper_bound_with_all_framing() -> None:
    """qagentur/texttunnel #33: framing that was left out made the bill dearer than the estimate."""
    found = known(
        costs(job(tuning=Tuning(epochs=1)), offer(training="10"), examples(63)).launch_usd
    )
    assert found.high == (64 + 3) * Decimal(10) / MILLION


# Laws.


@given(ROWS, st.integers(0, 400), st.integers(1, 5))
def test_more_rows_and_more_epochs_are_never_cheaper(
    words: list[int], more: int, epochs: int
) -> None:
    assert high(words, epochs) <= high([*words, more], epochs)
    assert high(words, epochs) <= high(words, epochs + 1)


@given(ROWS, ROWS, st.integers(1, 5))
def test_two_files_cost_what_they_cost_together(
    one: list[int], other: list[int], epochs: int
) -> None:
    """With fixed epochs; a vendor that chooses them chooses by the number of rows."""
    assert high(one, epochs) + high(other, epochs) == high([*one, *other], epochs)


BILLINGS = st.builds(
    Billing,
    epochs_auto=st.sampled_from([None, 1, 2, "openai-cookbook"]),
    validation=st.sampled_from([None, "free", "once", "each-evaluation"]),
    overlength=st.sampled_from([None, "truncated", "dropped"]),
    minimum_usd=st.sampled_from([None, Decimal(0), Decimal(4)]),
)


@given(ROWS, ROWS, BILLINGS, st.sampled_from(["sft", "dpo"]))
def test_each_line_and_each_sum_is_in_order_and_no_float_is_in_money(
    train: list[int], validation: list[int], rules: Billing, method: str
) -> None:
    told = offer(rules, training="3.00", hosting="1.70", input="0.30", output="1.20")
    made = costs(job(method=method), told, examples(*train), examples(*validation))
    for usd in [line.usd for line in made.lines] + [made.launch_usd, made.month_usd]:
        if usd is not None:
            assert 0 <= usd.low <= usd.expected <= usd.high
            assert all(isinstance(end, Decimal) for end in (usd.low, usd.expected, usd.high))
    assert Estimate.model_validate_json(made.model_dump_json()) == made


# What is unknown stays unknown.


def test_without_a_price_the_line_and_the_sum_are_unknown_and_not_zero() -> None:
    made = costs(job(model="unpriced"), offer(training="3"), examples(10))
    assert (made.lines[0].usd, made.lines[0].because) == (None, "its price is unknown")
    assert made.launch_usd is None


def test_training_by_the_hour_is_unknown_until_the_user_says_hours() -> None:
    told = offer(training="100/hour")
    assert costs(job(), told, examples(10)).launch_usd is None
    limited = job(budget=TrainingBudget(usd=Decimal(500), hours=Decimal(3)))
    assert (
        Spread(Decimal(0), Decimal(300), Decimal(300))
        == costs(limited, told, examples(10)).launch_usd
    )


def test_what_a_grader_that_asks_a_model_costs_is_unknown() -> None:
    wanted = job(method="rft", options={"vendor": {"grader": {"type": "score_model"}}})
    assert costs(wanted, offer(training="3"), examples(10)).launch_usd is None
    checked = job(method="rft", options={"vendor": {"grader": {"type": "string_check"}}})
    assert costs(checked, offer(training="3"), examples(10)).launch_usd is not None


def test_a_minimum_is_charged_for_little_work() -> None:
    rules = Billing(epochs_auto=1, validation="free", minimum_usd=Decimal(4))
    made = costs(job(), offer(rules, training="3"), examples(10))
    assert Spread.of(Decimal(4)) == made.launch_usd


def test_hosting_stands_all_month_unless_the_job_says_how_long() -> None:
    told = offer(training="3", hosting="1.70")
    month = costs(job(), told, examples(10)).month_usd
    assert Spread.of(730 * Decimal("1.70")) == month
    used = costs(job(usage={"hosting_hours_day": 12}), told, examples(10)).of("hosting")[0].usd
    assert Spread.of(365 * Decimal("1.70")) == used


def by_machine() -> Offer:
    """Hosting has a price for each machine, and none where no machine is named."""
    rows = [{"tier": "small", "hosting": "3.99"}, {"tier": "large", "hosting": "9.95"}]
    tokens = {"input": "0", "output": "0", "tuned": True}
    entry = {"as_of": DAY, "source": "a page", "rows": [*rows, {"training": "3"}, tokens]}
    return offer().model_copy(update={"prices": (PriceEntry.model_validate(entry),)})


def test_hosting_by_machine_is_a_range_from_the_cheapest_to_the_dearest() -> None:
    """Together's dedicated endpoints: 730 hours at $3.99 to $9.95 are $2,912.70 to $7,263.50."""
    made = costs(job(), by_machine(), examples(10))
    expected = Spread(Decimal("2912.70"), Decimal("2912.70"), Decimal("7263.50"))
    assert expected == made.of("hosting")[0].usd
    assert any("depends on the machine" in line for line in made.assumptions)
    assert {"small", "large"} <= {row.tier for row in made.prices}


def test_the_deployment_that_answers_is_in_the_answers_cost() -> None:
    """Whether or not its tokens have a price; here they have, and it is 0."""
    wanted = job(data=Data(train="t.jsonl", test="test.jsonl"))
    made = costs(wanted, by_machine(), examples(10), test=examples(99))
    tuned = next(line.usd for line in made.of("evaluation") if line.what == "tuned")
    assert Spread(Decimal("7.98"), Decimal("7.98"), Decimal("19.90")) == tuned


def test_the_answers_of_each_contender_are_a_line() -> None:
    evaluate = Evaluate(
        contenders=(ZeroShot(), Tuned()),
        prices={"tuned": TokenPrice(input=Decimal(1), output=Decimal(2))},
    )
    wanted = job(data=Data(train="t.jsonl", test="test.jsonl"), evaluate=evaluate)
    made = costs(wanted, offer(training="3"), examples(10), test=examples(99, 99))
    lines = {line.what: line.usd for line in made.of("evaluation")}
    assert lines["zero-shot"] is None, "its price is not known"
    assert known(lines["tuned"]).expected == (200 * 1 + 2 * 2) / MILLION


def test_a_search_on_dev_is_priced_by_all_its_rows() -> None:
    """150 dev rows: each of six prompts at most asked 100 of them, three the other 50."""
    evaluate = Evaluate(
        contenders=(ZeroShot(), FewShot(shots=1), Tuned()),
        prices={"few-shot": TokenPrice(input=Decimal(0), output=Decimal(1))},
    )
    wanted = job(data=Data(train="t.jsonl", test="test.jsonl"), evaluate=evaluate)
    made = {
        rows: costs(
            wanted, offer(training="3"), examples(10), examples(*[9] * rows), test=examples(9)
        ).of("evaluation")
        for rows in (0, 100, 150)
    }
    answers = {
        rows: next(line.usd.high for line in lines if line.what == "few-shot" and line.usd)
        for rows, lines in made.items()
    }
    # Three finalists answer the one test case.
    assert (3 + 6 * 100) * answers[0] == 3 * answers[100]
    assert (3 + 6 * 100 + 3 * 50) * answers[0] == 3 * answers[150]


def test_another_days_prices_change_the_launch_and_nothing_else() -> None:
    told = offer(training="3.00", hosting="1.70")
    made = costs(job(), told, examples(99))
    dearer = offer(training="6.00", hosting="9.99")
    fresh = repriced(made, book_of(dearer), DAY)
    assert 2 * known(made.launch_usd).high == known(fresh.launch_usd).high
    assert made.month_usd == fresh.month_usd


def test_a_price_that_is_gone_makes_the_launch_unknown() -> None:
    made = costs(job(), offer(training="3.00"), examples(99))
    gone = PriceBook(offers={"vendor": offer()})
    assert repriced(made, gone, DAY).launch_usd is None


def test_an_estimate_is_json_with_its_prices_and_assumptions() -> None:
    made = json.loads(costs(job(), offer(training="3.00"), examples(9)).model_dump_json())
    assert made["lines"][0]["price"] == made["prices"][0]["id"]
    assert made["prices"][0]["usd"] == "3.00", "money is text, never a float"
    assert any("a page" in line for line in made["assumptions"])


def test_a_range_out_of_order_is_refused() -> None:
    assert not Spread(Decimal(1), Decimal(2), Decimal(2)).exact
    with pytest.raises(ValueError, match="out of order"):
        Spread(Decimal(3), Decimal(2), Decimal(2))
