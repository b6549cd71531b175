"""The first schema; before one of its tables is changed, they are spelt out here."""

from __future__ import annotations

from alembic import op

from unitune.ledger.records import COSTS, DEPLOYMENTS, EVENTS, METADATA, RUNS, TRANSITIONS, UPLOADS

revision = "0001"
down_revision = None
TABLES = [RUNS, TRANSITIONS, EVENTS, UPLOADS, DEPLOYMENTS, COSTS]


def upgrade() -> None:
    """Make the tables."""
    METADATA.create_all(op.get_bind(), tables=TABLES, checkfirst=False)
