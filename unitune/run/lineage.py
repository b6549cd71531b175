"""What a run has gone on from, and what goes on from it: the chain of its trainings.

A run keeps what it started from (`unitune.models.Start`), so a chain is told as far as its runs are
in the ledger, and names the first that is not.
"""

from __future__ import annotations

from typing import NamedTuple

from unitune.backends.protocol import State
from unitune.errors import NotFoundError
from unitune.ledger import Ledger, RunRecord


class Link(NamedTuple):
    """A training of a chain; of one that is not in the ledger only its name is known."""

    name: str  # id of the run, or the model's name at its backend
    method: str | None = None
    state: State | None = None


class Lineage(NamedTuple):
    """The chain that a run stands in."""

    ancestors: tuple[Link, ...]
    """What it has gone on from, the first training first."""
    continuations: tuple[Link, ...]
    """The runs that go on from it, the newest first."""


def lineage(ledger: Ledger, record: RunRecord) -> Lineage:
    """Return the chain that a run stands in."""
    after = tuple(map(_link, ledger.continuations(record.id)))
    before = (
        Link(each) if isinstance(each, str) else _link(each)
        for each in reversed(ancestors(ledger, record))
    )
    return Lineage(tuple(before), after)


def ancestors(ledger: Ledger, record: RunRecord) -> list[RunRecord | str]:
    """Return the runs that a run has gone on from, the nearest first; by name where not here."""
    chain: list[RunRecord | str] = []
    while record.start is not None:
        if record.start.run is None:
            return [*chain, record.start.model.name]
        try:
            record = ledger.record(record.start.run)
        except NotFoundError:
            return [*chain, record.start.run]
        chain.append(record)
    return chain


def _link(record: RunRecord) -> Link:
    return Link(record.id, record.method, record.state)
