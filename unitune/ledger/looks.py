"""Record looks: a row, which never changes, for each comparison that used a test set."""

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
    """One comparison of a candidate on the cases of a test."""

    test: str  # digest of the cases (`unitune.evaluate.task.Task.digest`)
    candidate: str  # digest of model, prompt and settings
    baselines: tuple[str, ...]
    comparison: str  # id in the history
    job: str
    cases: int
    p_value: float  # unadjusted, against the strongest baseline
    sampled: bool  # whether repeated requests could give other answers
    reason: str | None  # for new answers of a known candidate
    time: Time  # seconds since 1970, UTC
    # A verification (`unitune models verify`) selects nothing, so it does not count.
    kind: Literal["comparison", "verification"] = "comparison"


class LookLedger(ModelLedger):
    """Methods of a ledger for uses of test sets."""

    def add_look(self, look: Look) -> None:
        """Record a look, and new answers of a known candidate in the audit log too."""
        values = asdict(look)
        with self._database.writing() as connection:
            connection.execute(LOOKS.insert().values(values))
            if look.reason is not None or look.kind == "verification":
                audit.record(self._database, connection, "answers.renewed", look.comparison, values)

    def looks(self, test: str) -> list[Look]:
        """Return the looks at a test, the oldest first."""
        return self._looks(LOOKS.c.test == test)

    def looks_of(self, candidate: str) -> list[Look]:
        """Return the looks at a candidate on any test, the oldest first."""
        return self._looks(LOOKS.c.candidate == candidate)

    def _looks(self, which: sa.ColumnElement[bool]) -> list[Look]:
        rows = self._rows(sa.select(LOOKS).where(which).order_by(LOOKS.c.id))
        return [read(Look, row, f"look of {row['comparison']}") for row in rows]
