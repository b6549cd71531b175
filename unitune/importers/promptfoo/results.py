"""Results of promptfoo (`promptfoo eval -o results.json`, or ``.jsonl``) as a suite.

Each pair of provider and prompt is one that answers. What promptfoo said of an answer is its score
(1 passed, 0 failed), so that every kind of assertion counts, those of judges and code too. Where
unitune's own scorers could say the same of all cases, they come along as well, for contenders that
are asked afresh; how often they agree with promptfoo is told.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from unitune.data.example import Example, Message
from unitune.errors import DataError, MissingExtra
from unitune.evaluate.scoring import build
from unitune.findings import Finding, clip
from unitune.importers.foreign import json_file, json_lines
from unitune.importers.promptfoo.config import case_of
from unitune.importers.promptfoo.prompts import NotText, messages_of
from unitune.importers.promptfoo.providers import base_of
from unitune.importers.promptfoo.scorers import LEAVE_OUT, Shared, Test, share
from unitune.importers.suite import Answers, Suite
from unitune.scorers.interface import Attempt, Scorer

WHAT = "a results file of promptfoo"
PASSED = "promptfoo"
"""Name of the score: whether promptfoo passed the answer."""
VERSION = 3
"""Of the results' format, as promptfoo 0.121 writes it."""
ERROR = 2
"""`failureReason` of a row whose provider failed; nothing can be said of its answer."""
LONGEST_LABEL = 40
"""Longer labels of prompts are the prompts themselves."""


class Prompt(BaseModel):
    """The prompt of a row, filled in."""

    raw: str
    label: str = ""


class Provider(BaseModel):
    """Who was asked."""

    id: str = ""
    label: str | None = None


class Response(BaseModel):
    """What came back."""

    output: JsonValue = None


class TestCase(BaseModel):
    """What was to be tested."""

    description: str | None = None
    assertions: Annotated[list[JsonValue], Field(alias="assert")] = []
    options: dict[str, JsonValue] | None = None
    threshold: JsonValue = None


class Row(BaseModel):
    """One answer; what else promptfoo writes is not looked at."""

    test: Annotated[int, Field(alias="testIdx", ge=0)]
    column: Annotated[int, Field(alias="promptIdx", ge=0)]
    prompt: Prompt
    provider: Provider
    response: Response | None = None
    success: bool
    failure: Annotated[int, Field(alias="failureReason")] = 0
    vars: dict[str, JsonValue] = {}
    case: Annotated[TestCase, Field(alias="testCase")]


ROWS = TypeAdapter(list[Row])


def read_results(path: Path) -> Suite:
    """Read results of promptfoo.

    Args:
        path: What ``-o`` wrote, in JSON or JSON Lines.

    Raises:
        DataError: It cannot be read, or is something else.
    """
    listed, config = _content(path)
    try:
        rows = ROWS.validate_python(listed)
    except ValidationError as failure:
        first = failure.errors()[0]
        at, *keys = first["loc"] or ("s",)
        which = f"result {at + 1} is" if isinstance(at, int) else "its results are"
        raise DataError(
            f"{path}: {which} not as promptfoo 0.121 writes it: "
            f"{'.'.join(str(key) for key in keys)}: {first['msg']}. Write the results anew with "
            "`promptfoo export eval EVAL-ID -o results.json`."
        ) from failure
    if not rows:
        raise DataError(f"{path} holds no results. Run `promptfoo eval -o {path.name}` first.")
    return _suite(path, rows, config)


def is_results(path: Path) -> bool:
    """Whether a file of promptfoo holds results, and not a config."""
    if path.suffix == ".jsonl":
        return True
    value = json_file(path, WHAT) if path.suffix == ".json" else None
    return isinstance(value, dict) and "results" in value


def _content(path: Path) -> tuple[JsonValue, Mapping[str, JsonValue]]:
    """Return the list of rows, and the config that they belong to."""
    if path.suffix == ".jsonl":
        return [value for _, value in json_lines(path, WHAT)], {}
    value = json_file(path, WHAT)
    whole = value if isinstance(value, dict) else {}
    results, config = whole.get("results"), whole.get("config")
    if not isinstance(results, dict) or results.get("version") != VERSION:
        version = results.get("version") if isinstance(results, dict) else None
        raise DataError(
            f"{path} is no results file of version {VERSION} (it says {version!r}). Write it with "
            "`promptfoo eval -o results.json` of a current promptfoo."
        )
    return results.get("results"), config if isinstance(config, dict) else {}


def _suite(path: Path, rows: Sequence[Row], config: Mapping[str, JsonValue]) -> Suite:
    columns = sorted({row.column for row in rows})
    first = {row.test: row for row in rows if row.column == columns[0]}
    tests = [_test(row, path) for _, row in sorted(first.items())]
    shared = share(tests)
    cases, findings = _cases(tests, first, shared)
    answers = tuple(
        _answers([row for row in rows if row.column == column], name, cases)
        for column, name in zip(columns, _names(rows, columns), strict=True)
    )
    scorers = () if shared.findings else shared.scorers
    return Suite(
        name=str(config.get("description") or path.stem),
        file=str(path),
        cases=tuple(cases),
        scorers=scorers,
        answers=answers,
        findings=tuple(findings),
        notes=(*_notes(shared), *_agreement(cases, answers, scorers)),
        base=base_of([row.provider.id for row in rows]),
    )


def _test(row: Row, path: Path) -> Test:
    return Test(
        number=row.test + 1,
        values=row.vars,
        assertions=row.case.assertions,
        options=row.case.options or {},
        threshold=row.case.threshold,
        description=row.case.description,
        file=str(path),
    )


def _cases(
    tests: Sequence[Test], rows: Mapping[int, Row], shared: Shared
) -> tuple[list[Example], list[Finding]]:
    cases: list[Example] = []
    findings: list[Finding] = []
    for test in tests:
        try:
            messages: tuple[Message, ...] = messages_of(rows[test.number - 1].prompt.raw)
        except NotText as failure:
            findings.append(test.problem("prompt", f"{failure}.", LEAVE_OUT))
        else:
            cases.append(case_of(test, messages, shared.expected.get(test.number)))
    return cases, findings


def _answers(rows: Sequence[Row], name: str, cases: Sequence[Example]) -> Answers:
    """Return what one pair of provider and prompt answered; a provider's error is no answer."""
    known = {case.case_id for case in cases}
    answered = {
        f"test-{row.test + 1}": row
        for row in rows
        if row.failure != ERROR and row.response is not None
    }
    kept = {case: row for case, row in answered.items() if case in known}
    return Answers(
        name,
        {case: _text(row) for case, row in kept.items()},
        {case: {PASSED: float(row.success)} for case, row in kept.items()},
    )


def _text(row: Row) -> str:
    output = row.response.output if row.response else None
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def _names(rows: Sequence[Row], columns: Sequence[int]) -> list[str]:
    """Return names for pairs of provider and prompt that differ and say no more than needed."""
    pairs = [next((r.provider, r.prompt) for r in rows if r.column == one) for one in columns]
    labels = list(dict.fromkeys(prompt.label for _, prompt in pairs))
    names = [
        provider.label or provider.id
        if len(labels) == 1
        else f"{provider.label or provider.id}, {_label(prompt.label, labels)}"
        for provider, prompt in pairs
    ]
    return [
        f"{name} ({names[: at + 1].count(name)})" if names.count(name) > 1 else name
        for at, name in enumerate(names)
    ]


def _label(label: str, labels: Sequence[str]) -> str:
    short = label and len(label) <= LONGEST_LABEL and "\n" not in label
    return label if short else f"prompt {labels.index(label) + 1}"


def _notes(shared: Shared) -> Iterator[str]:
    yield (
        "The score is promptfoo's own: 1 where it passed an answer. A contender that is asked "
        "afresh needs another scorer."
    )
    reasons = Counter(finding.message.partition(": ")[2] for finding in shared.findings)
    for reason, count in reasons.items():
        tests = "1 test" if count == 1 else f"{count} tests"
        yield f"{tests} could be scored by promptfoo alone: {reason}"


def _agreement(
    cases: Sequence[Example], answers: Sequence[Answers], specs: Sequence[Scorer]
) -> Iterator[str]:
    """Say how often unitune's scorers, all of them together, say the same as promptfoo."""
    if not specs:
        return
    try:
        scorers = [build(spec) for spec in specs]
    except MissingExtra as missing:
        yield f"unitune's own scorers came along too, and were not held against it: {missing}"
        return
    differing: list[str] = []
    count = 0
    for one, case in product(answers, cases):
        if case.case_id not in one.texts:
            continue
        count += 1
        text = one.texts[case.case_id]
        passed = min(scorer.score(Attempt(case, text)).value for scorer in scorers)
        if passed != one.scores[case.case_id][PASSED]:
            differing.append(f"{one.model} in {case.case_id} ({clip(text, 30)})")
    names = " and ".join(scorer.name for scorer in scorers)
    told = f"; first: {differing[0]}" if differing else ""
    yield (
        f"unitune's {names} came along too, and agrees with promptfoo on {count - len(differing)} "
        f"of {count} answers{told}."
    )
