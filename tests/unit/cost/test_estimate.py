"""An estimate is a range from priced tokens, with its assumptions; no price makes no number."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from unitune.cost.estimate import estimate
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.job import Data, Job, Tuning
from unitune.offer import Billing, Offer, OfferedModel
from unitune.price_specs import PriceEntry

DAY = date(2026, 11, 25)
OFFER = Offer(
    name="vendor",
    summary="",
    as_of=DAY,
    methods=("sft", "dpo"),
    models=(OfferedModel(name="priced"), OfferedModel(name="unpriced")),
    prices=(
        PriceEntry.model_validate(
            {"model": "priced", "training": "25.00", "as_of": DAY, "source": "a page"}
        ),
    ),
)


def job(model: str = "priced", epochs: object = "auto") -> Job:
    return Job(
        name="demo",
        model=model,
        backend="vendor",
        data=Data(train="t.jsonl"),
        tuning=Tuning.model_validate({"epochs": epochs}),
    )


def rows(*texts: str) -> Dataset:
    examples = (
        Example(messages=(Message(role="user", content=text), Message(role="assistant")))
        for text in texts
    )
    return Dataset("t.jsonl", tuple(Row(1, example) for example in examples))


def test_a_known_file_is_estimated_from_its_characters() -> None:
    # 4,000 characters of ASCII are 1,000 tokens at four each, and 2 messages add 4 each.
    made = estimate(job(epochs=2), OFFER, rows("x" * 4000))
    assert made is not None
    assert 2 * 1008 == made.trained_tokens_expected
    assert Decimal("0.06") == made.usd_expected, "2,016 tokens at $25 a million, rounded up"


def test_unknown_price_or_model_makes_no_estimate() -> None:
    assert estimate(job("unpriced"), OFFER, rows("x")) is None
    assert estimate(job("stranger"), OFFER, rows("x")) is None


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_low_expected_and_high_are_in_order(texts: list[str]) -> None:
    made = estimate(job(), OFFER, rows(*texts))
    assert made is not None
    assert 0 < made.trained_tokens_low <= made.trained_tokens_expected <= made.trained_tokens_high
    assert made.usd_low <= made.usd_expected <= made.usd_high


def test_the_vendors_own_number_of_epochs_is_used_and_said() -> None:
    made = estimate(
        job(), OFFER.model_copy(update={"billing": Billing(epochs_auto=1)}), rows("x" * 4000)
    )
    assert made is not None
    assert 1008 == made.trained_tokens_expected
    assert any("own default, 1" in assumption for assumption in made.assumptions)


def test_of_a_preference_row_both_answers_are_charged_and_the_prompt_once_or_twice() -> None:
    turn = {"content": "x" * 4000}
    pair = Example.model_validate(
        {
            "messages": [{"role": "user", **turn}, {"role": "assistant", **turn}],
            "non_preferred_output": [{"role": "assistant", **turn}],
        }
    )
    wanted = job(epochs=1).model_copy(update={"method": "dpo"})
    made = estimate(wanted, OFFER, Dataset("t.jsonl", (Row(1, pair),)))
    assert made is not None
    assert 3 * 1004 == made.trained_tokens_expected
    assert 4 * round(4000 / 3 + 8) <= made.trained_tokens_high <= 4 * round(4000 / 3 + 9)
