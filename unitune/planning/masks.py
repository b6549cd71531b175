"""Show which tokens of a row are trained on, before anything is paid for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from unitune.backends.capabilities import MaskedToken, ShowsLossMask
from unitune.cost.tokens.by_encoding import tiktoken_encoding
from unitune.cost.tokens.counter import family_of
from unitune.data.example import Example, Message
from unitune.errors import DataError
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob, preflight


@dataclass(frozen=True, slots=True)
class MaskedRow:
    """One training row with its loss mask."""

    line: int  # in the training file
    pieces: tuple[MaskedToken, ...]  # tokens in order, or whole texts without a tokenizer
    problem: str = ""  # reason why the row cannot be trained on, or empty


@dataclass(frozen=True, slots=True)
class Audit:
    """Loss masks of the first rows of a training file."""

    rows: tuple[MaskedRow, ...]
    basis: str


def audit(job: Job | ResolvedJob, count: int) -> Audit:
    """Return the loss masks of the first training rows. Raises DataError or MissingExtra."""
    resolved = preflight(job)
    job, rows = resolved.job, resolved.splits.train.rows[:count]
    if resolved.offer.trains_here and isinstance(resolved.backend, ShowsLossMask):
        backend, shown = resolved.backend, list[MaskedRow]()
        for row in rows:
            try:
                shown.append(MaskedRow(row.line, backend.loss_mask(job, row.example)))
            except DataError as problem:
                shown.append(MaskedRow(row.line, (), str(problem)))
        return Audit(tuple(shown), "the model's own tokenizer")
    family = family_of(job.base_model)
    encoding = family.encoding if family else None
    cut = encoding or "whole texts: this model's tokenizer is not on this machine"
    masked = (MaskedRow(row.line, tuple(_pieces(row.example, encoding))) for row in rows)
    return Audit(tuple(masked), f"{cut}; the vendor's own template is not shown")


def _pieces(example: Example, encoding: str | None) -> Iterator[MaskedToken]:
    last = len(example.messages) - 1
    for at, turn in enumerate(example.messages):
        learnt = turn.role == "assistant" and turn.weight != 0 and example.weight > 0
        # In a preference row, only the two answers are compared with each other.
        learnt = learnt and (example.non_preferred_output is None or at == last)
        yield from _turn(turn.role, turn, encoding, learnt=learnt)
    for worse in example.non_preferred_output or ():
        yield from _turn("assistant, not preferred", worse, encoding, learnt=True)


def _turn(
    label: str, turn: Message, encoding: str | None, *, learnt: bool
) -> Iterator[MaskedToken]:
    yield MaskedToken(f"{label}: ", trained=False, heading=True)
    calls = (str(call) for call in turn.tool_calls or ())
    text = "".join((turn.reasoning_content or "", turn.text, *calls))
    for piece in _cut(text, encoding):
        yield MaskedToken(piece, trained=learnt)


def _cut(text: str, encoding: str | None) -> Iterable[str]:
    """Return the tokens of a text. Tokens that are not whole characters are joined."""
    if encoding is None or not text:
        return (text,)
    tokens = tiktoken_encoding(encoding)
    whole, starts = tokens.decode_with_offsets(tokens.encode_ordinary(text))
    ends = (*starts[1:], len(whole))
    return [whole[start:end] for start, end in zip(starts, ends, strict=True) if end > start]
