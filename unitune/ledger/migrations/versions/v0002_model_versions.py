"""Add registered models: their versions, and the moves of their aliases."""

from __future__ import annotations

from alembic import op

from unitune.ledger.model_versions import ALIAS_MOVES, MODEL_VERSIONS
from unitune.ledger.records import METADATA

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    METADATA.create_all(op.get_bind(), tables=[MODEL_VERSIONS, ALIAS_MOVES], checkfirst=False)
