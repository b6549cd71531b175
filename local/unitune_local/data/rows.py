"""A data file as a model sees it: rows rendered, those left out from which nothing can be learnt.

Rows of rated answers get another row's answer behind their own, which shows how answers fare that
have nothing to do with the prompt.
"""

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
from unitune.data.example import Example
from unitune.errors import DataError
from unitune.findings import Finding, error, note, warning
from unitune_local.data.batches import Fork, TrainingRow
from unitune_local.data.chat_text import TemplateError
from unitune_local.data.rendering import Rendered, render, render_all, render_prompt, text_ids
from unitune_local.settings import Overlength, Settings

RENDERED_TOGETHER = 256  # rows whose texts the tokenizer is given in one call


class RenderedRows(NamedTuple):
    """A data file as a model sees it.

    Args:
        rows: Those that can be learnt from; a row may make several, one for each trained turn.
        findings: One for each that cannot, and why.
    """

    rows: tuple[TrainingRow, ...]
    findings: tuple[Finding, ...]


def read_rows(path: Path) -> Dataset:
    """Return the examples of a canonical JSON Lines file, as a run holds them."""
    return Dataset(path.name, tuple(row for part in read_parts(path) for row in part.rows))


def read_parts(path: Path) -> Iterator[Dataset]:
    """Yield the examples of a file, some at a time, which takes little memory."""
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
    """Render every row, and sort out those that cannot be learnt from."""
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
            "since the chat template writes earlier turns differently when more follows."
        )
        told = "Each trained turn then has a sample with the text that inference sees before it."
        findings = (*findings, note("samples", what, told).at(file=dataset.name))
    if any(row.is_good is not None for row in rows):
        rows = _with_other_answers(rows, longest)
    return RenderedRows(rows, findings)


def render_texts(
    tokenizer: PreTrainedTokenizerBase, dataset: Dataset, longest: int
) -> RenderedRows:
    """Tokenise raw texts, each ended by the tokenizer's end of text, and cut them to what fits."""
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
    """Render the rows of a training, as its settings say."""
    longest = settings.sequence_length
    if settings.raw_text:
        return render_texts(tokenizer, dataset, longest)
    rendering = render_rows if settings.reward is None else render_prompts
    return rendering(tokenizer, dataset, longest, settings.overlength)


def render_prompts(
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    longest: int,
    overlength: Overlength = "refuse",
) -> RenderedRows:
    """Render what answers are sampled to, and sort out rows that leave no room for one."""
    made = [[_prompt(tokenizer, row)] for row in dataset.rows]
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
        fix = "Raise tuning.sequence_length as far as the model goes, to learn them whole."
        findings.append(dataset.located(warning("too-long", what, fix), lines[0]))
    return RenderedRows(tuple(rows), tuple(dict.fromkeys(findings)))


def _length(row: TrainingRow) -> int:
    """Return the tokens of the longest conversation of a row; a prompt gets one more, to answer."""
    return max(len(side.ids) for side in row.conversations) + (row.case is not None)


def _truncated(row: TrainingRow, longest: int) -> TrainingRow | None:
    """Return a row without the end of its answers; None where nothing of one of them is left."""
    start = (*row.trained, True).index(True) if row.fork is None else row.fork.better
    if row.case is not None or start >= longest:
        return None
    sides = [side.ids[:longest] for side in row.conversations]
    if row.fork is None:
        return replace(row, ids=sides[0], trained=row.trained[:longest])
    ids = (*sides[0], *sides[1][start:])
    trained = tuple(at >= start for at in range(len(ids)))
    return replace(row, ids=ids, trained=trained, fork=Fork(start, len(sides[0])))


def _prompt(tokenizer: PreTrainedTokenizerBase, row: Row) -> TrainingRow | Finding:
    case = row.example
    try:
        ids = render_prompt(tokenizer, case.prompt, case.tools)
    except TemplateError as refusal:
        return error("template", refusal.problem, refusal.fix)
    return TrainingRow(tuple(ids), (False,) * len(ids), case.weight, row.line, case=case)


def _with_other_answers(rows: Sequence[TrainingRow], longest: int) -> tuple[TrainingRow, ...]:
    """Return rated rows, each with the answer of the next behind its own, cut to what fits."""
    starts = [row.trained.index(True) for row in rows]
    paired: list[TrainingRow] = []
    for at, (row, start) in enumerate(zip(rows, starts, strict=True)):
        following = (at + 1) % len(rows)
        answer = rows[following].ids[starts[following] :][: longest - start]
        paired.append(replace(row.followed_by(answer), fork=Fork(start, len(row.ids))))
    return tuple(paired)


def scored_cases(validation: Dataset) -> list[Example]:
    """Return the rows whose answer is one to give: of rated ones (kto) the good alone."""
    return [row.example for row in validation.rows if row.example.kto_tag is not False]


def masked(
    tokenizer: PreTrainedTokenizerBase, example: Example, *, raw_text: bool = False
) -> tuple[MaskedToken, ...]:
    """Return the tokens of a row as text, with the mask that training puts on them.

    Raises:
        DataError: The template cannot carry it.
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
        what = f"the prompt has {len(row.ids)} tokens, and an answer needs one at least"
    return error(
        "too-long",
        f"{what}; {longest} are allowed.",
        "Shorten it, raise tuning.sequence_length as far as the model goes, or set "
        "tuning.overlength to drop or truncate.",
    )
