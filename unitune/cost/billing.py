"""Count the tokens of a job's rows, keeping only lengths, and apply a vendor's billing rules."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from unitune.backends.offer import Billing
from unitune.backends.user_requests import user_request
from unitune.cost.tokens import Count, TokenCounter
from unitune.data.dataset import Dataset, NumberTable
from unitune.data.example import Example
from unitune.data.split import Splits
from unitune.data.tools import each_answer, opening
from unitune.job.dialogue import Dialogue
from unitune.job.job import Job
from unitune.workspace.progress import counted


@dataclass(frozen=True)
class Lengths:
    """Lowest, expected and highest token counts of many rows."""

    low: Sequence[int]
    expected: Sequence[int]
    high: Sequence[int]

    @classmethod
    def of(cls, counts: Iterable[Count]) -> Lengths:
        """Collect counts."""
        table = NumberTable(3)
        for count in counts:
            table.append(count.low, count.expected, count.high)
        return cls(*map(table.column, range(3)))

    def __len__(self) -> int:
        return len(self.expected)

    def __iter__(self) -> Iterator[Count]:
        return map(Count, self.low, self.expected, self.high)

    @cached_property
    def total(self) -> Count:
        """Tokens of all rows."""
        return Count(sum(self.low), sum(self.expected), sum(self.high))

    @cached_property
    def longest(self) -> Count:
        """Tokens of the longest row."""
        columns = (self.low, self.expected, self.high)
        return Count(*(max(column, default=0) for column in columns))

    @property
    def mean(self) -> Count:
        """Mean tokens of a row, rounded outwards."""
        rows, total = max(len(self), 1), self.total
        return Count(total.low // rows, round(total.expected / rows), -(-total.high // rows))

    def __add__(self, other: Lengths) -> Lengths:
        return Lengths.of(length + added for length, added in zip(self, other, strict=True))


@dataclass(frozen=True, slots=True)
class Tally:
    """Token counts of one file's rows."""

    totals: Lengths  # input of a training per row and epoch
    prompts: Lengths  # input of a request for each row's answer
    answers: Lengths  # each row's answer

    def __len__(self) -> int:
        return len(self.totals)


@dataclass(frozen=True, slots=True)
class Turns:
    """Requests per case of a dialogue, and the tokens that each adds to the next one's prompt.

    Unknown results of tools count as at most as long as the longest prompt among the test rows.
    """

    count: Count
    added: Count
    user: Count  # requests to the simulated user per case
    asked: Count  # tokens of the first one, without the answer that it shows

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Assumption on the number of messages of a simulated user, if there is one."""
        usual, most = self.user.expected, self.user.high
        often = f"the simulated user writes {usual} messages per dialogue, at most {most}"
        return (often,) if most else ()

    @property
    def later(self) -> Count:
        """Tokens added to all prompts of a case."""
        return pairs(self.count) * self.added


def pairs(turns: Count) -> Count:
    """Return the additions to all prompts of some turns; that of turn k has k - 1."""
    return Count(*(at * (at - 1) // 2 for at in (turns.low, turns.expected, turns.high)))


ONE_TURN = Turns(Count.of(1), Count(), Count(), Count())


@dataclass(frozen=True, slots=True)
class Workload:
    """Token counts of a job's rows by one tokenizer. Without test rows, that tally is empty."""

    basis: str  # name of the tokenizer
    assumptions: tuple[str, ...]  # reasons why counts are ranges
    train: Tally
    validation: Tally
    # Rows as models are asked to answer them: of a dialogue, its beginning
    test: Tally
    dev: Tally
    turns: Turns = ONE_TURN


def measure(splits: Splits, counter: TokenCounter, dialogue: Dialogue | None = None) -> Workload:
    """Count a job's rows, whose test cases may be dialogues."""
    test, validation = tally(splits.test or (), counter), tally(splits.validation, counter)
    work = Workload(
        basis=counter.basis,
        assumptions=counter.assumptions,
        train=tally(splits.train, counter),
        validation=validation,
        test=test,
        dev=validation,
    )
    if dialogue is None or not splits.test:
        return work
    openings, dev = (
        tally([*map(opening, part)], counter) for part in (splits.test, splits.validation)
    )
    turns = sum(len([*each_answer(case)]) for case in splits.test)
    expected, most = -(-turns // len(test)), dialogue.max_turns
    later = test.prompts.total.expected - openings.prompts.total.expected
    added = later // max(1, turns - len(test))
    longest = max(added, test.prompts.longest.high)
    if (user := dialogue.user) is None:
        count, more = Count(1, min(most, expected), most), Count(0, added, longest)
        return replace(work, test=openings, dev=dev, turns=Turns(count, more, Count(), Count()))
    replies = min(user.max_turns, most - 1)  # its last one mostly ends the dialogue
    usual = min(replies, USUAL_REPLIES)
    expected = min(most, expected + max(0, usual - 1))
    added = max(added, openings.answers.mean.expected + USER_MESSAGE)
    first = (user_request(user, opening(case), ()).messages for case in splits.test)
    whole = Turns(
        count=Count(1, expected, most),
        added=Count(0, added, longest + user.max_tokens),
        user=Count(0, usual, replies),
        asked=tally([Example(messages=each) for each in first], counter).totals.mean,
    )
    return replace(work, test=openings, dev=dev, turns=whole)


def tally(rows: Dataset | Sequence[Example], counter: TokenCounter) -> Tally:
    """Count rows one by one, keeping only their lengths."""
    table = NumberTable(9)
    for row in counted(rows, "counting tokens", len(rows)):
        tokens = counter.row(row)
        counts = (tokens.total, tokens.prompt, tokens.answer)
        table.append(
            *(each for count in counts for each in (count.low, count.expected, count.high))
        )
    totals, prompts, answers = (
        Lengths(*map(table.column, range(first, first + 3))) for first in (0, 3, 6)
    )
    return Tally(totals, prompts, answers)


# Usual messages of a simulated user per dialogue, and tokens of one. Both are assumed: they depend
# on the goal and on how much of it is in the row's own message
USUAL_REPLIES, USER_MESSAGE = 3, 30

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
