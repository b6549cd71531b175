"""The tokens of a training whose loop unitune runs, counted by hand."""

from __future__ import annotations

from decimal import Decimal

from unitune.backends.offer import Billing
from unitune.cost.billing import Lengths, Tally
from unitune.cost.step_tokens import step_tokens
from unitune.cost.tokens import Count
from unitune.job.job import Data, Job, Preference, Reward, Tuning
from unitune.scorers.text import Exact

RULES = Billing(counted="all-tokens", checkpoint_usd=Decimal("0.50"), source="a page")
EPOCHS = Count.of(3)


def exactly(*tokens: int) -> Lengths:
    return Lengths.of(map(Count.of, tokens))


# Two rows of 10 and 20 tokens, with prompts of 7 and 12 and answers of 2 and 5.
ROWS = Tally(exactly(10, 20), exactly(7, 12), exactly(2, 5))
DEV = Tally(exactly(9), exactly(6), exactly(1))
NONE = Tally(exactly(), exactly(), exactly())


def job(method: str, **tuning: object) -> Job:
    return Job(
        name="steps",
        model="any",
        backend="tinker",
        method=method,  # type: ignore[arg-type]
        data=Data(train="t.jsonl"),
        tuning=Tuning(**tuning),  # type: ignore[arg-type]
    )


def test_each_row_is_trained_on_once_per_epoch() -> None:
    made = step_tokens(job("sft"), RULES, ROWS, NONE, EPOCHS)
    assert (made.epoch, made.validation, made.read, made.written) == (
        Count.of(30),
        Count(),
        Count(),
        Count(),
    )


def test_validation_is_before_the_first_step_and_after_each_epoch() -> None:
    assert step_tokens(job("sft"), RULES, ROWS, DEV, EPOCHS).validation == Count.of(4 * 9)
    often = job("sft", evaluate_every=0.5)
    assert step_tokens(often, RULES, ROWS, DEV, EPOCHS).validation == Count.of(7 * 9)


def test_pairs_are_computed_twice_and_the_base_model_reads_them_once() -> None:
    """A row's prompt is in both of its conversations: 10 + 7 and 20 + 12 tokens."""
    made = step_tokens(job("dpo"), RULES, ROWS, DEV, EPOCHS)
    assert made.epoch == Count.of(2 * 49)
    assert made.read == Count.of(49 + 15)
    assert made.validation == Count.of(4 * 15)
    without = job("dpo", preference=Preference(loss="simpo"))
    assert step_tokens(without, RULES, ROWS, DEV, EPOCHS).read == Count()


def test_answers_are_sampled_and_trained_on() -> None:
    reward = Reward(scorers=(Exact(),), group_size=4, max_tokens=3)
    made = step_tokens(job("rft", reward=reward), RULES, ROWS, DEV, EPOCHS)
    # One token at least, three at most; as long as the rows' answers with their ends: 3 and 3.
    answers = Count(2, 6, 6)
    assert made.epoch == Count.of(4) * (Count.of(19) + answers)
    assert made.read == Count.of(3 * 19 + 4 * 6)
    assert made.written == Count.of(12) * answers + Count.of(4) * Count(1, 2, 3)


def test_what_a_dead_process_costs_is_said() -> None:
    (said, *_) = step_tokens(job("sft"), RULES, ROWS, NONE, EPOCHS).because
    assert "at most $0.50 of steps and one more step are paid for again" in said
    other = job("sft").model_copy(update={"options": {"tinker": {"checkpoint_usd": "2"}}})
    (said, *_) = step_tokens(other, RULES, ROWS, NONE, EPOCHS).because
    assert "at most $2 of steps" in said
