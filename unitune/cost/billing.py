"""Apply a vendor's billing rules (an offer's `Billing`) to counted rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unitune.backends.offer import Billing
from unitune.cost.tokens import Count
from unitune.cost.workload import Lengths, Tally
from unitune.job.job import Job

TARGET_EPOCHS = 3
LEAST_ROW_EPOCHS, MOST_ROW_EPOCHS = 100, 25_000
MOST_AUTO_EPOCHS = 25
# Used if a vendor's choice is unknown: OpenAI's cookbook aims at 3, an Azure example got 2,
# Together makes 1
UNKNOWN_EPOCHS = Count(1, TARGET_EPOCHS, TARGET_EPOCHS + 1)


@dataclass(frozen=True, slots=True)
class Charged:
    """Charged tokens or passes (None if unknown), with the reasons why it is a range."""

    count: Count | None
    because: tuple[str, ...] = ()


def cookbook_epochs(rows: int) -> int:
    """Return the epochs of OpenAI's cookbook for jobs that leave them to OpenAI.

    Source: openai/openai-cookbook, examples/Chat_finetuning_data_prep.ipynb. It is an
    approximation: an Azure example has 2 epochs for 500 rows, and this returns 3.
    """
    if not rows:
        return TARGET_EPOCHS
    if rows * TARGET_EPOCHS < LEAST_ROW_EPOCHS:
        return min(MOST_AUTO_EPOCHS, LEAST_ROW_EPOCHS // rows)
    if rows * TARGET_EPOCHS > MOST_ROW_EPOCHS:
        return max(1, MOST_ROW_EPOCHS // rows)
    return TARGET_EPOCHS


def epochs(job: Job, vendor: str, billing: Billing, rows: int) -> Charged:
    """Return the number of passes over the training rows that are charged."""
    if job.tuning.epochs != "auto":
        return Charged(Count.of(math.ceil(job.tuning.epochs)))
    auto = billing.epochs_auto
    if isinstance(auto, int):
        return Charged(Count.of(auto), (f"epochs: {vendor}'s default, {auto}",))
    usual = cookbook_epochs(rows)
    if auto is None:
        most = max(UNKNOWN_EPOCHS.high, usual + 1)
        reason = f"how {vendor} chooses the epochs is unknown: {UNKNOWN_EPOCHS.low} to {most}"
        return Charged(Count(UNKNOWN_EPOCHS.low, UNKNOWN_EPOCHS.expected, most), (reason,))
    count = Count(min(usual, 2), usual, usual + 1)
    reason = f"{vendor} chooses the epochs: {count.low} to {count.high}, expected {usual}"
    return Charged(count, (reason,))


def training_tokens(
    job: Job, vendor: str, billing: Billing, limit: int | None, rows: Tally
) -> Charged:
    """Return the tokens of one epoch; without packing, some vendors charge rows as the longest."""
    if billing.packing_off is None or _option(job, "packing") is not False:
        return pass_tokens(job, vendor, billing, limit, rows)
    longest = _longest(job, limit)
    if longest is None:
        reason = "without packing, every row is charged as the longest, whose length is unknown"
        return Charged(None, (f"{reason}; set tuning.sequence_length",))
    reason = f"without packing, every row is charged as {longest:,} tokens"
    return Charged(Count.of(len(rows) * longest), (reason,))


def pass_tokens(job: Job, vendor: str, billing: Billing, limit: int | None, rows: Tally) -> Charged:
    """Return the tokens charged for one pass over rows at their own lengths.

    `limit` is the vendor's maximum tokens per row, None if unknown; `vendor` is named in the
    reasons.
    """
    because: list[str] = []
    lengths = rows.answers if billing.counted == "answer-tokens" else rows.totals
    if job.method == "dpo":
        lengths, reason = _preferences(lengths, rows.prompts, vendor, billing)
        because += reason
    longest = _longest(job, limit)
    if longest is not None and lengths.longest.high > longest:
        over = sum(count.high > longest for count in lengths)
        fate = billing.overlength or "dropped, cut or charged in full (unknown which)"
        because.append(f"{over:,} rows may exceed {longest:,} tokens; they are {fate}")
        lengths = cut(lengths, longest, billing)
    return Charged(lengths.total, tuple(because))


def cut(lengths: Lengths, limit: int, billing: Billing) -> Lengths:
    """Return the charged tokens of rows, some of which exceed a limit."""

    def charged(row: Count) -> Count:
        kept = Count(*(min(end, limit) for end in (row.low, row.expected, row.high)))
        if row.high <= limit or billing.overlength == "truncated":
            return kept
        match billing.overlength:
            case "dropped":
                expected = row.expected if row.expected <= limit else 0
                return Count(0, expected, kept.high if row.low <= limit else 0)
            case "refused":
                return row
            case _:
                return Count(0, kept.expected, row.high)

    return Lengths.of(charged(row) for row in lengths)


def validation_passes(job: Job, vendor: str, billing: Billing, epochs_: Count) -> Charged:
    """Return how many times the validation tokens are charged."""
    match billing.validation:
        case "free":
            return Charged(Count())
        case "once":
            return Charged(Count.of(1))
        case "each-evaluation":
            option = _option(job, "n_evals")
            count = option if isinstance(option, int) else billing.evaluations_auto
            if count is not None:
                return Charged(Count.of(count))
            reason = f"how often {vendor} evaluates is unknown: once per epoch"
            return Charged(Count(1, epochs_.expected, epochs_.high), (reason,))
        case None:
            reason = (
                f"whether {vendor} charges validation tokens is unknown: not at all to once per "
                "epoch"
            )
            return Charged(Count(0, 0, epochs_.high), (reason,))


def _preferences(
    lengths: Lengths, prompts: Lengths, vendor: str, billing: Billing
) -> tuple[Lengths, list[str]]:
    """Return the lengths of preference rows, which have one prompt and two answers.

    The input lengths include the prompt once (low, expected) and twice (high).
    """
    match billing.preferences:
        case "prompt-once":
            most = (
                max(row.expected, row.high - prompt.high)
                for row, prompt in zip(lengths, prompts, strict=True)
            )
            return Lengths(lengths.low, lengths.expected, tuple(most)), []
        case "prompt-twice":
            twice = lengths + prompts
            high = map(max, twice.expected, lengths.high)
            reason = "each row's prompt is charged with both of its answers"
            return Lengths(twice.low, twice.expected, tuple(high)), [reason]
        case None:
            reason = (
                f"both answers of a row are charged; whether {vendor} charges its prompt once or "
                "twice is unknown"
            )
            return lengths, [reason]


def _longest(job: Job, limit: int | None) -> int | None:
    lengths = [each for each in (limit, job.tuning.sequence_length) if isinstance(each, int)]
    return min(lengths, default=None)


def _option(job: Job, name: str) -> object:
    return job.options.get(job.backend, {}).get(name)
