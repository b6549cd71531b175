"""Add the audit log."""

from __future__ import annotations

from alembic import op

from unitune.ledger.audit import AUDIT_LOG
from unitune.ledger.records import METADATA

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the table."""
    METADATA.create_all(op.get_bind(), tables=[AUDIT_LOG], checkfirst=False)
