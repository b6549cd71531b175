"""Send the answers of all contenders to the judges of a job, after all have answered.

Requests to a judge are like all others: recorded, cached, batched, and charged to the budget. Some
answers are judged twice in the same order before anything else. A judge that disagrees with itself
on more than a third of them stops the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from unitune.backends.judge_requests import (
    Opinion,
    SchemaOptional,
    opinion_of,
    request_of,
    transcript,
    written,
)
from unitune.cost.evaluation import REPEATED
from unitune.data.example import digest
from unitune.errors import UnstableJudge
from unitune.evaluate.collecting import with_runner
from unitune.evaluate.documents.records import CaseJudgement, Record
from unitune.evaluate.inference.batch_runner import BatchJob
from unitune.evaluate.inference.engine import EvaluationProgress, Question
from unitune.evaluate.runner import EvaluationConfig, EvaluationRunner, Journals
from unitune.evaluate.scoring.grading import Answered
from unitune.evaluate.task import Task
from unitune.job.job import TokenPrice
from unitune.models import BatchedChatModel
from unitune.scorers.judge import Judge

# Apart from those of contenders: a batch without an open question is cancelled
JUDGE_BATCHES = "judge-batches.jsonl"
MOST_CHANGED = 1 / 3  # largest share of them whose judgement may change


class Item(NamedTuple):
    """Request to a judge, with what it is about."""

    case: int  # position
    contender: str  # for a pair, the one that the candidate is compared with
    repeat: int  # of the answer
    swapped: bool  # True if the candidate's answer is the second one
    question: Question


@dataclass(frozen=True, slots=True)
class Judging:
    """Judgements of one judge."""

    judge: Judge
    candidate: str
    fingerprint: str  # of the judging model
    items: tuple[tuple[Item, Opinion], ...]
    # Opinions of the items that were judged twice in the same order
    repeated: tuple[tuple[Opinion, Opinion], ...]
    records: tuple[Record, ...]  # of all requests
    price: TokenPrice | None = None

    @property
    def settings(self) -> str:
        """Model and sampling of the judge, in words."""
        judge = self.judge
        return (
            f"{self.fingerprint}, temperature {judge.temperature:g}, seed 0 (1 for repeats), at "
            f"most {judge.max_tokens:,} tokens"
        )

    def judgements(self, cases: int) -> tuple[tuple[CaseJudgement, ...], ...]:
        """Return the judgements of each case."""
        groups: dict[tuple[int, str, int], dict[bool, Opinion]] = {}
        for item, opinion in self.items:
            key = item.case, item.contender, item.repeat
            groups.setdefault(key, {})[item.swapped] = opinion
        made: list[list[CaseJudgement]] = [[] for _ in range(cases)]
        for (case, contender, repeat), opinions in groups.items():
            read = self._pair if self.judge.compare else self._answer
            made[case].append(replace(read(contender, opinions), repeat=repeat))
        return tuple(map(tuple, made))

    def _answer(self, contender: str, opinions: Mapping[bool, Opinion]) -> CaseJudgement:
        (opinion,) = opinions.values()
        made = CaseJudgement(judge=self.judge.name, contender=contender, error=opinion.error)
        if opinion.error is not None:
            return made
        value = min(map(self.judge.value, opinion.verdicts))
        return replace(made, value=value, verdicts=opinion.verdicts, reasons=opinion.reasons)

    def _pair(self, contender: str, opinions: Mapping[bool, Opinion]) -> CaseJudgement:
        both = [opinions[False], opinions[True]]
        made = CaseJudgement(judge=self.judge.name, contender=contender)
        if errors := [each.error for each in both if each.error is not None]:
            return replace(made, error=errors[0])
        names = {"A": (self.candidate, contender), "B": (contender, self.candidate)}
        verdicts = [each.verdicts[0] for each in both]
        winners = [names[v][at] if v in names else "" for at, v in enumerate(verdicts)]
        value = 0.0
        if winners[0] == winners[1] != "":
            value = 1.0 if winners[0] == self.candidate else -1.0
        reasons = tuple(reason for each in both for reason in each.reasons)
        return replace(made, value=value, verdicts=tuple(winners), reasons=reasons)


def judge_answers(
    config: EvaluationConfig, journals: Journals, answered: Sequence[Answered]
) -> tuple[Judging, ...]:
    """Let each judge of the job judge all answers.

    Raises:
        UnstableJudge: A judge disagrees with itself on too many repeated cases.
        UnituneError: See `with_runner`; also JobError if a row lacks a column of a rubric.
    """
    judges = [scorer for scorer in config.task.scoring.scorers if isinstance(scorer, Judge)]
    if not judges:
        return ()
    return with_runner(
        config, journals, lambda runner: tuple(_judging(runner, each, answered) for each in judges)
    )


def _judging(runner: EvaluationRunner, judge: Judge, answered: Sequence[Answered]) -> Judging:
    task, source = runner.config.task, runner.sources[judge.name]
    (candidate,) = (each for each in answered if each.choice.contender.spec.role == "candidate")
    items = list(_items(judge, task, candidate, answered))
    runner.journals.test.origins[judge.name] = source.origin
    with runner.opened(source) as opened:
        model = opened if isinstance(opened, BatchedChatModel) else SchemaOptional(opened)
        first = _repeatable(judge, task, candidate, items)
        twice = [each for item in first for each in (item.question, _again(item.question))]

        def read(record: Record) -> Opinion:
            return opinion_of(judge, record.text, record.finish_reason, record.error)

        progress = EvaluationProgress(judge.name, "judge", "", 0, len(twice))
        checked = runner.records(model, twice, progress)
        opinions = list(map(read, checked))
        repeated = tuple(zip(opinions[::2], opinions[1::2], strict=True))
        check_stability(judge, repeated)
        questions = [item.question for item in items]
        if runner.config.options.batch and source.backend and source.answers_in_batches:
            job = BatchJob(judge.name, "", source.model, model.fingerprint, questions)
            records = runner.batch_records({source.backend: [job]}, JUDGE_BATCHES)[judge.name]
        else:
            records = runner.records(model, questions, replace(progress, total=len(questions)))
    return Judging(
        judge=judge,
        candidate=candidate.name,
        fingerprint=model.fingerprint,
        items=tuple(zip(items, map(read, records), strict=True)),
        repeated=repeated,
        records=(*records, *checked[1::2]),
        price=source.price,
    )


def _items(
    judge: Judge, task: Task, candidate: Answered, answered: Sequence[Answered]
) -> Iterator[Item]:
    """Yield what a judge is asked; answers that are missing are not judged."""
    size = task.repeats
    for each in answered:
        if judge.compare and each is candidate:
            continue
        for at, case in enumerate(task.cases):
            for repeat in range(1 if judge.compare else size):
                record = each.records[at * size + repeat]
                shown = [candidate.records[at * size], record] if judge.compare else [record]
                if any(one.error is not None for one in shown):
                    continue
                texts = list(map(_shown, shown))
                for swapped in (False, True) if judge.compare else (False,):
                    asked = task.asked(case)
                    request = request_of(judge, asked, texts[::-1] if swapped else texts)
                    key = digest([case.case_id, each.name, repeat, swapped])[:20]
                    question = Question(f"{case.case_id} {key}", request)
                    yield Item(at, each.name, repeat, swapped, question)


def _shown(record: Record) -> str:
    """Return an answer as a judge sees it; a dialogue with its calls and their results."""
    if record.trajectory is None:
        return written(record.text, record.tool_calls)
    return transcript(record.trajectory.messages)


def _repeatable(judge: Judge, task: Task, candidate: Answered, items: Sequence[Item]) -> list[Item]:
    """Return some items of different cases, by hash, that are judged again."""
    one = {item.case: item for item in reversed(items) if not item.swapped and not item.repeat}
    if not judge.compare:
        own = (item for item in items if item.contender == candidate.name and not item.repeat)
        one |= {item.case: item for item in own}
    order = sorted(one, key=lambda at: digest(["repeat", task.cases[at].case_hash]))
    return [one[at] for at in order[:REPEATED]]


def _again(question: Question) -> Question:
    """Return a question with another seed, so that it is a new request."""
    request = question.request.model_copy(update={"seed": 1})
    return replace(question, request=request, repeat=1)


def changed(repeated: Sequence[tuple[Opinion, Opinion]]) -> tuple[int, int]:
    """Return how many repeated judgements differ, and how many have a verdict both times."""
    whole = [pair for pair in repeated if all(each.error is None for each in pair)]
    return sum(first.verdicts != second.verdicts for first, second in whole), len(whole)


def check_stability(judge: Judge, repeated: Sequence[tuple[Opinion, Opinion]]) -> None:
    """Raise UnstableJudge if too many judgements changed when they were requested again."""
    differ, count = changed(repeated)
    if count and differ > MOST_CHANGED * count:
        raise UnstableJudge(
            f"the judge {judge.name!r} ({judge.model}) gave another judgement on {differ} of "
            f"{count} cases that it was asked twice in the same order, more than a third. Nothing "
            "rests on such a judge. Use a stronger model, temperature 0, or a clearer rubric."
        )
