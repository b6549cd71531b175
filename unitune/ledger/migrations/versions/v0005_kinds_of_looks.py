"""Kinds of looks: verifications had a reason that a user could give, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the kind, which a verification's reason said so far."""
    kind = sa.Column("kind", sa.String(20), nullable=False, server_default="comparison")
    op.add_column("looks", kind)
    old = "UPDATE looks SET kind = 'verification', reason = NULL WHERE reason = 'unitune verify'"
    op.execute(old)
