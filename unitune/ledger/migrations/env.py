"""What alembic runs for an upgrade: on the connection, and in the transaction, of the ledger."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
