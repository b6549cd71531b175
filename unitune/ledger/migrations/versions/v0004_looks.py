"""Looks at test sets."""

from __future__ import annotations

from alembic import op

from unitune.ledger.looks import LOOKS
from unitune.ledger.records import METADATA

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make their table."""
    METADATA.create_all(op.get_bind(), tables=[LOOKS], checkfirst=False)
