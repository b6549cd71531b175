"""What any other tool's file becomes: a `Suite` of cases with scorers and recorded answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from unitune.data.example import Example
from unitune.errors import DataError
from unitune.findings import Finding, clip, error
from unitune.job.contenders import ContenderSpec
from unitune.scorers.functions import RecordedScore
from unitune.scorers.interface import Scorer

BACKENDS: Mapping[str, str] = {
    "openai": "openai",
    "azure": "azure",
    "azureai": "azure",
    "azureopenai": "azure",
    "anthropic": "anthropic",
    "bedrock": "bedrock",
    "vertex": "vertex",
    "google": "vertex",
    "together": "together",
    "togetherai": "together",
    "hf": "local",
    "vllm": "local",
    "sglang": "local",
}


class Base(NamedTuple):
    """A model that unitune can reach: a backend's name and the model's name there."""

    backend: str
    model: str


def base_of(vendor: object, model: object) -> Base | None:
    """Return a model by another tool's name of its vendor; None where no backend has it."""
    known = isinstance(vendor, str) and vendor in BACKENDS and isinstance(model, str) and model
    return Base(BACKENDS[str(vendor)], str(model)) if known else None


@dataclass(frozen=True, slots=True)
class Answers:
    """One model's answers.

    Args:
        model: Its name, as the other tool has it.
        texts: Answers by case; a case in error has none.
        scores: By case, and then by the other tool's names of them.
    """

    model: str
    texts: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, dict[str, float]])

    def to(self, case: str) -> tuple[str | None, Mapping[str, float] | None]:
        """Return the answer to a case, with its scores."""
        return self.texts.get(case), self.scores.get(case)


@dataclass(frozen=True, slots=True)
class Suite:
    """Cases with scorers, and what models have answered.

    Args:
        name: For the job.
        file: Where it comes from.
        cases: With ids of their own, and without what `findings` leave out.
        scorers: Those of unitune that score as the other tool does; the first decides.
        answers: One entry a model; none in a suite that was not run.
        findings: Errors; each is about something that is left out.
        notes: What came along differently, for people.
        base: The model to start from, where the file names one that unitune knows.
        contenders: Other models that the file names, for a suite that was not run.
        settings: Keys of `evaluate`, likewise.
    """

    name: str
    file: str
    cases: tuple[Example, ...]
    scorers: tuple[Scorer, ...]
    answers: tuple[Answers, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    base: Base | None = None
    contenders: tuple[ContenderSpec, ...] = ()
    settings: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])


Reader = Callable[[Path], Suite]


def kept_scores(answers: Iterable[Answers]) -> tuple[RecordedScore, ...]:
    """Return a scorer for each score that every answer has, and that is a share from 0 to 1."""
    scored = [
        scores
        for answer in answers
        for case, scores in answer.scores.items()
        if case in answer.texts
    ]
    keys = dict.fromkeys(key for scores in scored for key in scores)
    usable = [key for key in keys if all(0 <= scores.get(key, -1) <= 1 for scores in scored)]
    return tuple(RecordedScore(name=key, key=key) for key in usable)


def joined(suites: Sequence[Suite]) -> Suite:
    """Return several files of one format as one suite: the same cases, more answers.

    The cases and their messages are those of the first file.

    Args:
        suites: At least one, in the order of their contenders.

    Raises:
        DataError: They are not about the same cases.
    """
    first, *others = suites
    for other in others:
        _check_same(first, other)
    common = set[str].intersection(*({case.case_id for case in suite.cases} for suite in suites))
    return replace(
        first,
        cases=tuple(case for case in first.cases if case.case_id in common),
        scorers=first.scorers if all(other.scorers == first.scorers for other in others) else (),
        answers=_with_unique_names(suites),
        findings=tuple(
            finding for suite in suites for finding in (*suite.findings, *_lone(suite, common))
        ),
        notes=tuple(dict.fromkeys(note for suite in suites for note in suite.notes)),
    )


def without_repeats(suite: Suite) -> Suite:
    """Return a suite without cases that ask what an earlier one asks and were answered otherwise.

    A recorded answer is looked up by its question (`unitune.evaluate.inference.recorded`), so
    repeats of a question cannot be distinguished.
    """
    first: dict[str, Example] = {}
    repeats: dict[str, Finding] = {}
    for case in suite.cases:
        earlier = first.setdefault(case.input_key, case).case_id
        if any(model.to(earlier) != model.to(case.case_id) for model in suite.answers):
            repeats[case.case_id] = error(
                "repeated-question",
                f"case {case.case_id!r} asks what {earlier!r} asks, and was answered or scored "
                "otherwise.",
                "A case has one recorded answer; leave repeats out with --drop.",
            ).at(file=suite.file)
    return replace(
        suite,
        cases=tuple(case for case in suite.cases if case.case_id not in repeats),
        findings=(*suite.findings, *repeats.values()),
    )


def _check_same(first: Suite, other: Suite) -> None:
    expected = {case.case_id: case.answer for case in first.cases}
    common = [case for case in other.cases if case.case_id in expected]
    for case in common:
        if expected[case.case_id] != case.answer:
            raise DataError(
                f"{other.file} expects {clip(case.answer)} in case {case.case_id!r}, and "
                f"{first.file} {clip(expected[case.case_id])}: these are not results of the same "
                "cases. Import each into a folder of its own (--output)."
            )
    if not common:
        raise DataError(
            f"{first.file} and {other.file} have no case in common, so nothing can be compared. "
            "Import each into a folder of its own (--output)."
        )


def _lone(suite: Suite, common: set[str]) -> Iterator[Finding]:
    for case in suite.cases:
        if case.case_id not in common:
            yield error(
                "not-in-all",
                f"case {case.case_id!r} does not stand in every file, so it makes no pair.",
                "Run the tools on the same cases, or leave it out with --drop.",
            ).at(file=suite.file)


def _with_unique_names(suites: Sequence[Suite]) -> tuple[Answers, ...]:
    """Return all answers, with the file in the name where two models have the same."""
    names = [answers.model for suite in suites for answers in suite.answers]
    return tuple(
        replace(answers, model=f"{answers.model} ({Path(suite.file).stem})")
        if len(suites) > 1 and names.count(answers.model) > 1
        else answers
        for suite in suites
        for answers in suite.answers
    )
