"""Read other tools' files as plain JSON of bounded depth, into cases with recorded answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import JsonValue

from unitune.data.example import Example
from unitune.data.records import MAX_DEPTH
from unitune.errors import DataError
from unitune.files.filesystem import content_of
from unitune.findings import Finding, error
from unitune.job.contenders import ContenderSpec
from unitune.scorers.functions import RecordedScore
from unitune.scorers.interface import Scorer
from unitune.security.json_fields import whole_text
from unitune.text import clip

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
    """A supported model: a backend and the model's name there."""

    backend: str
    model: str


def base_of(vendor: object, model: object) -> Base | None:
    """Return a model by another tool's vendor name; None if no backend supports it."""
    known = isinstance(vendor, str) and vendor in BACKENDS and isinstance(model, str) and model
    return Base(BACKENDS[str(vendor)], str(model)) if known else None


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of one model by case (failed cases have none), with the other tool's scores."""

    model: str
    texts: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, dict[str, float]])

    def to(self, case: str) -> tuple[str | None, Mapping[str, float] | None]:
        """Return the answer to a case and its scores."""
        return self.texts.get(case), self.scores.get(case)


@dataclass(frozen=True, slots=True)
class Suite:
    """Cases with scorers and recorded answers of models.

    Args:
        name: Name of the job.
        file: Source file.
        cases: Cases with ids, without those left out by `findings`.
        scorers: Scorers of unitune that score as the other tool does; the first decides.
        answers: Answers by model; empty for a suite that was not run.
        findings: Errors, each about something left out.
        notes: Differences from the other tool, for people.
        base: Base model, if the file names a supported one.
        contenders: Other models in a file that was not run.
        settings: Keys of `evaluate` in a file that was not run.
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
    """Return a scorer for each score from 0 to 1 that every answer has."""
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
    """Join files with the same cases, in contender order; raises `DataError` for other cases."""
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
    """Remove cases that repeat a question, by which answers are looked up, with another answer."""
    first: dict[str, Example] = {}
    repeats: dict[str, Finding] = {}
    for case in suite.cases:
        earlier = first.setdefault(case.input_key, case).case_id
        if any(model.to(earlier) != model.to(case.case_id) for model in suite.answers):
            repeats[case.case_id] = error(
                "repeated-question",
                f"case {case.case_id!r} has the question of {earlier!r}, but another answer or "
                "score.",
                "A case has one recorded answer. Pass --drop to leave repeats out.",
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
                f"{other.file} expects {clip(case.answer)} in case {case.case_id!r}, but "
                f"{first.file} expects {clip(expected[case.case_id])}. The results must have the "
                "same cases. Import each file into its own folder (--output)."
            )
    if not common:
        raise DataError(
            f"{first.file} and {other.file} have no case in common, so nothing can be compared. "
            "Import each file into its own folder (--output)."
        )


def _lone(suite: Suite, common: set[str]) -> Iterator[Finding]:
    for case in suite.cases:
        if case.case_id not in common:
            yield error(
                "not-in-all",
                f"case {case.case_id!r} is not in every file, so it cannot be compared.",
                "Run the tools on the same cases, or pass --drop to leave it out.",
            ).at(file=suite.file)


def _with_unique_names(suites: Sequence[Suite]) -> tuple[Answers, ...]:
    names = [answers.model for suite in suites for answers in suite.answers]
    return tuple(
        replace(answers, model=f"{answers.model} ({Path(suite.file).stem})")
        if len(suites) > 1 and names.count(answers.model) > 1
        else answers
        for suite in suites
        for answers in suite.answers
    )


LARGEST_SCORE = 1e300  # larger whole numbers do not fit a float


def text_file(path: Path, what: str) -> str:
    """Return the text of a UTF-8 file, described by `what`; raises `DataError`."""
    try:
        text = content_of(path).decode("utf-8-sig")
    except (OSError, ValueError) as failure:  # a NUL in a name is a ValueError
        why = getattr(failure, "strerror", None) or failure
        raise DataError(
            f"{path} cannot be read: {why}. It should be {what}. Check its path."
        ) from failure
    return text.replace("\r\n", "\n").replace("\r", "\n")


def json_lines(path: Path, what: str) -> Iterator[tuple[int, JsonValue]]:
    """Yield the values of a JSON Lines file with their line numbers; raises `DataError`."""
    # Not splitlines: JSON strings may hold U+2028 and similar characters.
    for number, line in enumerate(text_file(path, what).split("\n"), start=1):
        if line.strip():
            yield number, read_json(line, f"{path}:{number}", f"a line of {what}")


def json_file(path: Path, what: str) -> JsonValue:
    """Return the value of a JSON file; raises `DataError`."""
    return read_json(text_file(path, what), str(path), what)


def read_json(text: str | bytes, where: str, what: str) -> JsonValue:
    """Return the JSON value of a text; raises `DataError` with its place and expected content."""
    try:
        return plain_json(json.loads(text))
    except (ValueError, RecursionError) as failure:
        why = str(failure).rstrip(".")
        if isinstance(failure, json.JSONDecodeError):
            where += f":{failure.lineno}" if failure.lineno > 1 else ""
            why = failure.msg
        elif isinstance(failure, RecursionError):
            why = "it is nested too deeply"
        raise DataError(f"{where} is not JSON: {why}. It should be {what}.") from failure


def plain_json(value: object, depth: int = 0) -> JsonValue:
    """Return a value with whole characters; raises `ValueError` if it is too deep or not JSON."""
    match value:
        case str():
            return whole_text(value)
        case None | bool() | int() | float():
            return value
        case list() | dict() if depth >= MAX_DEPTH:
            raise ValueError(f"lists and objects are nested more than {MAX_DEPTH} levels deep")
        case list():
            return [plain_json(item, depth + 1) for item in cast("list[object]", value)]
        case dict():
            items = cast("dict[object, object]", value).items()
            return {whole_text(str(key)): plain_json(item, depth + 1) for key, item in items}
        case _:
            raise ValueError(f"a {type(value).__name__} is not a JSON value")


def as_score(value: JsonValue) -> float | None:
    """Return a score as a number; None if it is not a finite number."""
    if not isinstance(value, bool | int | float) or not abs(value) <= LARGEST_SCORE:
        return None
    return float(value)
