"""Which tokens of a row a training learns: the mask, to be looked at before anything is paid.

Backends that train on what is sent learn the assistant turns, except those of weight 0; a backend
that trains here says itself what carries loss (`ShowsLossMask`). Texts are cut into tokens where
the model's encoding is here; elsewhere they stay whole, which is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from unitune.backends.capabilities import MaskedToken, ShowsLossMask
from unitune.cost.tokens.counter import family_of
from unitune.cost.tokens.encoding import tiktoken_encoding
from unitune.data.dataset import Row
from unitune.data.example import Example, Message
from unitune.errors import DataError
from unitune.job.job import Job
from unitune.planning.preflight import ResolvedJob, preflight


@dataclass(frozen=True, slots=True)
class MaskedRow:
    """One row as a training sees it.

    Args:
        line: Of the training file.
        pieces: Tokens in order, or whole texts where no tokenizer is here.
        problem: Why it cannot be learnt from; empty where it can.
    """

    line: int
    pieces: tuple[MaskedToken, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """The rows that were looked at.

    Args:
        rows: In the file's order.
        basis: What cut the texts, for people.
    """

    rows: tuple[MaskedRow, ...]
    basis: str


def audit(job: Job | ResolvedJob, count: int) -> Audit:
    """Return the first training rows with what is learnt of them.

    Args:
        job: What to tune and how.
        count: How many rows.

    Raises:
        DataError: The data cannot be used.
        MissingExtra: The backend trains here, and its packages are not installed.
    """
    resolved = preflight(job)
    job, rows = resolved.job, resolved.splits.train.rows[:count]
    if resolved.offer.training_price == "none" and isinstance(resolved.backend, ShowsLossMask):
        backend = resolved.backend
        return Audit(tuple(_asked(backend, job, row) for row in rows), "the model's own tokenizer")
    family = family_of(job.base_model)
    encoding = family.encoding if family else None
    cut = encoding or "whole texts: the tokenizer of this model is not on this machine"
    found = (MaskedRow(row.line, tuple(_pieces(row.example, encoding))) for row in rows)
    return Audit(tuple(found), f"{cut}; the vendor's own template is not shown")


def _asked(backend: ShowsLossMask, job: Job, row: Row) -> MaskedRow:
    try:
        return MaskedRow(row.line, backend.loss_mask(job, row.example))
    except DataError as problem:
        return MaskedRow(row.line, (), str(problem))


def _pieces(example: Example, encoding: str | None) -> Iterator[MaskedToken]:
    """Yield the pieces of a row at a vendor: which turns carry loss is all that is known."""
    last = len(example.messages) - 1
    for at, turn in enumerate(example.messages):
        learnt = turn.role == "assistant" and turn.weight != 0 and example.weight > 0
        # Of a preference row the answers alone are weighed against each other.
        learnt = learnt and (example.non_preferred_output is None or at == last)
        yield from _turn(turn, encoding, learnt=learnt)
    for worse in example.non_preferred_output or ():
        yield from _turn(worse, encoding, learnt=True, label="assistant, not preferred")


def _turn(
    turn: Message, encoding: str | None, *, learnt: bool, label: str | None = None
) -> Iterator[MaskedToken]:
    yield MaskedToken(f"{label or turn.role}: ", trained=False, heading=True)
    text = turn.text + "".join(str(call) for call in turn.tool_calls or ())
    for piece in _cut(text, encoding):
        yield MaskedToken(piece, trained=learnt)


def _cut(text: str, encoding: str | None) -> Iterable[str]:
    """Return the tokens of a text as text; those that are no whole characters stand together."""
    if encoding is None or not text:
        return (text,)
    cutter = tiktoken_encoding(encoding)
    whole, starts = cutter.decode_with_offsets(cutter.encode_ordinary(text))
    ends = (*starts[1:], len(whole))
    return [whole[start:end] for start, end in zip(starts, ends, strict=True) if end > start]
