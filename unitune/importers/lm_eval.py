"""Read samples of lm-evaluation-harness (`lm_eval --log_samples`) as a suite.

The answer of a generating task is the unfiltered text, that of a multiple choice the likeliest
choice.

Source: lm_eval 0.4.13, lm_eval/loggers/evaluation_tracker.py and lm_eval/evaluator.py, as
installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from unitune.data.example import MESSAGES, Example, Message
from unitune.errors import DataError
from unitune.files.validation import first_problem
from unitune.importers.suite import (
    Answers,
    Suite,
    as_score,
    base_of,
    json_file,
    json_lines,
    plain_json,
)
from unitune.security.json_fields import whole_text
from unitune.text import clip

# lm-eval's file name; the results file of the same date is in the same folder
NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
WHAT = "samples of lm-eval (`lm_eval … --output_path DIR --log_samples`)"


class Row(BaseModel):
    """One document under one filter; metrics are keys of their own."""

    model_config = ConfigDict(extra="allow")
    doc_id: int
    target: JsonValue
    arguments: dict[str, dict[str, JsonValue]]
    resps: list[JsonValue]
    filter: str = "none"
    metrics: list[str]

    @property
    def scores(self) -> dict[str, float]:
        """Numeric metrics of the document."""
        given = {name: as_score((self.model_extra or {}).get(name)) for name in self.metrics}
        return {
            f"{name},{self.filter}": score for name, score in given.items() if score is not None
        }

    @property
    def choices(self) -> list[str]:
        """Choices of a multiple choice; empty for a generating task."""
        given = [request.get("arg_1") for request in self.arguments.values()]
        return [choice.strip() for choice in given if isinstance(choice, str)]


def read_samples(path: Path) -> Suite:
    """Read ``samples_TASK_DATE.jsonl``; raises `DataError`, also if it has no answers."""
    rows = [(number, _row(path, number, value)) for number, value in json_lines(path, WHAT)]
    if not rows:
        raise DataError(f"{path} is empty; it should be {WHAT}.")
    name = NAME.fullmatch(path.name)
    task = name["task"] if name else path.stem
    cases: dict[str, Example] = {}
    texts: dict[str, str] = {}
    scores: dict[str, dict[str, float]] = {}
    for number, row in rows:
        case = f"{task}-{row.doc_id}"
        if case not in cases:
            try:
                cases[case], texts[case] = _case(row, case), _answer(row)
            except ValueError as failure:
                raise DataError(
                    f"{path}:{number} (document {row.doc_id}) {str(failure).rstrip('.')}. Remove "
                    f"the line, or write the samples again: {WHAT}."
                ) from failure
        scores.setdefault(case, {}).update(row.scores)
    results = _results(path, name["date"] if name else "")
    model = results.get("model_name")
    named = isinstance(model, str) and model
    return Suite(
        name=task,
        file=str(path),
        cases=tuple(cases.values()),
        scorers=(),
        answers=(
            Answers(
                str(model) if named else whole_text(path.parent.name or path.stem), texts, scores
            ),
        ),
        notes=tuple(_notes([row for _, row in rows])),
        base=base_of(results.get("model_source"), model),
    )


def _row(path: Path, number: int, value: JsonValue) -> Row:
    try:
        return Row.model_validate(value)
    except ValidationError as failure:
        raise DataError(
            f"{path}:{number} is not a sample of lm-eval: {first_problem(failure)}. It should be "
            f"{WHAT}."
        ) from failure


def _case(row: Row, case: str) -> Example:
    request = next(iter(row.arguments.values()), dict[str, JsonValue]())
    prompt = request.get("arg_0")
    messages = _messages(prompt)
    if not messages or "arg_1" not in request:
        raise ValueError(
            f"has the prompt {clip(prompt)} but no question; tasks that measure "
            "likelihoods of whole texts have no answers to compare"
        )
    by_index = {str(index): choice for index, choice in enumerate(row.choices)}
    target = by_index.get(str(row.target), row.target)
    expected = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)
    return Example(messages=messages, id=case, expected=expected or None)


def _messages(prompt: JsonValue) -> tuple[Message, ...]:
    """Return a prompt: one string or, after a chat template, JSON messages in a list."""
    if isinstance(prompt, str) and prompt.strip():
        return (Message(role="user", content=prompt),)
    if not (isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str)):
        return ()
    try:
        return MESSAGES.validate_python(plain_json(json.loads(prompt[0])))
    except ValidationError as failure:
        raise ValueError(
            f"has a prompt whose messages cannot be read: {first_problem(failure)}"
        ) from failure
    except (ValueError, RecursionError) as failure:
        raise ValueError(
            f"has the prompt {clip(prompt)}, which is not a JSON list of messages"
        ) from failure


def _answer(row: Row) -> str:
    choices = row.choices
    if not choices:
        return str(_innermost(row.resps))
    likelihoods = [_likelihood(str(_innermost(response))) for response in row.resps]
    if len(likelihoods) != len(choices):
        raise ValueError(f"has {len(likelihoods)} likelihoods for {len(choices)} choices")
    return choices[likelihoods.index(max(likelihoods))]


def _likelihood(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"has the likelihood {clip(text)}, which is not a number") from None


def _innermost(value: JsonValue) -> JsonValue:
    """Return the first response from nested lists of requests and repeats."""
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _results(path: Path, date: str) -> dict[str, JsonValue]:
    file = path.parent / f"results_{date}.json"
    try:
        value = json_file(file, "results of lm-eval") if file.exists() else {}
    except DataError:
        return {}
    return value if isinstance(value, dict) else {}


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        "The scores are lm-eval's. A contender that answers anew needs a scorer of unitune, "
        "such as `exact`."
    )
    if any(row.choices for row in rows):
        yield (
            "For multiple choice, lm-eval requests no answer. The likeliest choice is recorded, "
            "before any normalisation by length."
        )
    repeats = [row.resps[0] for row in rows if row.resps and not row.choices]
    if any(isinstance(responses, list) and len(responses) > 1 for responses in repeats):
        yield "Documents were answered several times. Only the first answers were imported."
