"""Stand in for the answers that a training will sample, and check that they can be scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from unitune.data.dataset import Dataset
from unitune.errors import UnituneError
from unitune.findings import Finding, error
from unitune.job.job import Job
from unitune.scorers.functions import FunctionScorer
from unitune.scorers.graders import OpenAIGrader
from unitune.scorers.interface import Scorer, Setting
from unitune.scorers.labels import labels_of
from unitune.scorers.row_scorers import RowScorers
from unitune_local.data.batches import TrainingRow
from unitune_local.settings import RewardSettings, Settings


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
