"""Add kinds of looks, which were part of the reason that users can also set."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the kind, and set it from the reason of verifications."""
    kind = sa.Column("kind", sa.String(20), nullable=False, server_default="comparison")
    op.add_column("looks", kind)
    old = "UPDATE looks SET kind = 'verification', reason = NULL WHERE reason = 'unitune verify'"
    op.execute(old)
