"""Render the pages as HTML from the ledger and its folder.

Pages are rendered in threads that wait only for files and the ledger's database.

The ledger has the state of a run at its last poll. For a page with an active run, `Poller` polls
the backend in a thread of its own, so that no page waits for a vendor. A run that is being launched
is not polled.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

from unitune.backends.protocol import INTERRUPTED, Event
from unitune.errors import NotFoundError, UnituneError, UnreadableRecord
from unitune.evaluate.documents.history import LONGEST_NOTE, read_notes, write_note
from unitune.evaluate.documents.results import Comparison
from unitune.files import yaml_file
from unitune.ledger import Ledger, RunRecord
from unitune.render.charts import DrawnCurve, drawn_curve
from unitune.render.html import environment
from unitune.render.sections import Cell, Section, Table
from unitune.render.typography import dollars
from unitune.report import files
from unitune.report.cases import shared_system_prompt
from unitune.report.comparison import describe as describe_comparison
from unitune.report.run_document import cost, describe, progress
from unitune.report.run_state import is_interrupted
from unitune.report.runs import event_line
from unitune.run.curves import curve_of
from unitune.run.deployment import Deployment
from unitune.run.handle import Run
from unitune.run.watching import goes_on
from unitune.security.json_fields import whole_text
from unitune.ui.comparisons import (
    PAGE_CASES,
    Chosen,
    browse,
    kept_comparison,
    kept_comparisons,
    under_way,
)
from unitune.workspace.home import artifacts

INTERVAL_SECONDS = 3.0  # minimum time between two polls of a run


class Poller:
    """Background poller of the backends of displayed runs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._polls: dict[str, tuple[threading.Thread, float]] = {}
        self._problems: dict[str, str] = {}

    def look(self, run: Run) -> str:
        """Poll an active run soon; return why its last poll failed, or an empty text."""
        thread, started = self._polls.get(run.id, (None, -INTERVAL_SECONDS))
        due = time.monotonic() - started >= INTERVAL_SECONDS
        if due and goes_on(run) and not (thread and thread.is_alive()):
            # Ctrl-C does not wait for a vendor; the next poll repeats an interrupted one.
            thread = threading.Thread(target=self._refresh, args=(run.id,), daemon=True)
            self._polls[run.id] = thread, time.monotonic()
            thread.start()
        return self._problems.get(run.id, "")

    def _refresh(self, run_id: str) -> None:
        try:
            Run(self._ledger, self._ledger.record(run_id)).refresh()
        except (UnituneError, OSError) as error:
            self._problems[run_id] = str(error)
        else:
            self._problems.pop(run_id, None)


PAGE_RUNS = 50
PACKAGE = "unitune.ui"


class Visit(NamedTuple):
    """Parts of a request's path, its query, and the fields of a form."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Mapping[str, str] = {}


class Pages:
    """Pages of one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._poller = Poller(ledger)

    def runs(self, visit: Visit) -> str:
        """Return the newest runs, with the losses of active ones."""
        page = Chosen.of(visit.query).page
        listed = self._ledger.newest(page * PAGE_RUNS)[(page - 1) * PAGE_RUNS :]
        runs = [Run(self._ledger, each) for each in listed if isinstance(each, RunRecord)]
        for run in runs:
            self._poller.look(run)
        total = self._ledger.run_count()
        return render(
            "runs.html.j2",
            "Runs",
            live=not all(run.state.ended for run in runs),
            shown=[shown_run(run) for run in runs],
            unreadable=[each for each in listed if isinstance(each, UnreadableRecord)],
            total=total,
            folder=self._ledger.folder,
            page=page,
            more=page * PAGE_RUNS < total,
        )

    def run(self, visit: Visit) -> str:
        """Return a run: losses, plan and bill, deployments, comparisons, settings and events."""
        run = Run(self._ledger, self._ledger.record(visit.path["run"]))
        problem, events = self._poller.look(run), run.events()
        job = ""
        with suppress(UnreadableRecord):
            job = yaml_file.dump(run.job.model_dump(mode="json", exclude_defaults=True))
        return render(
            "run.html.j2",
            "Runs",
            here=False,
            live=not run.state.ended,
            document=describe(run, events, problem),
            deployments=deployments_of(self._ledger, run.id),
            comparisons=kept_comparisons(run.id),
            under_way=under_way(artifacts(), run.id),
            job=job,
            events=events_section(run, events),
        )

    def deployments(self, _visit: Visit) -> str:
        """Return the deployments: active ones with their cost and end, then the others."""
        listed = deployments_of(self._ledger)
        prices = [each.usd_per_hour for each in listed if each.stands]
        known = [price for price in prices if price is not None]
        unknown = " and what has no known price" if len(known) < len(prices) else ""
        return render(
            "deployments.html.j2",
            "Deployments",
            live=bool(prices),
            deployments=listed,
            an_hour=f"{dollars(sum(known, Decimal(0)))}{unknown}" if known else "an unknown price",
        )

    def comparisons(self, _visit: Visit) -> str:
        """Return the comparisons in progress, as counts, and the finished ones."""
        going_on = under_way(artifacts())
        return render(
            "comparisons.html.j2",
            "Comparisons",
            live=bool(going_on),
            under_way=going_on,
            comparisons=kept_comparisons(),
        )

    def comparison(self, visit: Visit) -> str:
        """Return a comparison: its verdict and the requested cases."""
        comparison, chosen = kept_comparison(visit.path["comparison"]), Chosen.of(visit.query)
        shown = browse(comparison, chosen, read_notes(_folder(comparison)))
        return render(
            "comparison.html.j2",
            "Comparisons",
            here=False,
            comparison=comparison,
            document=describe_comparison(comparison),
            chosen=chosen,
            address=chosen.query(),
            counts=[(name, count, chosen.query(show=name)) for name, count in shown.counts],
            slices=sorted({name for case in comparison.cases for name in case.slices}),
            cases=shown.cases,
            total=shown.total,
            pages=max(1, ceil(shown.total / PAGE_CASES)),
            system_prompt=shared_system_prompt(comparison.cases),
            longest_note=LONGEST_NOTE,
        )

    def report(self, visit: Visit) -> str:
        """Return the full report with the notes."""
        comparison = kept_comparison(visit.path["comparison"])
        return files.html_page(comparison, read_notes(_folder(comparison)))

    def write_note(self, visit: Visit) -> str:
        """Save a note on a case, and return the address of that case; raises `NotFoundError`."""
        comparison, case = kept_comparison(visit.path["comparison"]), visit.form.get("case", "")
        known = [each.id for each in comparison.cases]
        if case not in known:
            raise NotFoundError("case", case, (), "Open its comparison again.")
        write_note(_folder(comparison), case, visit.form.get("text", ""))
        chosen = Chosen.of(visit.query)
        address = f"/comparisons/{comparison.id}?{chosen.query()}page={chosen.page}"
        return f"{address}#case-{known.index(case) + 1}"


def problem(title: str, text: str) -> str:
    """Return a page that shows an error."""
    return render("problem.html.j2", title=title, problem=text)


def _folder(comparison: Comparison) -> Path:
    assert comparison.folder is not None, "it is kept in one"
    return comparison.folder


def render(
    template: str, section: str = "", *, live: bool = False, here: bool = True, **content: Any
) -> str:
    """Return a page of a template, with `section` marked in its navigation."""
    page = environment(PACKAGE, files.PACKAGE).get_template(template)
    now = f"{datetime.now():%H:%M:%S}"  # noqa: DTZ005 - the reader's local time
    content |= {"section": section, "live": live, "here": here, "now": now}
    return whole_text(page.render(seconds_until=_seconds_until, **content))


def _seconds_until(time: datetime) -> float:
    return max(0.0, (time - datetime.now(UTC)).total_seconds())


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
