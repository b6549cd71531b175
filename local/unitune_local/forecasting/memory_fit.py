"""Choose the micro-batch size and the memory-saving settings that fit a training into memory.

Answers that a training will sample have stand-ins, which are also checked to be scorable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from unitune.backends.options import job_options
from unitune.data.dataset import Dataset
from unitune.errors import UnituneError
from unitune.findings import Finding, error, note
from unitune.job.job import Job
from unitune.scorers.functions import FunctionScorer
from unitune.scorers.graders import OpenAIGrader
from unitune.scorers.interface import Scorer, Setting
from unitune.scorers.labels import labels_of
from unitune.scorers.row_scorers import RowScorers
from unitune_local.data.batches import TrainingRow, epoch_batches
from unitune_local.forecasting.cost import CostModel, PartCost, training_conditions
from unitune_local.options import LocalOptions
from unitune_local.settings import RewardSettings, Settings
from unitune_local.spec import SpeedBasis


class AnswerTokens(NamedTuple):
    """Number of tokens of a sampled answer, including its end."""

    low: int
    high: int

    @property
    def expected(self) -> int:
        """Middle of the range."""
        return round((self.low + self.high) / 2)


def answer_tokens(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[TrainingRow], reward: RewardSettings
) -> AnswerTokens:
    """Return the length of the answers to some prompts."""
    if reward.max_turns is not None:  # with its tools' results, a dialogue may fill the sequence
        return AnswerTokens(1, reward.max_turns * 2 * reward.max_tokens)
    texts = [row.case.answer for row in rows if row.case and row.case.answer]
    if not texts:
        return AnswerTokens(1, reward.max_tokens)
    ids = cast("Any", tokenizer)(texts, add_special_tokens=False)["input_ids"]
    mean = round(sum(map(len, ids)) / len(texts)) + 1
    return AnswerTokens(min(mean, reward.max_tokens), reward.max_tokens)


def stand_ins(
    rows: Sequence[TrainingRow], settings: Settings, tokens: int | None
) -> list[TrainingRow]:
    """Return prompts with groups of answers of so many tokens; None: the rows unchanged."""
    if tokens is None or settings.reward is None:
        return list(rows)
    made: list[TrainingRow] = []
    for row in rows:
        count = min(tokens, settings.sequence_length - len(row.ids))
        rest = (row.ids[-1],) * (count - 1)
        made += (row.followed_by((place, *rest)) for place in range(settings.reward.group_size))
    return made


def scorer_findings(job: Job, train: Dataset) -> Iterator[Finding]:
    """Yield errors for rows whose answers cannot be scored; no user code runs."""
    for scorer in job.rewards:
        yield from _findings_of(scorer, job.folder, train)
    for judge in job.judged_rewards:
        why = f"its process has no key of the backend {judge.backend}"
        fix = "Give the judge the `url` of a server with OpenAI's API, such as `unitune serve`."
        if judge.compare is not None:
            why = "a reward is the value of one answer, and `compare` only ranks two"
            fix = "Give the judge a rubric."
        if judge.url is None or judge.compare is not None:
            what = f"the judge {judge.name!r} cannot be a reward of this training: {why}."
            yield error("reward", what, fix)


def _findings_of(scorer: Scorer, folder: Path, train: Dataset) -> Iterator[Finding]:
    # Functions and graders check themselves what they read of a row.
    reads_answer = scorer.needs_expected and not isinstance(scorer, FunctionScorer | OpenAIGrader)
    try:
        ready = _without_code(scorer, Setting(folder, labels_of(train)))
    except UnituneError as problem:
        yield error("reward", str(problem))
        return
    for row in train.rows:
        if reads_answer and row.example.answer is None:
            what = f"the row has no expected answer, which the scorer {scorer.name!r} reads."
            fix = "Add it as `expected`, or use another scorer in tuning.reward.scorers."
            yield train.located(error("missing-answer", what, fix), row)
        elif ready and (why := ready.refusal(row.example)):
            what = f"{why}, so {scorer.name!r} cannot reward any answer to the row."
            fix = "Correct the row, or use another scorer in tuning.reward.scorers."
            yield train.located(error("unusable-expected", what, fix), row)


def _without_code(scorer: Scorer, setting: Setting) -> Scorer | None:
    """Return a ready scorer without user functions, or None if it is one."""
    if isinstance(scorer, FunctionScorer):
        return scorer.check(setting.folder)
    if isinstance(scorer, RowScorers):
        for function in scorer.functions:
            function.check(setting.folder)
        scorer = scorer.without_code()
    return scorer.ready(setting, "")


# Settings that recompute values, the cheaper one first: a product with the output head only.
COMPUTED_AGAIN = {
    "chunked_cross_entropy": "logits",
    "gradient_checkpointing": "values within the layers",
}
SMALLEST_MICRO_BATCH = 256  # tokens; below, matrix products get slow


@dataclass(frozen=True, slots=True)
class Batching:
    """Micro-batches of an epoch in order, and their costs in the busiest process of each step."""

    settings: Settings
    parts: list[list[TrainingRow]]
    costs: list[PartCost]
    largest_step: list[TrainingRow]
    peak_bytes: int
    otherwise_bytes: int  # peak if nothing was recomputed or spread to save memory

    def basis(self, cost: CostModel) -> SpeedBasis:
        """Return the figures that the measured speed of this training is compared with."""
        settings = self.settings
        tokens = sum(len(row.ids) for part in self.parts for row in part)
        # The passes without a backward in each step take half as long.
        passes = 1 + (settings.forwards(1) - settings.forwards(0)) / 2
        flops = passes * sum(part.flops for part in self.costs)
        whole = self.peak_bytes / cost.speed.memory_share / settings.processes_per_device
        return SpeedBasis(
            key=training_conditions(cost.size, settings).key,
            flops_per_token=flops / max(tokens, 1),
            peak_bytes=round(whole),
        )


def fit_batches(
    cost: CostModel,
    settings: Settings,
    rows: Sequence[TrainingRow],
    available: int,
    answers: AnswerTokens | None = None,
) -> Batching:
    """Cut rows, with answers of these lengths, into micro-batches that fit into memory."""
    order = epoch_batches([len(row.ids) for row in rows], settings.batch_size, settings.seed, 0)
    expected, high = (answers.expected, answers.high) if answers else (None, None)
    steps = [stand_ins([rows[at] for at in step], settings, expected) for step in order]
    # The longest rows and those with the most trained tokens, as steps of an epoch.
    longest = sorted(rows, key=lambda row: len(row.ids))
    most_trained = sorted(longest, key=lambda row: row.trained_tokens)
    largest = [
        stand_ins(each[-settings.batch_size :], settings, high)
        for each in (longest, most_trained)
        if each
    ]
    ways, otherwise = _ways(settings), 0
    for number, way in enumerate(ways, 1):
        epoch = [cost.step(step, way) for step in steps]
        costs = [part for step in epoch for part in step.busiest]
        largest_costs = [part for step in largest for part in cost.step(step, way).busiest]
        peak = cost.peak_bytes(way, costs + largest_costs)
        if not way.shard and not any(getattr(way, name) for name in COMPUTED_AGAIN):
            otherwise = peak
        if peak <= available or number == len(ways):
            parts = [part for step in epoch for part in step.parts]
            return Batching(way, parts, costs, [*chain(*largest[:1])], peak, otherwise)
    raise AssertionError("at least one way exists")


def _ways(settings: Settings) -> list[Settings]:
    """Return settings that take less and less memory, the fastest first."""
    sizes = [settings.micro_batch_tokens]
    while sizes[-1] > SMALLEST_MICRO_BATCH:
        sizes.append(sizes[-1] // 2)
    undecided = [name for name in COMPUTED_AGAIN if getattr(settings, name) is None]
    savings = [
        {name: undecided.index(name) < count for name in undecided}
        for count in range(len(undecided) + 1)
    ]
    spreads = [False, True] if settings.shard is None else [settings.shard]
    return [
        settings.model_copy(update=saving | {"micro_batch_tokens": tokens, "shard": spread})
        for spread, saving, tokens in product(spreads, savings, sizes)
    ]


def savings(job: Job, batching: Batching, available: int) -> Iterator[Finding]:
    """Yield notes on settings that were chosen to save memory at the cost of time."""
    given = job_options(job, "local", LocalOptions)
    why = (
        f"keeping them would take about {batching.otherwise_bytes / 1e9:.1f} GB, and "
        f"{available / 1e9:.1f} GB are free."
    )
    chosen = [
        f"{what} ({name})"
        for name, what in COMPUTED_AGAIN.items()
        if getattr(batching.settings, name) and getattr(given, name) == "auto"
    ]
    if chosen:
        what = f"{' and '.join(chosen)} are recomputed in the backward pass"
        yield note("computed-again", f"{what}, which takes more time: {why}")
    if batching.settings.shard and given.shard == "auto":
        over = f"the frozen weights are spread over {batching.settings.processes} processes (shard)"
        what = f"{over}, and each layer is gathered when it is needed"
        yield note("sharded", f"{what}, which takes more time: {why}")
