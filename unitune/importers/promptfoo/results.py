"""Read results of promptfoo (`promptfoo eval -o results.json` or ``.jsonl``) as a suite.

Each pair of provider and prompt is a contender, scored 1 or 0 by promptfoo's verdict. If all
assertions have a counterpart, they also become the rows' own scorers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue, ValidationError

from unitune.data.example import Example
from unitune.errors import DataError, MissingExtra
from unitune.evaluate.scoring.scorers import build
from unitune.files.validation import first_problem
from unitune.findings import SHOWN_LINES, Finding
from unitune.importers.promptfoo.assertions import SuiteFiles
from unitune.importers.promptfoo.providers import base_of_provider, with_providers
from unitune.importers.promptfoo.tests import (
    ROWS,
    WRITE_ANEW,
    Row,
    RowScorersOf,
    Test,
    hoisted,
    messages_of,
    row_scorers_of,
    types_of,
    weightless,
)
from unitune.importers.suite import Answers, Suite, json_file, json_lines
from unitune.scorers.interface import Attempt, Measured, Scorer
from unitune.scorers.row_scorers import RowScorers
from unitune.text import clip

WHAT = "a results file of promptfoo"
PASSED = "promptfoo"
ECHO = "echo"
VERSION = 3  # results format of promptfoo 0.121
LET_PROMPTFOO = (
    "Let promptfoo write its results without calling a model: `promptfoo eval -c {} --providers "
    "echo --grader echo -o results.json`. Then import promptfoo:results.json."
)


def read_results(path: Path) -> Suite:
    """Read results written by ``-o``; raises `DataError`."""
    content = _content(path)
    try:
        rows = ROWS.validate_python(content.rows)
    except ValidationError as failure:
        at, *_ = failure.errors()[0]["loc"] or ("",)
        which = f"result {at + 1} is" if isinstance(at, int) else "its results are"
        raise DataError(
            f"{path}: {which} not in the format of promptfoo 0.121: "
            f"{first_problem(failure).removeprefix(f'{at}.')}. Export the results again with "
            "`promptfoo export eval EVAL-ID -o results.json`."
        ) from failure
    if not rows:
        raise DataError(f"{path} has no results. Run `promptfoo eval -o {path.name}` first.")
    return _suite(path, content, rows)


class _Content(NamedTuple):
    rows: JsonValue
    name: str
    config: JsonValue = None


def _content(path: Path) -> _Content:
    if path.suffix in (".yaml", ".yml") and path.exists():
        raise DataError(f"{path} is a config of promptfoo. {LET_PROMPTFOO.format(path.name)}")
    if path.suffix == ".jsonl":
        return _Content([value for _, value in json_lines(path, WHAT)], path.stem)
    value = json_file(path, WHAT)
    whole = value if isinstance(value, dict) else {}
    if "tests" in whole and "results" not in whole:
        raise DataError(f"{path} is a config of promptfoo. {LET_PROMPTFOO.format(path.name)}")
    results, config = whole.get("results"), whole.get("config")
    version = results.get("version") if isinstance(results, dict) else None
    if not isinstance(results, dict) or version != VERSION:
        raise DataError(
            f"{path} is not a results file of version {VERSION} but of {version!r}. Write "
            "it with `promptfoo eval -o results.json` and a current promptfoo."
        )
    described = config.get("description") if isinstance(config, dict) else None
    return _Content(results.get("results"), str(described or path.stem), config)


def _suite(path: Path, content: _Content, rows: Sequence[Row]) -> Suite:
    of_test: defaultdict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.test, row.column)):
        of_test[row.test].append(row)
    was_run, files = any(row.provider.id != ECHO for row in rows), SuiteFiles(path.parent)
    tests = list(_tests(of_test.values(), path))
    asserted = {test.row.case: row_scorers_of(test, files, answered=was_run) for test in tests}
    lost = tuple(finding for each in asserted.values() for finding in each.findings)
    whole = not (was_run and lost)  # otherwise promptfoo's score is the only one
    kept = {case: each for case, each in asserted.items() if was_run or each.scorers is not None}
    scorer = hoisted(list(kept.values())) if whole else None
    cases: list[Example] = []
    findings: list[Finding] = []
    for test in tests:
        try:
            if (own := kept.get(test.row.case)) is not None:
                cases.append(_case(test.row, own if whole else None, shared=scorer))
        except ValueError as failure:
            findings.append(test.problem("prompt", f"{failure}.", WRITE_ANEW))
    suite = Suite(
        content.name,
        str(path),
        tuple(cases),
        scorers=(scorer or RowScorers(),) if whole else (),
        notes=tuple(_left_aside(tests)) if whole else (),
    )
    if was_run:
        return _with_answers(replace(suite, findings=tuple(findings)), rows, lost)
    notes = (*_unrun_notes(content, rows, list(kept.values())), *suite.notes)
    suite = replace(suite, findings=(*lost, *findings), notes=notes)
    return with_providers(suite, content.config)


def _with_answers(suite: Suite, rows: Sequence[Row], lost: Sequence[Finding]) -> Suite:
    columns = sorted({row.column for row in rows})
    answers = tuple(
        _answers([row for row in rows if row.column == column], label, suite.cases)
        for column, label in zip(columns, _labels(rows, columns), strict=True)
    )
    return replace(
        suite,
        answers=answers,
        notes=(*_notes(lost), *_agreement(suite, rows), *suite.notes),
        base=next(filter(None, (base_of_provider(row.provider.id) for row in rows)), None),
    )


def _left_aside(tests: Iterable[Test]) -> Iterator[str]:
    """Note assertions of weight 0, which are not imported and never decide a verdict."""
    of_weight_zero: defaultdict[str, list[str]] = defaultdict(list)
    for test in tests:
        for assertion in filter(weightless, test.row.test_case.assertions):
            of_weight_zero[clip(assertion.get("type"), 40)].append(test.row.case)
    for kind, cases in of_weight_zero.items():
        more = f" and {len(cases) - SHOWN_LINES} more" if len(cases) > SHOWN_LINES else ""
        yield (
            f"{kind} of weight 0 was not imported ({', '.join(cases[:SHOWN_LINES])}{more}). It "
            "affects no verdict, but promptfoo reports an error if it cannot run."
        )


def _unrun_notes(
    content: _Content, rows: Sequence[Row], kept: Sequence[RowScorersOf]
) -> Iterator[str]:
    if (columns := len({row.column for row in rows})) > 1:
        yield f"The cases use the first of {columns} prompts."
    if content.config is None:
        yield "JSON Lines do not contain providers. Export with -o results.json to import them."
    if costs := sum("cost" in types_of(each.scorers) for each in kept):
        tests = "1 test limits" if costs == 1 else f"{costs} tests limit"
        yield f"{tests} the cost of an answer: set evaluate.prices."


def _tests(of_test: Iterable[Sequence[Row]], path: Path) -> Iterator[Test]:
    stored = False  # whether answers are stored for later prompts
    for rows in of_test:
        row, rendered = rows[0], dict(pair for each in rows for pair in _rendered(each.grading))
        depends = stored or "_conversation" in row.prompt.label
        yield Test(row, rendered, depends, str(path))
        stored = stored or "storeOutputAs" in (row.test_case.options or {})


def _rendered(grading: JsonValue) -> Iterator[tuple[str, str]]:
    result = grading if isinstance(grading, dict) else {}
    match result:
        case {
            "assertion": {"value": str() as template},
            "metadata": {"renderedAssertionValue": str() as text},
        }:
            yield template, text
        case _:
            pass
    parts = result.get("componentResults")
    for part in parts if isinstance(parts, list) else []:
        yield from _rendered(part)


def _case(row: Row, asserted: RowScorersOf | None, *, shared: Scorer | None) -> Example:
    described = row.test_case.description
    more: dict[str, JsonValue] = {"description": described} if described else {}
    if asserted and shared and asserted.entry:
        more["expected"] = asserted.entry["expected"]
    elif asserted:
        more["scorers"] = asserted.scorers
    return Example.model_validate({"messages": messages_of(row.prompt.raw), "id": row.case, **more})


def _answers(rows: Sequence[Row], label: str, cases: Sequence[Example]) -> Answers:
    known = {case.case_id for case in cases}
    kept = {row.case: row for row in rows if row.answered and row.case in known}
    return Answers(
        label,
        {case: row.text for case, row in kept.items()},
        {case: {PASSED: float(row.success)} for case, row in kept.items()},
    )


def _labels(rows: Sequence[Row], columns: Sequence[int]) -> list[str]:
    pairs = [next((row.provider, row.prompt) for row in rows if row.column == c) for c in columns]
    prompts = list(dict.fromkeys(prompt.label for _, prompt in pairs))
    labels = [
        (provider.label or provider.id)
        + (f", prompt {prompts.index(prompt.label) + 1}" if len(prompts) > 1 else "")
        for provider, prompt in pairs
    ]
    return [
        f"{label} ({labels[: at + 1].count(label)})" if labels.count(label) > 1 else label
        for at, label in enumerate(labels)
    ]


def _notes(lost: Sequence[Finding]) -> Iterator[str]:
    yield (
        "The score is promptfoo's: 1 if it passed the answer. A contender that answers anew "
        "needs another scorer."
    )
    reasons = Counter(finding.message.partition(": ")[2] for finding in lost)
    for reason, count in reasons.items():
        tests = "1 test" if count == 1 else f"{count} tests"
        yield f"{tests} can be scored only by promptfoo: {reason}"


def _agreement(suite: Suite, rows: Sequence[Row]) -> Iterator[str]:
    if not suite.scorers:
        return
    try:
        scorer = build(suite.scorers[0])
    except MissingExtra as missing:
        yield f"unitune's scorers were imported too, but not compared with it: {missing}"
        return
    known = {case.case_id: case for case in suite.cases}
    scored = [row for row in rows if row.answered and row.case in known]
    differing = [
        f"{row.provider.label or row.provider.id} in {row.case} ({clip(row.text, 30)})"
        for row in scored
        if scorer.score(_attempt(known[row.case], row)).value != row.success
    ]
    first = f"; first: {differing[0]}" if differing else ""
    yield (
        f"unitune's {scorer.name} was imported too and agrees with promptfoo on "
        f"{len(scored) - len(differing)} of {len(scored)} answers{first}."
    )


def _attempt(case: Example, row: Row) -> Attempt:
    seconds = None if row.milliseconds is None else row.milliseconds / 1000
    return Attempt(case, row.text, measured=Measured(row.text, seconds=seconds, usd=row.cost))
