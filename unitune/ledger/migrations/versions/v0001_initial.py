"""Create the first schema; write its tables out here before one of them changes."""

from __future__ import annotations

from alembic import op

from unitune.ledger.records import COSTS, DEPLOYMENTS, EVENTS, METADATA, RUNS, TRANSITIONS, UPLOADS

revision = "0001"
down_revision = None
TABLES = [RUNS, TRANSITIONS, EVENTS, UPLOADS, DEPLOYMENTS, COSTS]


def upgrade() -> None:
    """Create the tables."""
    METADATA.create_all(op.get_bind(), tables=TABLES, checkfirst=False)
