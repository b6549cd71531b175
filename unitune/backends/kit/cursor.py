"""Cursors of events: which events of a job earlier polls have returned.

Vendors list events in any order and with times that several share, and tell steps and progress
anew at each poll, with no time at all. So what is counted (`COUNTED`) is new by its number, and any
other event by its time, or by its key among the events of that time.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from unitune.backends.protocol import Event

COUNTED = {"step": "step", "validation": "step", "message": "progress"}
"""Field of an event's data that counts upwards, by the kind of event."""


class Cursor(BaseModel):
    """What polls have returned.

    Args:
        time: Of the newest message, in seconds since 1970.
        keys: Of the messages at that time.
        counts: Last number by the kind of event.
    """

    model_config = ConfigDict(frozen=True)
    time: float = 0.0
    keys: tuple[str, ...] = ()
    counts: dict[str, int] = {}

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Return the cursor of an earlier poll; empty text is the beginning."""
        return cls.model_validate_json(text) if text else cls()

    def is_before(self, event: Event) -> bool:
        """Whether an event is new."""
        if (count := count_of(event)) is not None:
            return count > self.counts.get(event.kind, -1)
        return event.time > self.time or (event.time == self.time and event.key not in self.keys)


def unseen(events: Iterable[Event], cursor: str) -> tuple[tuple[Event, ...], str]:
    """Return the events after a cursor, oldest first and each once, and the cursor after them.

    Args:
        events: In any order; those of one time stay in theirs.
        cursor: Of the poll before; empty: none was returned yet.
    """
    before = Cursor.read(cursor)
    new = {event.key: event for event in events if before.is_before(event)}
    if not new:
        return (), cursor
    ordered = sorted(new.values(), key=lambda event: event.time)
    messages = [event for event in ordered if count_of(event) is None]
    newest = max((event.time for event in messages), default=before.time)
    keys = tuple(event.key for event in messages if event.time == newest)
    counts = dict(before.counts)
    for event in ordered:
        if (count := count_of(event)) is not None:
            counts[event.kind] = max(count, counts.get(event.kind, count))
    after = Cursor(
        time=newest,
        keys=(*before.keys, *keys) if newest == before.time else keys,
        counts=counts,
    )
    return tuple(ordered), after.model_dump_json()


def count_of(event: Event) -> int | None:
    """Return the number of an event that is counted; None of any other."""
    count = event.data.get(COUNTED.get(event.kind, ""))
    return count if isinstance(count, int) else None
