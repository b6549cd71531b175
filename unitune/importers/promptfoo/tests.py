"""Translate a test of promptfoo to a row's `scorers`.

promptfoo passes a test if all assertions hold or, with a threshold, if their weighted mean reaches
it; a row's list does the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypeGuard, cast

import yaml
from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from unitune.data.example import MESSAGES, Message
from unitune.files.validation import first_problem
from unitune.files.yaml_file import parse_foreign
from unitune.findings import Finding, error
from unitune.importers.promptfoo.assertions import Entry, NoCounterpart, SuiteFiles, Translator
from unitune.importers.suite import plain_json
from unitune.scorers import ENTRIES
from unitune.scorers.interface import Scorer
from unitune.text import clip

WRITE_ANEW = "Add a scorer of unitune to the row, or pass --drop to leave it out."
LEAVE_OUT = "Add an assertion, or pass --drop to leave it out."


@dataclass(frozen=True, slots=True)
class Test:
    """A test of promptfoo; `depends` means that its prompt may hold answers to other tests."""

    row: Row
    rendered: Mapping[str, str]
    depends: bool
    file: str

    def problem(self, code: str, what: str, fix: str) -> Finding:
        """Return a finding about the test."""
        return error(code, f"{self.row.case}: {what}", fix).at(file=self.file)


@dataclass(frozen=True, slots=True)
class RowScorersOf:
    """Scorers of a row, or None, and findings about what could not be imported."""

    scorers: list[JsonValue] | Entry | None
    findings: tuple[Finding, ...]

    @property
    def entry(self) -> Entry | None:
        """The entry, if it is the only one."""
        if isinstance(self.scorers, list) and len(self.scorers) == 1:
            only = self.scorers[0]
            return only if isinstance(only, dict) else None
        return None


def row_scorers_of(test: Test, files: SuiteFiles, *, answered: bool = False) -> RowScorersOf:
    """Return the scorers for a test; `answered` if its answers are recorded."""
    entries: list[JsonValue] = []
    lost: list[_Lost] = []
    threshold = test.row.test_case.threshold
    for item in _entries(test, files, answered=answered):
        lost.append(item) if isinstance(item, _Lost) else entries.append(item)
    # The mean over only some of the assertions would be a different test.
    whole = bool(entries) and not (lost and threshold)
    rest = "; its other assertions are imported" if whole else "; the test is left out"
    findings = [test.problem(each.code, f"{each.what}{rest}.", each.fix) for each in lost]
    if not whole:
        return RowScorersOf(None, tuple(findings))
    scorers: list[JsonValue] | Entry = entries
    if threshold:
        scorers = {"scorers": entries, "at_least": threshold}
    return RowScorersOf(scorers, tuple(findings))


class _Lost(NamedTuple):
    code: str
    what: str
    fix: str = WRITE_ANEW


def _entries(test: Test, files: SuiteFiles, *, answered: bool) -> Iterator[Entry | _Lost]:
    given, options = test.row.test_case, test.row.test_case.options or {}
    if test.depends and not answered:
        yield _Lost("depends", "its prompt may contain answers to other tests")
        return
    if given.scored_by is not None:
        yield _Lost("code", "a custom function scores it")
        return
    if isinstance(given.threshold, str | list | dict):
        yield _Lost("threshold", f"its threshold {clip(given.threshold)} is not a number")
        return
    counted = [each for each in given.assertions if not weightless(each)]
    if not counted:
        yield _Lost("no-assertion", "it has no assertion that scores", LEAVE_OUT)
    if options.get("transform") or options.get("postprocess"):
        yield _Lost("code", "its `transform` changes the answers with code")
        return
    translator = Translator(test.rendered, given.variables, files)
    for assertion in counted:
        try:
            entry = translator.entry(assertion)
        except NoCounterpart as refusal:
            yield _Lost("no-counterpart", f"the assertion {refusal}")
            continue
        if answered and (beside := types_of(entry) & {"latency", "cost", "finish_reason"}):
            named = min(beside).replace("_", " ")
            yield _Lost("measure", f"it asserts the {named}, which recorded answers do not have")
        else:
            yield entry


def weightless(assertion: JsonValue) -> TypeGuard[Entry]:
    """Return whether an assertion has no weight."""
    return isinstance(assertion, dict) and assertion.get("weight") == 0


def types_of(written: JsonValue) -> set[str]:
    """Return the types of entries in a row's scorers, at any depth."""
    if isinstance(written, list):
        return set[str]().union(*map(types_of, written))
    if not isinstance(written, dict):
        return set()
    return types_of(written.get("scorers")) | {str(written.get("type"))}


def hoisted(rows: Sequence[RowScorersOf]) -> Scorer | None:
    """Return the scorer that all rows share apart from the expected text, or None."""
    kinds: list[Entry] = []
    for row in rows:
        entry = row.entry
        if entry is None or not isinstance(entry.get("expected"), str):
            return None
        kinds.append({key: value for key, value in entry.items() if key != "expected"})
    if not kinds or any(kind != kinds[0] for kind in kinds):
        return None
    scorer = ENTRIES.get(str(kinds[0]["type"]))
    if scorer is None or not issubclass(scorer, Scorer):
        return None
    return scorer.model_validate(kinds[0]) if kinds[0].keys() <= {*scorer.model_fields} else None


PROVIDER_FAILED = 2  # `failureReason` of a row without an answer


class _Prompt(BaseModel):
    raw: str
    label: str = ""


class _Provider(BaseModel):
    id: str = ""
    label: str | None = None


class _Response(BaseModel):
    output: JsonValue = None


class _TestCase(BaseModel):
    description: str | None = None
    assertions: Annotated[list[JsonValue], Field(alias="assert")] = []
    options: dict[str, JsonValue] | None = None
    threshold: JsonValue = None
    scored_by: Annotated[JsonValue, Field(alias="assertScoringFunction")] = None
    variables: Annotated[dict[str, JsonValue], Field(alias="vars")] = {}


class Row(BaseModel):
    """One answer to one test."""

    test: Annotated[int, Field(alias="testIdx", ge=0)]
    column: Annotated[int, Field(alias="promptIdx", ge=0)]
    prompt: _Prompt
    provider: _Provider
    response: _Response | None = None
    success: bool
    milliseconds: Annotated[float | None, Field(alias="latencyMs")] = None
    cost: float | None = None
    failure: Annotated[int, Field(alias="failureReason")] = 0
    test_case: Annotated[_TestCase, Field(alias="testCase")]
    grading: Annotated[JsonValue, Field(alias="gradingResult")] = None

    @property
    def case(self) -> str:
        """The id of the case."""
        return f"test-{self.test + 1}"

    @property
    def answered(self) -> bool:
        """True if there is an answer to score."""
        return self.failure != PROVIDER_FAILED and self.response is not None

    @property
    def text(self) -> str:
        """The answer, or an empty string."""
        output = self.response.output if self.response else ""
        return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


ROWS = TypeAdapter(list[Row])


def messages_of(prompt: str) -> tuple[Message, ...]:
    """Return a prompt as messages: a JSON or YAML list of them, or one user message.

    Parts may have Adaline's form, ``{"modality": "text", "value": …}``. Raises `ValueError`.
    """
    try:
        as_yaml = prompt.strip().startswith("- role:")
        value = plain_json(parse_foreign(prompt) if as_yaml else json.loads(prompt))
    except (ValueError, RecursionError, yaml.YAMLError):
        value = None
    turns = value if isinstance(value, list) else []
    if not turns or not all(isinstance(turn, dict) and "role" in turn for turn in turns):
        if not prompt.strip():
            raise ValueError("the prompt is empty")
        return (Message(role="user", content=prompt),)
    try:
        return MESSAGES.validate_python(list(map(_with_text_parts, turns)))
    except ValidationError as failure:
        raise ValueError(
            f"the prompt is not a list of texts: {first_problem(failure)}"
        ) from failure


def _with_text_parts(turn: JsonValue) -> JsonValue:
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), list):
        return turn
    parts: list[JsonValue] = []
    for part in cast("list[JsonValue]", turn["content"]):
        match part:
            case {"modality": "text", "value": str() as text}:
                parts.append({"type": "text", "text": text})
            case _:
                parts.append(part)
    return {**turn, "content": parts}
