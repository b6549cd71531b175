"""Results of promptfoo (`promptfoo eval -o results.json`, or ``.jsonl``) as a suite.

Each pair of provider and prompt is a model that answers. Whether promptfoo passed an answer is its
score (1 or 0), so that every kind of assertion counts, those of judges and code too. Where
unitune's own scorers could score all cases in the same way, they come along as well, for contenders
that answer afresh; a note says how often they agree with promptfoo.

A config that was not run is brought over by promptfoo itself: with ``--providers echo`` it makes
the cases and calls no model. Answers of that provider are no answers.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, cast

import yaml
from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from unitune.data.example import MESSAGES, Example, Message
from unitune.errors import DataError, MissingExtra
from unitune.evaluate.scoring import build
from unitune.findings import Finding, clip
from unitune.importers.foreign import json_file, json_lines, plain_json
from unitune.importers.promptfoo.scorers import LEAVE_OUT, SharedScorers, Test, share_scorers
from unitune.importers.suite import Answers, Base, Suite, base_of
from unitune.scorers.interface import Attempt, Scorer
from unitune.workspace.validation import first_problem

WHAT = "a results file of promptfoo"
PASSED = "promptfoo"
"""Name of the score: whether promptfoo passed the answer."""
ECHO = "echo"
"""promptfoo's provider that gives the prompt back."""
VERSION = 3
"""Of the results' format, as promptfoo 0.121 writes it."""
PROVIDER_FAILED = 2
"""`failureReason` of a row without a real answer."""
LET_PROMPTFOO = (
    "Let promptfoo make its results, which calls no model: `promptfoo eval -c {} --providers echo "
    "-o results.json`. Then import promptfoo:results.json."
)


class Prompt(BaseModel):
    """The prompt of a row, filled in."""

    raw: str
    label: str = ""


class Provider(BaseModel):
    """Who answered."""

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
    """One answer; other keys of promptfoo's are not read."""

    test: Annotated[int, Field(alias="testIdx", ge=0)]
    column: Annotated[int, Field(alias="promptIdx", ge=0)]
    prompt: Prompt
    provider: Provider
    response: Response | None = None
    success: bool
    failure: Annotated[int, Field(alias="failureReason")] = 0
    test_case: Annotated[TestCase, Field(alias="testCase")]
    grading: Annotated[JsonValue, Field(alias="gradingResult")] = None

    @property
    def case(self) -> str:
        """The id of its case."""
        return f"test-{self.test + 1}"

    @property
    def answered(self) -> bool:
        """Whether there is an answer to score."""
        return self.failure != PROVIDER_FAILED and self.response is not None

    @property
    def text(self) -> str:
        """The answer; empty where there is none."""
        output = self.response.output if self.response else ""
        return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


ROWS = TypeAdapter(list[Row])


def read_results(path: Path) -> Suite:
    """Read results of promptfoo.

    Args:
        path: What ``-o`` wrote, in JSON or JSON Lines.

    Raises:
        DataError: It cannot be read, or is something else.
    """
    listed, name = _content(path)
    try:
        rows = ROWS.validate_python(listed)
    except ValidationError as failure:
        at, *_ = failure.errors()[0]["loc"] or ("",)
        which = f"result {at + 1} is" if isinstance(at, int) else "its results are"
        raise DataError(
            f"{path}: {which} not as promptfoo 0.121 writes it: "
            f"{first_problem(failure).removeprefix(f'{at}.')}. Write the results anew with "
            "`promptfoo export eval EVAL-ID -o results.json`."
        ) from failure
    if not rows:
        raise DataError(f"{path} holds no results. Run `promptfoo eval -o {path.name}` first.")
    return _suite(path, name, rows)


def _content(path: Path) -> tuple[JsonValue, str]:
    """Return the list of rows, and a name for them."""
    if path.suffix in (".yaml", ".yml"):
        raise DataError(f"{path} is a config of promptfoo. {LET_PROMPTFOO.format(path.name)}")
    if path.suffix == ".jsonl":
        return [value for _, value in json_lines(path, WHAT)], path.stem
    value = json_file(path, WHAT)
    whole = value if isinstance(value, dict) else {}
    if "tests" in whole and "results" not in whole:
        raise DataError(f"{path} is a config of promptfoo. {LET_PROMPTFOO.format(path.name)}")
    results, config = whole.get("results"), whole.get("config")
    version = results.get("version") if isinstance(results, dict) else None
    if not isinstance(results, dict) or version != VERSION:
        raise DataError(
            f"{path} is no results file of version {VERSION} (its version is {version!r}). Write "
            "it with `promptfoo eval -o results.json` of a current promptfoo."
        )
    described = config.get("description") if isinstance(config, dict) else None
    return results.get("results"), str(described or path.stem)


def _suite(path: Path, name: str, rows: Sequence[Row]) -> Suite:
    columns = sorted({row.column for row in rows})
    of_test: defaultdict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.test, row.column)):
        of_test[row.test].append(row)
    tests = [_test(some, path) for some in of_test.values()]
    shared = share_scorers(tests)
    cases: list[Example] = []
    findings: list[Finding] = []
    for test, (row, *_) in zip(tests, of_test.values(), strict=True):
        try:
            cases.append(_case(row, shared.expected.get(row.case)))
        except ValueError as failure:
            findings.append(test.problem("prompt", f"{failure}.", LEAVE_OUT))
    suite = Suite(name, str(path), tuple(cases), shared.scorers, base=_base(rows))
    if all(row.provider.id == ECHO for row in rows):
        several = f"The cases have the first of {len(columns)} prompts."
        return replace(
            suite,
            cases=tuple(case for case in cases if case.case_id in shared.expected),
            findings=(*shared.findings, *findings),
            notes=(several,) if len(columns) > 1 else (),
        )
    answers = tuple(
        _answers([row for row in rows if row.column == column], label, cases)
        for column, label in zip(columns, _labels(rows, columns), strict=True)
    )
    scorers = () if shared.findings else shared.scorers
    return replace(
        suite,
        scorers=scorers,
        answers=answers,
        findings=tuple(findings),
        notes=(*_notes(shared), *_agreement(cases, answers, scorers)),
    )


def _test(rows: Sequence[Row], path: Path) -> Test:
    """Return the test that some rows are about, one for each provider and prompt."""
    row = rows[0]
    return Test(
        case=row.case,
        assertions=row.test_case.assertions,
        rendered=dict(pair for row in rows for pair in _rendered(row.grading)),
        options=row.test_case.options or {},
        threshold=row.test_case.threshold,
        file=str(path),
    )


def _rendered(grading: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield the templates in assertions, and each as promptfoo filled it in."""
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


def _case(row: Row, expected: str | None) -> Example:
    described = row.test_case.description
    more = {"description": described} if described else {}
    messages = messages_of(row.prompt.raw)
    return Example.model_validate(
        {"messages": messages, "id": row.case, "expected": expected, **more}
    )


def messages_of(prompt: str) -> tuple[Message, ...]:
    """Return a prompt as messages: a list of them in JSON or YAML, or one of the user.

    Raises:
        ValueError: A message holds more than text, or the prompt is empty.
    """
    try:
        as_yaml = prompt.strip().startswith("- role:")
        value = plain_json(_yaml_list(prompt) if as_yaml else json.loads(prompt))
    except (ValueError, RecursionError, yaml.YAMLError):
        value = None
    turns = value if isinstance(value, list) else []
    if not turns or not all(isinstance(turn, dict) and "role" in turn for turn in turns):
        if not prompt.strip():
            raise ValueError("the prompt is empty")
        return (Message(role="user", content=prompt),)
    try:
        return MESSAGES.validate_python(turns)
    except ValidationError as failure:
        raise ValueError(f"the prompt is no list of texts: {first_problem(failure)}") from failure


def _yaml_list(prompt: str) -> object:
    """Read YAML without aliases, a few of which can stand for more than any memory holds."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(prompt, yaml.SafeLoader)):
        raise ValueError("it has aliases")
    return cast("object", yaml.safe_load(prompt))


def _answers(rows: Sequence[Row], label: str, cases: Sequence[Example]) -> Answers:
    known = {case.case_id for case in cases}
    kept = {row.case: row for row in rows if row.answered and row.case in known}
    return Answers(
        label,
        {case: row.text for case, row in kept.items()},
        {case: {PASSED: float(row.success)} for case, row in kept.items()},
    )


def _labels(rows: Sequence[Row], columns: Sequence[int]) -> list[str]:
    """Return labels of pairs of provider and prompt that differ, and name a prompt if needed."""
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


def _base(rows: Sequence[Row]) -> Base | None:
    """Return the first model that a backend of unitune knows by the same name."""
    for row in rows:
        vendor, _, rest = row.provider.id.partition(":")
        model = rest if vendor == "bedrock" else rest.rpartition(":")[2]
        if base := base_of(vendor, model):
            return base
    return None


def _notes(shared: SharedScorers) -> Iterator[str]:
    yield (
        "The score is promptfoo's own: 1 where it passed an answer. A contender that answers "
        "afresh needs another scorer."
    )
    reasons = Counter(finding.message.partition(": ")[2] for finding in shared.findings)
    for reason, count in reasons.items():
        tests = "1 test" if count == 1 else f"{count} tests"
        yield f"{tests} could be scored by promptfoo alone: {reason}"


def _agreement(
    cases: Sequence[Example], answers: Sequence[Answers], specs: Sequence[Scorer]
) -> Iterator[str]:
    """Note how often unitune's scorers, all of them together, agree with promptfoo."""
    if not specs:
        return
    try:
        scorers = [build(spec) for spec in specs]
    except MissingExtra as missing:
        yield f"unitune's own scorers came along too, and were not compared with it: {missing}"
        return
    scored = [
        (case, model) for model, case in product(answers, cases) if case.case_id in model.texts
    ]
    differing: list[str] = []
    for case, model in scored:
        text = model.texts[case.case_id]
        passed = min(scorer.score(Attempt(case, text)).value for scorer in scorers)
        if passed != model.scores[case.case_id][PASSED]:
            differing.append(f"{model.model} in {case.case_id} ({clip(text, 30)})")
    names = " and ".join(scorer.name for scorer in scorers)
    first = f"; first: {differing[0]}" if differing else ""
    yield (
        f"unitune's {names} came along too, and agrees with promptfoo on "
        f"{len(scored) - len(differing)} of {len(scored)} answers{first}."
    )
