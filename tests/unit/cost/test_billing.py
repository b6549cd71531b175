"""What vendors charge for: epochs that they choose, rows that are too long, packing, validation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.backends.offer import Billing
from unitune.cost.billing import (
    Lengths,
    Tally,
    cookbook_epochs,
    cut,
    epochs,
    training_tokens,
    validation_passes,
)
from unitune.cost.tokens import Count
from unitune.job.job import Data, Job, Tuning

COUNTS = st.lists(st.integers(0, 5000), min_size=3, max_size=3).map(
    lambda ends: Count(*sorted(ends))
)
FATES = st.sampled_from(["truncated", "dropped", "refused", None])


def job(**changes: object) -> Job:
    content = {"name": "demo", "model": "m", "backend": "vendor", "data": Data(train="t.jsonl")}
    return Job.model_validate({**content, **changes})


def tally(*tokens: int, prompt: int = 0) -> Tally:
    lengths = Lengths.of(Count.of(each) for each in tokens)
    prompts = Lengths.of(Count.of(prompt) for _ in tokens)
    return Tally(lengths, prompts, Lengths.of(Count.of(1) for _ in tokens))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (1, 25),
        (3, 25),
        (4, 25),
        (5, 20),
        (10, 10),
        (33, 3),
        (34, 3),
        (500, 3),
        (8333, 3),
        (8334, 2),
        (12500, 2),
        (12501, 1),
        (25001, 1),
    ],
)
def test_epochs_follow_openais_cookbook(rows: int, expected: int) -> None:
    """Known answers: openai/openai-cookbook, Chat_finetuning_data_prep.ipynb, run at its edges."""
    assert expected == cookbook_epochs(rows)


def test_epochs_that_a_vendor_chooses_are_never_one_number() -> None:
    """A worked example of Azure has 2 epochs for 500 rows, where the cookbook says 3."""
    found = epochs(job(), "openai", Billing(epochs_auto="openai-cookbook"), 500)
    assert Count(2, 3, 4) == found.count
    assert found.because[0] == "openai chooses the epochs: 2 to 4, expected 3"


def test_epochs_that_are_set_or_fixed_are_one_number() -> None:
    own = job(tuning=Tuning(epochs=5))
    assert Count.of(5) == epochs(own, "v", Billing(epochs_auto="openai-cookbook"), 500).count
    assert Count.of(1) == epochs(job(), "v", Billing(epochs_auto=1), 500).count


def test_what_is_not_known_of_epochs_is_said() -> None:
    found = epochs(job(), "vendor", Billing(), 10)
    assert Count(1, 3, 11) == found.count
    assert found.because


def test_without_packing_each_row_is_charged_as_the_longest() -> None:
    """Together bills rows times max_seq_length (docs.together.ai, fine-tuning pricing)."""
    rules = Billing(packing_off="rows-times-longest")
    own = job(options={"vendor": {"packing": False}}, tuning=Tuning(sequence_length=4096))
    assert Count.of(3 * 4096) == training_tokens(own, "v", rules, None, tally(10, 20, 30)).count
    packed = job(tuning=Tuning(sequence_length=4096))
    assert Count.of(60) == training_tokens(packed, "v", rules, None, tally(10, 20, 30)).count


def test_without_packing_and_without_a_length_nobody_knows() -> None:
    rules = Billing(packing_off="rows-times-longest")
    own = job(options={"vendor": {"packing": False}})
    assert training_tokens(own, "v", rules, None, tally(10)).count is None


def test_the_prompt_of_a_preference_row_is_charged_once_to_twice() -> None:
    pair = Tally(
        Lengths.of([Count(90, 90, 120)]), Lengths.of([Count.of(30)]), Lengths.of([Count.of(30)])
    )
    wanted = job(method="dpo")
    assert Count(90, 90, 120) == training_tokens(wanted, "v", Billing(), None, pair).count
    once = Billing(preferences="prompt-once")
    assert Count.of(90) == training_tokens(wanted, "v", once, None, pair).count
    twice = Billing(preferences="prompt-twice")
    assert Count.of(120) == training_tokens(wanted, "v", twice, None, pair).count


@pytest.mark.parametrize(
    ("fate", "expected"),
    [
        ("truncated", Count.of(160)),
        ("dropped", Count.of(60)),
        (None, Count(60, 160, 560)),
    ],
)
def test_rows_that_are_too_long_are_charged_as_the_vendor_treats_them(
    fate: str | None, expected: Count
) -> None:
    rules = Billing.model_validate({"overlength": fate})
    assert expected == training_tokens(job(), "v", rules, 100, tally(10, 50, 500)).count


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Billing(validation="free"), Count()),
        (Billing(validation="once"), Count.of(1)),
        (Billing(validation="each-evaluation", evaluations_auto=0), Count.of(0)),
        (Billing(), Count(0, 0, 3)),
    ],
)
def test_validation_is_charged_by_the_vendors_rule(rules: Billing, expected: Count) -> None:
    assert expected == validation_passes(job(), "v", rules, Count.of(3)).count


def test_evaluations_that_a_job_sets_are_charged() -> None:
    own = job(options={"vendor": {"n_evals": 7}})
    rules = Billing(validation="each-evaluation", evaluations_auto=0)
    assert Count.of(7) == validation_passes(own, "v", rules, Count.of(3)).count


@given(st.lists(COUNTS, max_size=6), st.integers(1, 5000), FATES)
def test_low_expected_and_high_stay_in_order_whatever_is_cut(
    counts: list[Count], limit: int, fate: str | None
) -> None:
    found = cut(Lengths.of(counts), limit, Billing.model_validate({"overlength": fate})).total
    whole = Lengths.of(counts).total
    assert 0 <= found.low <= found.expected <= found.high <= whole.high


@given(COUNTS, COUNTS)
def test_a_product_is_in_order(one: Count, other: Count) -> None:
    found = one * other
    assert found.low <= found.expected <= found.high
