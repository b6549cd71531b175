"""What the pages show of the ledger: runs with their progress and costs, deployments, events.

Everything is read as it stands. Nothing here polls a vendor, and nothing is taken down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple

from unitune.backends.protocol import Event
from unitune.cost.documents import LAUNCH, MONTHLY, Estimate, Line
from unitune.cost.reconcile import Reconciliation
from unitune.cost.spread import Spread
from unitune.errors import UnreadableRecord
from unitune.ledger import Ledger
from unitune.render.charts import DrawnCurve, drawn_curve, drawn_rates
from unitune.render.sections import Fact
from unitune.render.typography import dollars, duration, usd_range
from unitune.report.runs import (
    billed,
    differences,
    event_line,
    is_interrupted,
    lineage_facts,
    registered_names,
    spent_so_far,
)
from unitune.run.curves import Curve, curve_of
from unitune.run.deployment import Deployment
from unitune.run.handle import Run

SHOWN_EVENTS = 200
END_OF_TIME = 253_402_300_800  # seconds since 1970 until the year 10000


@dataclass(frozen=True)
class ShownRun:
    """A run as it is shown.

    Args:
        cost: What it has cost, or was estimated to; empty: nothing is on record.
        events: Of a run that is shown as a whole or goes on.
        problem: Why it is not shown as it is now.
    """

    run: Run
    cost: str  # that it has had, or was estimated to have; empty: nothing is on record
    events: Sequence[Event] = ()  # of a run that is shown as a whole or goes on
    problem: str = ""  # why it is not shown as it is now

    @property
    def state(self) -> str:
        """Where it stands, in a word."""
        return "interrupted" if is_interrupted(self.run) else str(self.run.state)

    @property
    def is_live(self) -> bool:
        """Whether its page changes by itself."""
        return not self.run.state.ended

    @property
    def step(self) -> Event | None:
        """The last step."""
        return next((event for event in reversed(self.events) if event.kind == "step"), None)

    @cached_property
    def curve(self) -> Curve | None:
        """Its losses, or rewards."""
        return curve_of(self.events)

    @cached_property
    def drawing(self) -> DrawnCurve | None:
        """What is drawn of them."""
        return drawn_curve(self.curve) if self.curve else None

    @property
    def rates(self) -> DrawnCurve | None:
        """What is drawn of its learning rates."""
        return drawn_rates(self.curve) if self.curve else None

    @property
    def progress(self) -> str:
        """How far it is, in words; empty where that is not known."""
        if self.step is None or (step := self.step.number("step")) is None:
            return ""
        steps, left = self.step.number("steps"), self.step.number("seconds_left")
        time_left = f", {duration(left)} left" if left is not None and self.is_live else ""
        return f"step {step:,.0f}{f' of {steps:,.0f}' if steps else ''}{time_left}"


def shown_run(run: Run, *, whole: bool = False, problem: str = "") -> ShownRun:
    """Return a run as it is shown, with its events where it goes on or is shown as a whole."""
    events = run.events() if whole or not run.state.ended else ()
    return ShownRun(run, _cost(run), events, problem)


def _cost(run: Run) -> str:
    try:
        if (bill := run.reconciliation) is not None:
            return "unknown" if bill.usd is None else dollars(bill.usd)
        return "" if run.estimate is None else usd_range(run.estimate.launch_usd)
    except UnreadableRecord:
        return "unreadable"


def run_facts(shown: ShownRun) -> Iterator[Fact]:
    """Yield the figures of a training, each with what it means."""
    run, step, live = shown.run, shown.step, shown.is_live
    if shown.progress:
        done, _, left = shown.progress.removeprefix("step ").partition(", ")
        yield Fact("Steps", done, left)
    if curve := shown.curve:
        first, last = curve.values[0], curve.values[-1]
        yield Fact(f"Training {curve.figure}", f"{last:.3f}", f"{first:.3f} at the first step")
        if validated := curve.validation_values:
            best = max(validated) if curve.figure == "reward" else min(validated)
            figure = f"Validation {curve.figure}"
            yield Fact(figure, f"{validated[-1]:.3f}", f"{best:.3f} at its best")
        if curve.kept_step is not None:
            yield Fact("Step kept", f"{curve.kept_step:,}", "by the validation rows")
    if live and step and (speed := step.number("tokens_per_second")):
        yield Fact("Tokens a second", f"{speed:,.0f}")
    if shown.cost:
        spent = spent_so_far(step, run.estimate) if live and step else ""
        yield Fact("Estimated cost" if live else "Cost", shown.cost, spent and f"{spent} so far")
    seconds = ((datetime.now(UTC) if live else run.updated) - run.created).total_seconds()
    since = f"since {run.created.astimezone():%Y-%m-%d %H:%M}"
    yield Fact("Under way for" if live else "Took", duration(seconds), since)


class EstimateRow(NamedTuple):
    """An item of an estimate, or a sum; its amount is None where it is not known."""

    name: str
    usd: Spread | None
    note: str = ""
    is_sum: bool = False


def estimate_rows(estimate: Estimate) -> Iterator[EstimateRow]:
    """Yield what a training was estimated to cost, its sum, and what comes after it."""
    launch = [line for line in estimate.lines if line.item in LAUNCH]
    yield from (_row(estimate, line) for line in launch)
    if len(launch) > 1 or estimate.minimum_usd is not None:
        yield EstimateRow("The training in all", estimate.launch_usd, is_sum=True)
    yield from (_row(estimate, line) for line in estimate.lines if line not in launch)


def _row(estimate: Estimate, line: Line) -> EstimateRow:
    price, name = estimate.price(line), line.what or line.item
    note = f"{price.rate}, as of {price.as_of}" if price else ""
    name = f"{name}, a month" if line.item in MONTHLY else name
    return EstimateRow(name[0].upper() + name[1:], line.usd, line.because or note)


def bill_facts(bill: Reconciliation) -> Iterator[Fact]:
    """Yield what was billed, and in what that differs from the estimate."""
    yield Fact("Bill", billed(bill))
    if difference := differences(bill):
        yield Fact("Difference to the estimate", difference)


def provenance_facts(ledger: Ledger, run: Run) -> Iterator[Fact]:
    """Yield what identifies the launch and the rows that it was made with."""
    yield Fact("Launch key", run.launch_key)
    yield Fact("Training fingerprint", run.fingerprint)
    for name, upload in ledger.uploads(run.id).items():
        yield Fact(name, f"sha256 {upload.sha256}")


def setting_facts(run: Run) -> Iterator[Fact]:
    """Yield its chain, what it is called at its vendor, what came out, and where its files are."""
    for term, value in lineage_facts(run).items():
        yield Fact(term.capitalize(), value)
    if run.job_id:
        yield Fact(f"Job at {run.backend_name}", run.job_id)
    if run.tuned_model is not None:
        yield Fact("Tuned model", run.tuned_model.name)
    if names := registered_names(run):
        yield Fact("Version", ", ".join(names))
    yield Fact("Files", str(run.folder))


class Happening(NamedTuple):
    """A change of state or an event of a run, in words."""

    seconds: float  # since 1970, UTC
    text: str
    is_state: bool = False

    @property
    def time(self) -> datetime:
        """When it was, by the clock here; what cannot be a time is the beginning of time."""
        seconds = self.seconds if 0 <= self.seconds < END_OF_TIME else 0
        return datetime.fromtimestamp(seconds, UTC).astimezone()


def happenings(shown: ShownRun) -> list[Happening]:
    """Return the newest changes of state, and events that are no steps, the newest first."""
    listed: list[Happening] = []
    for each in shown.run.transitions():
        raw = f" ({each.raw})" if each.raw not in ("", each.state) else ""
        listed.append(Happening(each.time, f"{each.state}{raw}", is_state=True))
    for event in shown.events:
        if text := event_line(event):
            warning = "Warning: " if event.kind == "warning" else ""
            listed.append(Happening(event.time, f"{warning}{text}"))
    return sorted(listed, reverse=True)[:SHOWN_EVENTS]


def deployments_of(ledger: Ledger, run_id: str | None = None) -> list[Deployment]:
    """Return the deployments, or those of one run: those that stand first, then the newest."""
    records = [each for each in ledger.deployments() if run_id in (None, each.run_id)]
    listed = [Deployment(ledger, record) for record in records]
    return sorted(listed, key=lambda each: not each.stands)
