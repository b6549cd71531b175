"""Tokens of a job's requests: measured in its newest comparison, and counted from its rows.

The tuned model gets the row's own messages. The best prompt is not known before dev rows have
chosen it, so its count spans the prompts that the baseline with most effort in it would try first:
from the fewest shots to the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from unitune.cost.tokens import Count, RowCount, TokenCounter
from unitune.data.dataset import spread
from unitune.data.example import Example, Message
from unitune.data.split import Splits
from unitune.evaluate.history import newest_of
from unitune.evaluate.prompts.contenders import EFFORT, build
from unitune.evaluate.prompts.prompts import OWN_MESSAGES, Prompt
from unitune.evaluate.results import ContenderResult
from unitune.job.contenders import prompt_kind
from unitune.job.job import Job

MOST_ROWS = 1000
"""Rows that are counted, evenly spread: their mean was within 2 % of that of all rows in 95 of 100
draws, measured with o200k_base on 50,000 short rows."""
PROMPT_ROWS = 20
"""Rows for which whole prompts are made; what a prompt adds differs little from row to row."""
NO_ANSWER = Message(role="assistant", content="")


@dataclass(frozen=True, slots=True)
class MeanTokens:
    """Tokens of a request, on average over the test cases."""

    prompt: int
    answer: int
    """As the vendor counted them, hidden reasoning included."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The tokens of a comparison; None where a vendor counted none."""

    origin: str
    """Which comparison, for people."""
    candidate: MeanTokens | None
    baseline: MeanTokens | None
    contenders: dict[str, MeanTokens]
    """By name."""
    nearest_shots: bool = False
    """Whether the best prompt shows each case rows of its own, so that no two prompts have more
    than the system prompt in common."""


@dataclass(frozen=True, slots=True)
class Counted:
    """Mean tokens of a request: of either model's prompt, and of an answer."""

    tuned: Count
    prompted: Count
    answer: Count
    shared_tuned: Count
    """Tokens that all of the tuned model's prompts begin with."""
    shared_prompted: Count
    prompt: str
    """Which prompts were counted, for people."""
    how: tuple[str, ...]
    """How many rows were counted, by what and on which assumptions, a sentence each."""


def measured(job: Job) -> Measured | None:
    """Return what the newest comparison of a job measured; None where there is none here.

    Only comparisons of its name, backend and base model count.
    """
    newest = newest_of(job.name, job.backend, job.base_model)
    if newest is None:
        return None
    means = {each.name: tokens for each in newest.contenders if (tokens := _means(each))}
    efforts = [each.effort for each in newest.contenders if each.name == newest.baseline]
    return Measured(
        origin=f"run {newest.run}" if newest.run else f"comparison of {newest.job}",
        candidate=means.get(newest.candidate),
        baseline=means.get(newest.baseline),
        contenders=means,
        nearest_shots=any("nearest" in effort.rpartition("chose ")[2] for effort in efforts),
    )


def _means(result: ContenderResult) -> MeanTokens | None:
    if not result.answers or result.prompt_tokens is None or result.completion_tokens is None:
        return None
    totals = (result.prompt_tokens, result.completion_tokens)
    return MeanTokens(*((2 * total + result.answers) // (2 * result.answers) for total in totals))


def count(job: Job, splits: Splits, counter: TokenCounter) -> Counted:
    """Count a job's requests by its test rows, or by its training rows where there are none."""
    rows = [row.example for row in spread((splits.test or splits.train).rows, MOST_ROWS)]
    sample = spread(rows, PROMPT_ROWS)
    mean = _mean([counter.row(row) for row in rows])
    prompts = _prompts(job, splits)
    added = [_added(prompt, sample, counter) for prompt in prompts]
    first, last = prompts[0].label, prompts[-1].label
    return Counted(
        tuned=mean.prompt,
        prompted=mean.prompt + _range(added),
        answer=mean.answer,
        shared_tuned=Count.of(_shared(OWN_MESSAGES, sample, counter)),
        shared_prompted=_range([_shared(prompt, sample, counter) for prompt in prompts]),
        prompt=first if first == last else f"from {first} to {last}",
        how=(f"{len(rows):,} rows were counted by {counter.basis}.", *counter.assumptions),
    )


def _prompts(job: Job, splits: Splits) -> tuple[Prompt, ...]:
    """Return what the baseline with most effort in it would try first, the shortest first."""
    contenders = build(job.evaluate, job.tuning, splits.train)
    baselines = [each for each in contenders if each.spec.role == "baseline"]
    most = max(baselines, key=lambda each: EFFORT.index(prompt_kind(each.spec)), default=None)
    return most.prompts if most else (OWN_MESSAGES,)


def _added(prompt: Prompt, rows: Sequence[Example], counter: TokenCounter) -> int:
    """Return by how many tokens a prompt lengthens a row, on average."""
    longer = [
        row.model_copy(update={"messages": (*prompt.messages(row), NO_ANSWER)}) for row in rows
    ]
    means = [_mean([counter.row(row) for row in each]).prompt for each in (longer, rows)]
    return means[0].expected - means[1].expected


def _shared(prompt: Prompt, rows: Sequence[Example], counter: TokenCounter) -> int:
    """Return the tokens of the messages that all rows' prompts begin with."""
    prompts = [prompt.messages(row) for row in rows]
    same = takewhile(lambda turns: turns.count(turns[0]) == len(turns), zip(*prompts, strict=False))
    common = [turns[0] for turns in same]
    if len(prompts) < 2 or not common:
        return 0
    return counter.row(Example(messages=(*common, NO_ANSWER))).prompt.expected


def _range(numbers: Sequence[int]) -> Count:
    return Count(min(numbers), sorted(numbers)[len(numbers) // 2], max(numbers))


def _mean(counts: Sequence[RowCount]) -> RowCount:
    total, n = sum(counts, start=RowCount()), len(counts)
    return RowCount(_share(total.prompt, n), _share(total.answer, n))


def _share(total: Count, n: int) -> Count:
    """Return a mean: down to a whole token for low, up for high."""
    return Count(total.low // n, (2 * total.expected + n) // (2 * n), -(-total.high // n))
