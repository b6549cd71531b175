"""Add looks at test sets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "looks",
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
    )
