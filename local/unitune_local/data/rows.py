"""Render a data file as token ids, and report the rows that cannot be learnt from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from unitune.backends.capabilities import MaskedToken
from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example, Message
from unitune.data.tools import opening
from unitune.errors import DataError
from unitune.findings import Finding, error, note, warning
from unitune.models import function_call
from unitune_local.data.batches import Fork, TrainingRow
from unitune_local.data.chat_text import TemplateError
from unitune_local.data.rendering import (
    Rendered,
    render,
    render_all,
    render_prompt,
    result_ids,
    text_ids,
)
from unitune_local.settings import Overlength, Settings

RENDERED_TOGETHER = 256  # rows tokenised in one call


class RenderedRows(NamedTuple):
    """Rows of a data file, one for each sample, and reasons for leaving out others."""

    rows: tuple[TrainingRow, ...]
    findings: tuple[Finding, ...]


def read_rows(path: Path) -> Dataset:
    """Return the examples of a canonical JSON Lines file, as a run stores them."""
    return Dataset(path.name, tuple(row for part in read_parts(path) for row in part.rows))


def read_parts(path: Path) -> Iterator[Dataset]:
    """Yield the examples of a file in parts, which saves memory."""
    with path.open(encoding="utf-8") as file:
        rows = (Row(*each) for each in enumerate(map(Example.model_validate_json, file), 1))
        while part := tuple(islice(rows, RENDERED_TOGETHER)):
            yield Dataset(path.name, part)


def render_rows(
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    longest: int,
    overlength: Overlength = "refuse",
) -> RenderedRows:
    """Render every row, and separate those that cannot be learnt from."""
    made: list[list[TrainingRow | Finding]] = []
    source = iter(dataset.rows)
    while some := list(islice(source, RENDERED_TOGETHER)):
        seen = render_all(tokenizer, [row.example for row in some])
        for samples, row in zip(seen, some, strict=True):
            each = [samples] if isinstance(samples, TemplateError) else samples
            made.append([_usable(sample, row) for sample in each])
    rows, findings = _sorted_out(dataset, made, longest, overlength)
    if several := [len(each) for each in made if len(each) > 1]:
        what = (
            f"{len(several):,} of {len(made):,} rows are trained as {sum(several):,} samples, "
            "since the chat template changes earlier turns when more turns follow."
        )
        told = "Each trained turn has its own sample, with the text that inference sees before it."
        findings = (*findings, note("samples", what, told).at(file=dataset.name))
    if any(row.is_good is not None for row in rows):
        rows = _with_other_answers(rows, longest)
    return RenderedRows(rows, findings)


def render_texts(
    tokenizer: PreTrainedTokenizerBase, dataset: Dataset, longest: int
) -> RenderedRows:
    """Tokenise raw texts, end each with the end-of-text token, and cut them to what fits."""
    rows: list[TrainingRow] = []
    end = tokenizer.eos_token_id
    for row in dataset.rows:
        ids = text_ids(tokenizer, row.example.prompt[0].text)
        ids += [end] if isinstance(end, int) else []
        pieces = [tuple(ids[at : at + longest]) for at in range(0, len(ids), longest)]
        rows += [
            TrainingRow(piece, (False,) + (True,) * (len(piece) - 1), row.example.weight, row.line)
            for piece in pieces
            if len(piece) > 1 and row.example.weight
        ]
    return RenderedRows(tuple(rows), ())


def rows_of(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, dataset: Dataset
) -> RenderedRows:
    """Render the rows of a training according to its settings."""
    longest = settings.sequence_length
    if settings.raw_text:
        return render_texts(tokenizer, dataset, longest)
    if settings.reward is None:
        return render_rows(tokenizer, dataset, longest, settings.overlength)
    has_turns = settings.reward.max_turns is not None
    return render_prompts(tokenizer, dataset, longest, settings.overlength, has_turns=has_turns)


def render_prompts(
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    longest: int,
    overlength: Overlength = "refuse",
    *,
    has_turns: bool = False,
) -> RenderedRows:
    """Render the prompts for sampled answers, and separate rows without room for an answer.

    With `has_turns`, a prompt is the beginning of a dialogue.
    """
    made = [[_prompt(tokenizer, row, has_turns=has_turns)] for row in dataset.rows]
    return _sorted_out(dataset, made, longest, overlength)


def _sorted_out(
    dataset: Dataset,
    made: Iterable[list[TrainingRow | Finding]],
    longest: int,
    overlength: Overlength,
) -> RenderedRows:
    rows, findings, lines = list[TrainingRow](), list[Finding](), list[Row]()
    cut = 0
    pairs = [(each, row) for some, row in zip(made, dataset.rows, strict=True) for each in some]
    for each, row in pairs:
        if isinstance(each, Finding):
            findings.append(dataset.located(each, row))
        elif (length := _length(each)) <= longest:
            rows.append(each)
        elif overlength == "refuse":
            findings.append(dataset.located(_too_long(length, longest, each), row))
        else:
            lines.append(row)
            if overlength == "truncate" and (rest := _truncated(each, longest)) is not None:
                rows.append(rest)
                cut += 1
    if lines:
        kind = "rows" if len(pairs) == len(dataset) else "samples"
        what = f"{len(lines):,} of {len(pairs):,} {kind} are longer than {longest:,} tokens: "
        what += f"{cut:,} are cut at their end, {len(lines) - cut:,} are left out."
        fix = "To train on them in full, raise tuning.sequence_length, up to the model's maximum."
        findings.append(dataset.located(warning("too-long", what, fix), lines[0]))
    return RenderedRows(tuple(rows), tuple(dict.fromkeys(findings)))


def _length(row: TrainingRow) -> int:
    """Return the tokens of a row's longest conversation; a prompt needs one more, to answer."""
    return max(len(side.ids) for side in row.conversations) + (row.case is not None)


def _truncated(row: TrainingRow, longest: int) -> TrainingRow | None:
    """Return a row with truncated answers, or None if nothing of an answer is left."""
    start = row.prompt_length if row.fork is None else row.fork.better
    if row.case is not None or start >= longest:
        return None
    sides = [side.ids[:longest] for side in row.conversations]
    if row.fork is None:
        return replace(row, ids=sides[0], trained=row.trained[:longest])
    ids = (*sides[0], *sides[1][start:])
    trained = tuple(at >= start for at in range(len(ids)))
    return replace(row, ids=ids, trained=trained, fork=Fork(start, len(sides[0])))


def _prompt(
    tokenizer: PreTrainedTokenizerBase, row: Row, *, has_turns: bool
) -> TrainingRow | Finding:
    case = row.example
    prompt = opening(case).prompt if has_turns else case.prompt
    try:
        ids = render_prompt(tokenizer, prompt, case.tools)
        if has_turns and case.tools:
            call = Message(role="assistant", tool_calls=(function_call("a", {}, "call00000"),))
            result = Message(role="tool", tool_call_id="call00000", content="result")
            result_ids(tokenizer, prompt, call, [result], case.tools)
    except TemplateError as refusal:
        return error("template", refusal.problem, refusal.fix)
    return TrainingRow(tuple(ids), (False,) * len(ids), case.weight, row.line, case=case)


def _with_other_answers(rows: Sequence[TrainingRow], longest: int) -> tuple[TrainingRow, ...]:
    """Append the answer of the next rated row to each, cut to what fits."""
    starts = [row.prompt_length for row in rows]
    paired: list[TrainingRow] = []
    for at, (row, start) in enumerate(zip(rows, starts, strict=True)):
        following = (at + 1) % len(rows)
        answer = rows[following].ids[starts[following] :][: longest - start]
        paired.append(replace(row.followed_by(answer), fork=Fork(start, len(row.ids))))
    return tuple(paired)


def scored_cases(validation: Dataset) -> list[Example]:
    """Return the rows with an answer to imitate: of rated ones (kto), only the good."""
    return [row.example for row in validation.rows if row.example.kto_tag is not False]


def masked(
    tokenizer: PreTrainedTokenizerBase, example: Example, *, raw_text: bool = False
) -> tuple[MaskedToken, ...]:
    """Return the tokens of a row as text, with their loss mask.

    Raises:
        DataError: The template cannot represent the row.
    """
    try:
        if raw_text:
            seen = render_texts(tokenizer, Dataset("", (Row(1, example),)), sys.maxsize).rows
        else:
            seen = render(tokenizer, example)
    except TemplateError as refusal:
        raise DataError(str(refusal)) from refusal
    decode: Callable[[list[int]], str] = cast("Any", tokenizer).decode  # has no types
    return tuple(
        MaskedToken(decode([index]), trained=bool(on) and example.weight > 0)
        for sample in seen
        for index, on in zip(sample.ids, sample.trained, strict=True)
    )


def _usable(seen: Rendered | TemplateError, row: Row) -> TrainingRow | Finding:
    if isinstance(seen, TemplateError):
        return error("template", seen.problem, seen.fix)
    made = TrainingRow(
        ids=tuple(seen.ids),
        trained=tuple(seen.trained),
        weight=row.example.weight,
        line=row.line,
        fork=seen.fork,
        is_good=row.example.kto_tag,
    )
    if made.trained_tokens == 0 or made.weight == 0:
        what = "the row has no token that carries loss, so it is left out."
        return warning("nothing-to-learn", what, "Give it an assistant turn and a weight above 0.")
    return made


def _too_long(length: int, longest: int, row: TrainingRow) -> Finding:
    what = f"the row has {length} tokens"
    if row.case is not None:
        what = f"the prompt has {len(row.ids)} tokens, and an answer needs at least one"
    return error(
        "too-long",
        f"{what}; {longest} are allowed.",
        "Shorten it, raise tuning.sequence_length up to the model's maximum, or set "
        "tuning.overlength to drop or truncate.",
    )
