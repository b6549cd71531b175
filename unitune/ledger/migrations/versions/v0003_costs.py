"""What each attempt of a run was estimated to cost, and what it did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; of runs that are there no cost is known."""
    op.create_table(
        "costs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), index=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("base_model", sa.Text, nullable=False),
        sa.Column("approval", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("reserved", sa.Double),
        sa.Column("outcome", sa.Text),
        sa.UniqueConstraint("run_id", "attempt", name="costs_once"),
    )
