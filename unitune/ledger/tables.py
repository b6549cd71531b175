"""The tables of the ledger, in types that every database has.

They are made and changed by `migrations` alone.
What the rows mean is the business of `records` and `leases`.
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0001"
"""The newest version of the schema; a test holds it against `migrations`."""
VERSIONS = tuple(f"{number:04}" for number in range(1, int(HEAD) + 1))
"""All of them, the oldest first."""

METADATA = sa.MetaData()
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("id", sa.String(20), primary_key=True),
    sa.Column("name", sa.String(40), nullable=False),
    sa.Column("backend", sa.String(64), nullable=False),
    sa.Column("base_model", sa.Text, nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("job_id", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("cursor", sa.Text, nullable=False),
    sa.Column("model", sa.JSON(none_as_null=True)),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
    sa.Column("job", sa.Text),
    sa.Column("host", sa.Text, nullable=False, server_default=""),
    sa.Column("lease_holder", sa.Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("fence", sa.Integer, nullable=False, server_default="0"),
)
TRANSITIONS = sa.Table(
    "transitions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("raw", sa.Text, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
)
EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("key", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.UniqueConstraint("run_id", "attempt", "key", name="events_once"),
)
UPLOADS = sa.Table(
    "uploads",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.String(20), sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("ref", sa.Text, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.UniqueConstraint("run_id", "name", name="uploads_once"),
)
DEPLOYMENTS = sa.Table(
    "deployments",
    METADATA,
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
COSTS = sa.Table(
    "costs",
    METADATA,
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
