"""Reading rows and rendering them for one model, with a finding for each that it cannot learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from unitune.backends.capabilities import MaskedToken
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.errors import DataError
from unitune.findings import Finding
from unitune_local.batches import TrainingRow
from unitune_local.rendering import Rendered, TemplateError, render, render_all

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
    """Render every row, and sort out those that cannot be learnt from.

    Args:
        tokenizer: Of the base model.
        dataset: The rows.
        longest: Most tokens of a row.
    """
    rows: list[TrainingRow] = []
    findings: list[Finding] = []
    source = iter(dataset.rows)
    while some := list(islice(source, RENDERED_TOGETHER)):
        seen = render_all(tokenizer, [row.example for row in some])
        for row, one in zip(some, seen, strict=True):
            made = _usable(one, row, longest)
            if isinstance(made, TrainingRow):
                rows.append(made)
            else:
                findings.append(made.at(file=dataset.name, line=row.line))
    return RenderedRows(tuple(rows), tuple(findings))


def masked(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[MaskedToken, ...]:
    """Return the tokens of a row as text, with the mask that training puts on them.

    Args:
        tokenizer: Of the base model.
        example: The row.

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
    made = TrainingRow(tuple(seen.ids), tuple(seen.trained), row.example.weight, row.line)
    if len(made.ids) > longest:
        return Finding(
            severity="error",
            code="too-long",
            message=f"the row has {len(made.ids)} tokens; {longest} are allowed.",
            fix="Shorten it, or raise tuning.sequence_length as far as the model goes.",
        )
    if made.trained_tokens == 0 or made.weight == 0:
        return Finding(
            severity="warning",
            code="nothing-to-learn",
            message="the row has no token that carries loss, so it is left out.",
            fix="Give it an assistant turn and a weight above 0.",
        )
    return made
