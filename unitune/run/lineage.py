"""Find the runs that a run continues from and those that continue from it.

The ancestors end with the first one that is not in the ledger.
"""

from __future__ import annotations

from typing import NamedTuple

from unitune.backends.protocol import State
from unitune.errors import NotFoundError
from unitune.ledger import Ledger, RunRecord


class Link(NamedTuple):
    """A training of the chain; only its name is known if the ledger lacks it."""

    name: str  # id of the run, or the model's name at its backend
    method: str | None = None
    state: State | None = None


class Lineage(NamedTuple):
    """The chain of trainings of a run."""

    ancestors: tuple[Link, ...]
    """Trainings that it continues from, the first one first."""
    continuations: tuple[Link, ...]
    """Runs that continue from it, newest first."""


def lineage(ledger: Ledger, record: RunRecord) -> Lineage:
    """Return the chain of trainings of a run."""
    after = tuple(map(_link, ledger.continuations(record.id)))
    before = (
        Link(each) if isinstance(each, str) else _link(each)
        for each in reversed(ancestors(ledger, record))
    )
    return Lineage(tuple(before), after)


def ancestors(ledger: Ledger, record: RunRecord) -> list[RunRecord | str]:
    """Return the runs that a run continues from, nearest first; a name if unknown."""
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
