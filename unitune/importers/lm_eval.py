"""Samples of lm-evaluation-harness (`lm_eval --log_samples`) as a suite: `read_samples`.

A file holds one model's answers to the documents of one task, with the task's metrics, which come
along as they are under lm-eval's own names (``exact_match,strict-match``: metric, filter). The
answer of a generating task is what the model said, before any filter; that of a multiple choice is
the choice that it found likeliest.

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
from unitune.findings import clip
from unitune.importers.foreign import json_file, json_lines, plain_data
from unitune.importers.suite import Answers, Base, Suite
from unitune.security.json_fields import whole_text

NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")
"""How lm-eval names the file; the results of the same date stand beside it."""


LARGEST = 1e300
"""Of a metric, which is a share or a count; a whole number of more digits is no float."""


class Row(BaseModel):
    """One document under one filter; each metric stands under its own name."""

    model_config = ConfigDict(extra="allow")
    doc_id: int
    target: JsonValue
    arguments: dict[str, dict[str, JsonValue]]
    resps: list[JsonValue]
    filter: str = "none"
    metrics: list[str]

    @property
    def scores(self) -> dict[str, float]:
        """The metrics that are a figure for one document."""
        given = {name: (self.model_extra or {}).get(name) for name in self.metrics}
        return {
            f"{name},{self.filter}": float(value)
            for name, value in given.items()
            if isinstance(value, bool | int | float) and abs(value) <= LARGEST
        }


def read_samples(path: Path) -> Suite:
    """Read a file of samples.

    Args:
        path: ``samples_TASK_DATE.jsonl``.

    Raises:
        DataError: It cannot be read, is something else, or holds likelihoods and no answers.
    """
    what = "samples of lm-eval (`lm_eval … --output_path DIR --log_samples`)"
    rows = [(number, _row(path, number, value)) for number, value in json_lines(path, what)]
    if not rows:
        raise DataError(f"{path} is empty; it should be {what}.")
    found = NAME.fullmatch(path.name)
    task = found["task"] if found else path.stem
    cases: dict[str, Example] = {}
    texts: dict[str, str] = {}
    scores: dict[str, dict[str, float]] = {}
    for number, row in rows:
        case = f"{task}-{row.doc_id}"
        if case not in cases:
            try:
                cases[case] = _case(row, case)
                texts[case] = _answer(row)
            except (ValueError, LookupError) as failure:
                raise DataError(
                    f"{path}:{number} (document {row.doc_id}) {_words(failure)}. Leave the line "
                    "out, or write the samples anew with `lm_eval … --output_path DIR "
                    "--log_samples`."
                ) from failure
        scores.setdefault(case, {}).update(row.scores)
    results = _results(path, found["date"] if found else "")
    return Suite(
        name=task,
        file=str(path),
        cases=tuple(cases.values()),
        scorers=(),
        answers=(Answers(_model(path, results), texts, scores),),
        notes=tuple(_notes([row for _, row in rows])),
        base=_base(results),
    )


def _row(path: Path, number: int, value: JsonValue) -> Row:
    try:
        return Row.model_validate(value)
    except ValidationError as failure:
        first = failure.errors()[0]
        raise DataError(
            f"{path}:{number} is no sample of lm-eval: "
            f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}. Write samples with "
            "`lm_eval … --output_path DIR --log_samples`."
        ) from failure


def _words(failure: Exception) -> str:
    if isinstance(failure, ValidationError):
        first = failure.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"has a prompt whose messages cannot be read: {where}: {first['msg']}"
    return str(failure).rstrip(".")


def _case(row: Row, case: str) -> Example:
    """Return what was asked.

    Raises:
        ValueError: Nothing that can be read was.
    """
    asked = next(iter(row.arguments.values())) if row.arguments else {}
    prompt = asked.get("arg_0")
    messages = _messages(prompt)
    if not messages or "arg_1" not in asked:
        raise ValueError(
            f"has the prompt {clip(prompt)} and no question to answer; tasks that measure "
            "likelihoods of whole texts have no answers to compare"
        )
    expected = _expected(row)
    return Example(messages=messages, id=case, expected=expected or None)


def _messages(prompt: JsonValue) -> tuple[Message, ...] | None:
    """Return a prompt: one text, or, after a chat template, messages as JSON in a list."""
    if isinstance(prompt, str) and prompt.strip():
        return (Message(role="user", content=prompt),)
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        try:
            turns = plain_data(json.loads(prompt[0]))
        except (ValueError, RecursionError) as failure:
            raise ValueError(
                f"has the prompt {clip(prompt)}, which is no list of messages in JSON"
            ) from failure
        return MESSAGES.validate_python(turns)
    return None


def _choices(row: Row) -> list[str]:
    """Return the choices of a multiple choice; none for a generating task."""
    given = [asked.get("arg_1") for asked in row.arguments.values()]
    return [choice.strip() for choice in given if isinstance(choice, str)]


def _expected(row: Row) -> str:
    choices = _choices(row)
    by_index = {str(index): choice for index, choice in enumerate(choices)}
    if str(row.target) in by_index:
        return by_index[str(row.target)]
    return row.target if isinstance(row.target, str) else json.dumps(row.target, ensure_ascii=False)


def _answer(row: Row) -> str:
    choices = _choices(row)
    if not choices:
        return str(_innermost(row.resps))
    likelihoods = [_likelihood(answered) for answered in row.resps]
    if len(likelihoods) != len(choices):
        raise ValueError(f"has {len(likelihoods)} likelihoods for {len(choices)} choices")
    return choices[likelihoods.index(max(likelihoods))]


def _likelihood(answered: JsonValue) -> float:
    told = str(_innermost(answered))
    try:
        return float(told)
    except ValueError:
        raise ValueError(f"has the likelihood {clip(told)}, which is no number") from None


def _innermost(value: JsonValue) -> JsonValue:
    """Return the first answer; each document has a list of requests, each with its repeats."""
    while isinstance(value, list) and value:
        value = value[0]
    return value


def _results(path: Path, date: str) -> dict[str, JsonValue]:
    """Return what lm-eval wrote beside the samples; nothing when it is not there."""
    file = path.parent / f"results_{date}.json"
    if not file.exists():
        return {}
    try:
        value = json_file(file, "results of lm-eval")
    except DataError:
        return {}
    return value if isinstance(value, dict) else {}


def _model(path: Path, results: dict[str, JsonValue]) -> str:
    name = results.get("model_name")
    return name if isinstance(name, str) and name else whole_text(path.parent.name or path.stem)


def _base(results: dict[str, JsonValue]) -> Base | None:
    name = results.get("model_name")
    local = results.get("model_source") in ("hf", "vllm", "sglang")
    return Base("local", name) if local and isinstance(name, str) and name else None


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        "The scores are lm-eval's own. A contender that is asked afresh needs a scorer of "
        "unitune's, such as `exact`."
    )
    if any(_choices(row) for row in rows):
        yield (
            "In a multiple choice lm-eval asks for no answer; recorded is the choice that was "
            "likeliest, before any normalisation by length."
        )
    if any(_repeated(row) for row in rows):
        yield "Documents were answered several times; the first answer came along."


def _repeated(row: Row) -> bool:
    answered = row.resps[0] if row.resps else None
    return not _choices(row) and isinstance(answered, list) and len(answered) > 1
