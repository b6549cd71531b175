"""Events of runs, as they are written down: each key once, and without secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import sqlalchemy as sa

from unitune.backends.protocol import Event
from unitune.ledger.records import EVENTS, RunRecord
from unitune.security.redaction import redacted

LONGEST_KEY = 200
"""Characters of an event's key, as in `unitune.ledger.records`."""


def add_events(connection: sa.Connection, record: RunRecord, events: Sequence[Event]) -> int:
    """Write down the events whose keys are new, and return how many."""
    if not events:
        return 0
    attempt = (EVENTS.c.run_id == record.id) & (EVENTS.c.attempt == record.attempt)
    known = set(connection.execute(sa.select(EVENTS.c.key).where(attempt)).scalars())
    rows = {
        key: {
            "run_id": record.id,
            "attempt": record.attempt,
            "key": key,
            "kind": event.kind,
            "time": event.time,
            # A vendor's words may repeat a secret.
            "data": {
                name: redacted(value) if isinstance(value, str) else value
                for name, value in event.data.items()
            },
        }
        for event in events
        if (key := _short(event.key)) not in known
    }
    if rows:
        connection.execute(EVENTS.insert(), list(rows.values()))
    return len(rows)


def _short(key: str) -> str:
    """Return a key that fits its column, and differs for every other key."""
    if len(key) <= LONGEST_KEY:
        return key
    return key[: LONGEST_KEY - 64] + hashlib.sha256(key.encode()).hexdigest()
