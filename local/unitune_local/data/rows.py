"""A data file as a model sees it: rows rendered, those left out from which nothing can be learnt.

Rows of rated answers get another row's answer behind their own, which shows how answers fare that
have nothing to do with the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from unitune.backends.capabilities import MaskedToken
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.errors import DataError
from unitune.findings import Finding
from unitune_local.data.batches import Fork, TrainingRow
from unitune_local.data.rendering import (
    Rendered,
    TemplateError,
    render,
    render_all,
    render_prompt,
)

RENDERED_TOGETHER = 256
"""Rows whose texts the tokenizer is given in one call."""


@dataclass(frozen=True, slots=True)
class RenderedRows:
    """A data file as a model sees it.

    Args:
        rows: Those that can be learnt from.
        findings: One for each that cannot, and why.
    """

    rows: tuple[TrainingRow, ...]
    findings: tuple[Finding, ...]


def read_rows(path: Path) -> Dataset:
    """Return the examples of a canonical JSON Lines file, as a run holds them."""
    with path.open(encoding="utf-8") as file:
        return Dataset(
            path.name,
            tuple(
                Row(number, Example.model_validate_json(line))
                for number, line in enumerate(file, 1)
            ),
        )


def render_rows(tokenizer: PreTrainedTokenizerBase, dataset: Dataset, longest: int) -> RenderedRows:
    """Render every row, and sort out those that cannot be learnt from."""
    rows: list[TrainingRow] = []
    findings: list[Finding] = []
    source = iter(dataset.rows)
    while some := list(islice(source, RENDERED_TOGETHER)):
        seen = render_all(tokenizer, [row.example for row in some])
        for row, rendered in zip(some, seen, strict=True):
            made = _usable(rendered, row, longest)
            if isinstance(made, TrainingRow):
                rows.append(made)
            else:
                findings.append(dataset.located(made, row))
    if any(row.is_good is not None for row in rows):
        rows = _with_other_answers(rows, longest)
    return RenderedRows(tuple(rows), tuple(findings))


def render_prompts(
    tokenizer: PreTrainedTokenizerBase, dataset: Dataset, longest: int
) -> RenderedRows:
    """Render what answers are sampled to, and sort out rows that leave no room for one."""
    rows: list[TrainingRow] = []
    findings: list[Finding] = []
    for row in dataset.rows:
        made = _prompt(tokenizer, row, longest)
        if isinstance(made, TrainingRow):
            rows.append(made)
        else:
            findings.append(dataset.located(made, row))
    return RenderedRows(tuple(rows), tuple(findings))


def _prompt(tokenizer: PreTrainedTokenizerBase, row: Row, longest: int) -> TrainingRow | Finding:
    case = row.example
    try:
        ids = render_prompt(tokenizer, case.prompt, case.tools)
    except TemplateError as error:
        return Finding(severity="error", code="template", message=error.problem, fix=error.fix)
    if len(ids) >= longest:
        return _too_long(len(ids), longest, "prompt")
    return TrainingRow(tuple(ids), (False,) * len(ids), case.weight, row.line, case=case)


def _with_other_answers(rows: Sequence[TrainingRow], longest: int) -> list[TrainingRow]:
    """Return rated rows, each with the answer of the next behind its own, cut to what fits."""
    starts = [row.trained.index(True) for row in rows]
    paired: list[TrainingRow] = []
    for at, (row, start) in enumerate(zip(rows, starts, strict=True)):
        following = (at + 1) % len(rows)
        answer = rows[following].ids[starts[following] :][: longest - start]
        paired.append(
            replace(
                row,
                ids=row.ids + answer,
                trained=row.trained + (True,) * len(answer),
                fork=Fork(start, len(row.ids)),
            )
        )
    return paired


def scored_cases(validation: Dataset) -> list[Example]:
    """Return the rows whose answer is one to give: of rated ones (kto) the good alone."""
    return [row.example for row in validation.rows if row.example.kto_tag is not False]


def masked(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[MaskedToken, ...]:
    """Return the tokens of a row as text, with the mask that training puts on them.

    Raises:
        DataError: The template cannot carry it.
    """
    try:
        seen = render(tokenizer, example)
    except TemplateError as error:
        raise DataError(str(error)) from error
    decode: Callable[[list[int]], str] = cast("Any", tokenizer).decode  # has no types
    return tuple(
        MaskedToken(decode([index]), trained=on and example.weight > 0)
        for index, on in zip(seen.ids, seen.trained, strict=True)
    )


def _usable(seen: Rendered | TemplateError, row: Row, longest: int) -> TrainingRow | Finding:
    if isinstance(seen, TemplateError):
        return Finding(severity="error", code="template", message=seen.problem, fix=seen.fix)
    made = TrainingRow(
        ids=tuple(seen.ids),
        trained=tuple(seen.trained),
        weight=row.example.weight,
        line=row.line,
        fork=seen.fork,
        is_good=row.example.kto_tag,
    )
    length = max(len(side.ids) for side in made.conversations)
    if length > longest:
        return _too_long(length, longest, "row")
    if made.trained_tokens == 0 or made.weight == 0:
        return Finding(
            severity="warning",
            code="nothing-to-learn",
            message="the row has no token that carries loss, so it is left out.",
            fix="Give it an assistant turn and a weight above 0.",
        )
    return made


def _too_long(length: int, longest: int, what: str) -> Finding:
    return Finding(
        severity="error",
        code="too-long",
        message=f"the {what} has {length} tokens; {longest} are allowed.",
        fix="Shorten it, or raise tuning.sequence_length as far as the model goes.",
    )
