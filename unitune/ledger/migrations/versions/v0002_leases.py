"""Leases in the place of file locks, the job and its machine beside the run, and deployments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table; runs that are there keep what they have."""
    op.add_column("runs", sa.Column("job", sa.Text))
    op.add_column("runs", sa.Column("host", sa.Text, nullable=False, server_default=""))
    op.add_column("runs", sa.Column("lease_holder", sa.Text))
    op.add_column("runs", sa.Column("lease_until", sa.Double))
    op.add_column("runs", sa.Column("fence", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "deployments",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), index=True),
        sa.Column("backend", sa.String(64), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("model", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("ref", sa.Text),
        sa.Column("usd_per_hour", sa.Text),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("ended", sa.Double),
        sa.Column("version", sa.Integer, nullable=False),
    )
