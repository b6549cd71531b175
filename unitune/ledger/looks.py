"""Looks at test sets, in the ledger: one row for each comparison that used one, never changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import sqlalchemy as sa

from unitune.ledger import audit
from unitune.ledger.model_versions import ModelLedger
from unitune.ledger.records import METADATA, Time, read

LOOKS = sa.Table(
    "looks",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("test", sa.String(64), nullable=False, index=True),
    sa.Column("candidate", sa.String(64), nullable=False, index=True),
    sa.Column("baselines", sa.JSON, nullable=False),
    sa.Column("comparison", sa.String(20), nullable=False),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("cases", sa.Integer, nullable=False),
    sa.Column("p_value", sa.Double, nullable=False),
    sa.Column("sampled", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("kind", sa.String(20), nullable=False, server_default="comparison"),
)


@dataclass(frozen=True, slots=True)
class Look:
    """One comparison of a candidate on the cases of a test.

    Args:
        test: Digest of the cases (`unitune.evaluate.task.Task.digest`).
        candidate: Digest of model, prompt and settings; so is each of the baselines.
        comparison: Its id in the history.
        job: Name of the job.
        cases: How many there were.
        p_value: Not adjusted, against the baseline that is hardest to beat.
        sampled: Whether the same requests could have been answered differently.
        reason: Why a known candidate was given new answers; None where it was not.
        time: Seconds since 1970, UTC.
        kind: A verification (`unitune models verify`) watches a model in use. It chooses nothing,
        so it
            counts for nothing.
    """

    test: str
    candidate: str
    baselines: tuple[str, ...]
    comparison: str
    job: str
    cases: int
    p_value: float
    sampled: bool
    reason: str | None
    time: Time
    kind: Literal["comparison", "verification"] = "comparison"


class LookLedger(ModelLedger):
    """The part of a ledger that counts how often a test was used."""

    def add_look(self, look: Look) -> None:
        """Write down a look; new answers of a known candidate go into the audit log too."""
        values = asdict(look)
        with self._database.writing() as connection:
            connection.execute(LOOKS.insert().values(values))
            if look.reason is not None or look.kind == "verification":
                audit.record(self._database, connection, "answers.renewed", look.comparison, values)

    def looks(self, test: str) -> list[Look]:
        """Return the looks at the cases of a test, the oldest first."""
        return self._looks(LOOKS.c.test == test)

    def looks_of(self, candidate: str) -> list[Look]:
        """Return the looks at a candidate on any test, the oldest first."""
        return self._looks(LOOKS.c.candidate == candidate)

    def _looks(self, which: sa.ColumnElement[bool]) -> list[Look]:
        rows = self._rows(sa.select(LOOKS).where(which).order_by(LOOKS.c.id))
        return [read(Look, row, f"look of {row['comparison']}") for row in rows]
