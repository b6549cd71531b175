"""Add the projects of runs: one ledger holds the runs of all of a user's projects."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "projects",
        sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("project", sa.String(32), nullable=False, index=True),
        sa.Column("folder", sa.Text, nullable=False, index=True),
    )
