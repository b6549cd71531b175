"""The first schema; before the next version is released, its tables are spelt out here."""

from __future__ import annotations

from alembic import op

from unitune.ledger.records import METADATA

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    METADATA.create_all(op.get_bind(), checkfirst=False)
