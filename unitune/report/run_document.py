"""Describe a run: its progress, plan and bill, and its identity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from unitune.backends.protocol import PUSHED, Event, State
from unitune.errors import UnreadableRecord
from unitune.ledger import Ledger
from unitune.render.charts import drawn_curve, drawn_rates
from unitune.render.sections import (
    Bullets,
    Cell,
    Document,
    Fact,
    Facts,
    Figure,
    Folded,
    Part,
    Section,
)
from unitune.render.typography import dollars, duration, usd_range
from unitune.report.plan import cost_table
from unitune.report.run_state import is_interrupted, tone
from unitune.report.runs import (
    billed,
    differences,
    duplicate_lines,
    lineage_facts,
    registered_names,
    spent_so_far,
)
from unitune.run.curves import Curve, curve_of
from unitune.run.handle import Run
from unitune.workspace.home import home


def describe(run: Run, events: Sequence[Event] | None = None, problem: str = "") -> Document:
    """Return the document of a run.

    Args:
        run: Any run.
        events: Events of the run; None to read them.
        problem: Reason why its state may be out of date.
    """
    events = run.events() if events is None else events
    notes = (run.worse_than_start, problem, *duplicate_lines(run))
    error = Cell("Failed" if run.state is State.FAILED else "Unclear", run.error or "", "bad")
    provenance = Folded("Provenance: keys and fingerprints", [Facts([*_provenance(run)])], True)
    attempt = [f"attempt {run.attempt}"] if run.attempt > 1 else []
    return Document(
        title=f"{run.name}: {state_words(run)}",
        about=(run.id, f"{run.base_model} on {run.backend_name}", *attempt),
        tone=tone(run, worse=bool(run.worse_than_start)),
        state=error if run.error else None,
        notes=tuple(note for note in notes if note),
        sections=(
            Section("The training", [*_training(run, events)]),
            *_money(run),
            Section("Settings and files", [Facts([*_settings(run, events)]), provenance]),
        ),
    )


def state_words(run: Run) -> str:
    """Return the state of a run, with the backend's own word if that differs."""
    if is_interrupted(run):
        return run.raw
    worse = ", worse than before the training" if run.worse_than_start else ""
    return f"{run.state}{worse}{f' ({run.raw})' if run.raw not in ('', run.state) else ''}"


def progress(run: Run, events: Sequence[Event]) -> tuple[str, str]:
    """Return the completed steps and the time left; empty if unknown."""
    step = _last_step(events)
    if step is None or (done := step.number("step")) is None:
        return "", ""
    steps, left = step.number("steps"), step.number("seconds_left")
    time_left = f"{duration(left)} left" if left is not None and not run.state.ended else ""
    return f"{done:,.0f}{f' of {steps:,.0f}' if steps else ''}", time_left


def _last_step(events: Sequence[Event]) -> Event | None:
    return next((event for event in reversed(events) if event.kind == "step"), None)


def cost(run: Run) -> str:
    """Return the cost of a run, or its estimate; empty if neither is recorded."""
    try:
        if (bill := run.reconciliation) is not None:
            return "unknown" if bill.usd is None else dollars(bill.usd)
        return "" if run.estimate is None else usd_range(run.estimate.launch_usd)
    except UnreadableRecord:
        return "unreadable"


def _training(run: Run, events: Sequence[Event]) -> Iterator[Part]:
    curve = curve_of(events)
    yield Facts([*training_facts(run, events, curve)], "figures")
    if curve is not None:
        yield from training_figures(curve)


def training_facts(run: Run, events: Sequence[Event], curve: Curve | None) -> Iterator[Fact]:
    """Yield the figures of a training, each with its meaning."""
    step, live = _last_step(events), not run.state.ended
    done, left = progress(run, events)
    if done:
        yield Fact("Steps", done, left)
    if curve is not None:
        first, last = curve.values[0], curve.values[-1]
        yield Fact(f"Training {curve.figure}", f"{last:.3f}", f"{first:.3f} at the first step")
        if validated := curve.validation_values:
            best = max(validated) if curve.figure == "reward" else min(validated)
            figure = f"Validation {curve.figure}"
            yield Fact(figure, f"{validated[-1]:.3f}", f"{best:.3f} at its best")
        if curve.kept_step is not None:
            why = [str(each.data.get("text", "")) for each in events if "kept_step" in each.data]
            yield Fact("Step kept", f"{curve.kept_step:,}", why[-1])
    if live and step and (speed := step.number("tokens_per_second")):
        yield Fact("Tokens a second", f"{speed:,.0f}")
    if step and (requests := step.number("judge_requests")):
        share = 100 * (step.number("judge_failed") or 0.0)
        usd = dollars(Decimal(str(step.number("judge_usd") or 0)))
        note = f"{usd} at the last step, {share:.1f} % without a verdict"
        yield Fact("Judge's requests", f"{requests:,.0f}", note)
    if usd := cost(run):
        spent = spent_so_far(step, run.estimate) if live and step else ""
        yield Fact("Estimated cost" if live else "Cost", usd, spent and f"{spent} so far")
    seconds = ((datetime.now(UTC) if live else run.updated) - run.created).total_seconds()
    since = f"since {run.created.astimezone():%Y-%m-%d %H:%M}"
    yield Fact("Running for" if live else "Took", duration(seconds), since)


def _money(run: Run) -> Iterator[Section]:
    try:
        estimate, bill = run.estimate, run.reconciliation
    except UnreadableRecord:
        return
    if estimate is None and bill is None:
        return
    facts = [Fact("Estimated", usd_range(estimate.launch_usd))] if estimate else []
    if bill is not None:
        facts.append(Fact("Billed", billed(bill)))
        if difference := differences(bill):
            facts.append(Fact("Difference", difference))
    else:
        facts.append(Fact("Billed", "not before the run has ended"))
    parts: list[Part] = [Facts(facts)]
    if estimate is not None:
        because = Folded("What the estimate rests on", [Bullets(estimate.assumptions)], True)
        parts += [cost_table(estimate, on_page=True), because]
    yield Section("Plan and bill", parts)


def _settings(run: Run, events: Sequence[Event]) -> Iterator[Fact]:
    yield from lineage_facts(run)
    if run.job_id and not Path(run.job_id).is_absolute():
        yield Fact(f"Job at {run.backend_name}", run.job_id)
    if run.tuned_model is not None:
        yield Fact("Tuned model", run.tuned_model.name)
    if names := registered_names(run):
        yield Fact("Version", ", ".join(names))
    if pushes := pushes_of(events):
        yield Fact("Pushed", "\n".join(pushes))
    yield Fact("Files", str(run.folder))


def _provenance(run: Run) -> Iterator[Fact]:
    yield Fact("Launch key", run.launch_key)
    yield Fact("Training fingerprint", run.fingerprint)
    for name, upload in Ledger(home()).uploads(run.id).items():
        yield Fact(name, f"sha256 {upload.sha256}")


def pushes_of(events: Sequence[Event]) -> list[str]:
    """Return sentences on the repositories that a run's model was pushed to."""
    pushed = (str(event.data.get("text")) for event in events if event.key.startswith(PUSHED))
    return [text.removeprefix("pushed to ") for text in pushed]


def training_figures(curve: Curve, of: str = "") -> Iterator[Figure]:
    """Yield a training's losses or rewards, and known learning rates; captions begin with `of`."""
    if (drawn := drawn_curve(curve)) is None:
        return
    better, other = ("higher", "does not rise") if curve.figure == "reward" else ("lower", "rises")
    what = "Mean reward (as the grader gives it)" if curve.figure == "reward" else "Loss"
    kept = " The ring marks the step whose adapter is the model." if drawn.kept else ""
    yield Figure(
        drawn,
        f"{of}{what} by optimiser step; {better} is better. Where the "
        f"validation {curve.figure} {other} although that of the training improves, rows are being "
        f"memorised.{kept}",
    )
    if rates := drawn_rates(curve):
        yield Figure(rates, "Learning rate by optimiser step.")
