"""Read the data of the pages: runs with their progress and costs, deployments, events.

Nothing here polls a vendor or deletes a deployment.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from unitune.backends.protocol import INTERRUPTED, Event
from unitune.ledger import Ledger
from unitune.render.charts import DrawnCurve, drawn_curve
from unitune.render.sections import Cell, Section, Table
from unitune.report.run_document import cost, progress
from unitune.report.run_state import is_interrupted
from unitune.report.runs import event_line
from unitune.run.curves import curve_of
from unitune.run.deployment import Deployment
from unitune.run.handle import Run

SHOWN_EVENTS = 200
END_OF_TIME = 253_402_300_800  # seconds since 1970 until the year 10000


class ShownRun(NamedTuple):
    """Run in a list."""

    run: Run
    state: str
    progress: str  # empty if unknown
    cost: str
    drawing: DrawnCurve | None  # losses or rewards of an active run


def shown_run(run: Run) -> ShownRun:
    """Return a run for a list."""
    events = () if run.state.ended else run.events()
    done, left = progress(run, events)
    steps = ", ".join(filter(None, [f"step {done}" if done else "", left]))
    curve = curve_of(events)
    state = INTERRUPTED if is_interrupted(run) else str(run.state)
    return ShownRun(run, state, steps, cost(run), drawn_curve(curve) if curve else None)


def events_section(run: Run, events: Sequence[Event]) -> Section:
    """Return the newest state changes and events other than steps, the newest first."""
    listed: list[tuple[float, str, bool]] = []
    for each in run.transitions():
        raw = f" ({each.raw})" if each.raw not in ("", each.state) else ""
        listed.append((each.time, f"{each.state}{raw}", True))
    for event in events:
        if text := event_line(event):
            warning = "Warning: " if event.kind == "warning" else ""
            listed.append((event.time, f"{warning}{text}", False))
    rows = [
        [f"{_time(seconds):%Y-%m-%d %H:%M:%S}", Cell(text, strong=is_state)]
        for seconds, text, is_state in sorted(listed, reverse=True)[:SHOWN_EVENTS]
    ]
    about = "Changes of state and messages, the newest first; the curve has the steps"
    return Section("Events", [Table(["When", "What"], rows, about, name="list events")])


def _time(seconds: float) -> datetime:
    """Return local time for seconds since 1970; the earliest time for an impossible value."""
    return datetime.fromtimestamp(seconds if 0 <= seconds < END_OF_TIME else 0, UTC).astimezone()


def deployments_of(ledger: Ledger, run_id: str | None = None) -> list[Deployment]:
    """Return all deployments, or those of one run: active ones first, then the newest."""
    records = [each for each in ledger.deployments() if run_id in (None, each.run_id)]
    listed = [Deployment(ledger, record) for record in records]
    return sorted(listed, key=lambda each: not each.stands)
