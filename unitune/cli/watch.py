"""Follow a training on the terminal, print how it ended, and define the JSON of a run."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn, SpinnerColumn
from rich.text import Text

from unitune.backends.protocol import Event, State
from unitune.cli.output import aside, console, print_json, print_raw
from unitune.cli.progress import LOG_SECONDS, bar_column, is_narrow, text_column
from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Reconciliation
from unitune.errors import Interrupted, RunFailed
from unitune.models import TunedModel
from unitune.render.charts import drawn_curve
from unitune.render.terminal import view
from unitune.render.terminal_curves import LEAST_WIDTH, curve_text
from unitune.report.run_document import describe, pushes_of
from unitune.report.run_state import is_interrupted
from unitune.report.runs import duplicate_lines, event_line, registered_names, step_facts
from unitune.run.curves import curve_of
from unitune.run.launching import BEFORE_JOB
from unitune.run.run import Run
from unitune.run.watching import watch_all


class RunView(BaseModel):
    """Run as `unitune runs show --json` prints it."""

    schema_version: int = 1
    id: str
    name: str
    state: State
    raw: str
    """Backend's own word for the state."""
    error: str | None
    warning: str | None = None
    """Reason why the model is worse than before the training, if known."""
    backend: str
    base_model: str
    started_from: tuple[str, ...] = ()
    """Ids of the runs that it continued from, the oldest first; or a model's name without a run."""
    continued_by: tuple[str, ...] = ()
    """Ids of the runs that continue from it, the newest first."""
    version: str | None = None
    """Registered version of its model, such as ``triage:3``."""
    aliases: tuple[str, ...] = ()
    """Aliases that point to that version, such as ``triage@production``."""
    pushed: tuple[str, ...] = ()
    """Repositories, with commits, that its model was pushed to."""
    training_fingerprint: str
    launch_key: str
    job_id: str | None
    """Backend's id of the job, once it exists."""
    duplicate_jobs: tuple[str, ...] = ()
    """Further jobs with the run's key, which are all charged."""
    created: datetime
    updated: datetime
    folder: Path
    model: TunedModel | None
    estimate: Estimate | None
    """Estimated cost; None on this machine."""
    reconciliation: Reconciliation | None
    """Bill next to the estimate, after the end of the run."""

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the view of a run."""
        names = registered_names(run)
        same = cls.model_fields.keys() & set(dir(Run)) - {"model"}
        return cls(
            **{name: getattr(run, name) for name in same},
            warning=run.worse_than_start,
            backend=run.backend_name,
            started_from=tuple(link.name for link in run.lineage.ancestors),
            continued_by=tuple(link.name for link in run.lineage.continuations),
            version=next(iter(names), None),
            aliases=tuple(names[1:]),
            pushed=tuple(pushes_of(run.events())),
            training_fingerprint=run.fingerprint,
            duplicate_jobs=tuple(run.duplicates),
            model=run.tuned_model,
        )


LEAST_HEIGHT = 20  # lines a terminal needs for the loss curve and the messages above it
STATE_SENTENCES = {
    State.PAUSED: "It is {raw}. Resume it from its last checkpoint: unitune runs resume {id}",
    State.UNCERTAIN: "It is unknown whether the launch took effect: {error}",
    **dict.fromkeys(
        BEFORE_JOB,
        "Its launch was interrupted ({state}), and no process is working on it. Resume it: unitune "
        "runs resume {id}",
    ),
    State.FAILED: "It failed: {error}",
    State.CANCELLED: "It was cancelled.",
}


@contextmanager
def _interruptible(message: str) -> Generator[None]:
    """Raise Interrupted on Ctrl-C, which ends only the command."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(message) from None


def follow(run: Run, *, quiet: bool) -> None:
    """Show a run's progress until it ends, pauses or needs the user."""
    with _interruptible(
        f"no longer following run {run.id}; it continues: unitune runs watch {run.id}"
    ):
        if quiet:
            for _ in run.watch():
                pass
        elif aside().is_terminal:
            _follow_live(run)
        else:
            _follow_plainly(run)


def wait_for_pause(run: Run) -> None:
    """Wait until a run has paused or ended."""
    end = f"stopped waiting; run {run.id} will still pause: unitune runs show {run.id}"
    with _interruptible(end):
        if not run.is_at_rest:
            aside().print(f"{run.id} pauses after its current step; waiting.")
        for _ in run.watch():
            pass


def follow_all(*, json: bool) -> None:
    """Print each change of state of any run until all have ended or paused."""
    with _interruptible("no longer following the runs; they continue: unitune runs watch --all"):
        for run in watch_all():
            warn_of_duplicates(run)
            if json:
                print_json(RunView.of(run), indent=None)
            else:
                console().print(state_line(run), soft_wrap=True)


def state_line(run: Run) -> Text:
    """Return a run's state on one line."""
    return Text.assemble(f"{run.id}  {run.backend_name}  {run.state}  ", (run.name, "dim"))


def warn_of_duplicates(run: Run) -> None:
    """Print a warning for each duplicate job with a run's key."""
    for line in duplicate_lines(run):
        aside().print(Text.assemble(("Warning", "bold red"), f" {line}"))


def follow_launch(
    run: Run, *, detach: bool, quiet: bool, json: bool, next_command: str | None = None
) -> None:
    """Follow a launched run until it ends, or print its id if it is detached."""
    if not detach:
        follow(run, quiet=quiet or json)
        conclude(run, next_command=next_command, json=json)
        return
    print_raw(run.id)
    warn_of_duplicates(run)
    if run.state is State.UNCERTAIN:
        raise without_model(run)


def conclude(
    run: Run, *, next_command: str | None = None, json: bool = False, silent: bool = False
) -> None:
    """Print how a run ended; raises `RunFailed` if it has no model."""
    if json:
        print_json(RunView.of(run))
    warn_of_duplicates(run)
    if run.state is not State.SUCCEEDED:
        raise without_model(run)
    if not (json or silent):
        console().print(view(describe(run)))
        if next_command:
            aside().print(f"Next: {next_command}")


def without_model(run: Run) -> RunFailed:
    """Return the error that a run has no model, with the next step."""
    sentence = STATE_SENTENCES.get(run.state, "It is {state}.")
    raw = run.raw.partition(";")[0] if is_interrupted(run) else "paused"
    text = sentence.format(id=run.id, error=run.error, state=run.state, raw=raw)
    return RunFailed(f"run {run.id} has no model. {text}")


def _follow_live(run: Run) -> None:
    columns = [
        SpinnerColumn(),
        text_column("{task.description}"),
        bar_column(),
        text_column("{task.fields[facts]}", folds=True),
    ]
    with TrainingProgress(*columns, console=aside(), transient=True) as progress:
        task = progress.add_task(f"Training {run.id}", total=None, facts="starting")
        estimate, brief = run.estimate, is_narrow()
        for event in run.watch():
            progress.events.append(event)
            if event.kind == "step":
                progress.update(
                    task,
                    total=event.number("steps"),
                    completed=event.number("step") or 0,
                    facts=step_facts(event, estimate, brief=brief),
                )
            elif line := event_line(event):
                progress.console.print(Text(line, "dim"))


class TrainingProgress(Progress):
    """Progress bar of a training, with its loss curve below."""

    def __init__(self, *columns: ProgressColumn, console: Console, transient: bool) -> None:
        self.events: list[Event] = []
        super().__init__(*columns, console=console, transient=transient)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the bar and the curve (called by rich at each refresh)."""
        yield from super().get_renderables()
        curve = curve_of(self.events)
        if curve is None or len(curve.steps) == 1:
            return
        width, height = self.console.size
        if width >= LEAST_WIDTH and height >= LEAST_HEIGHT and (drawn := drawn_curve(curve)):
            yield curve_text(drawn, width)


def _follow_plainly(run: Run) -> None:
    printed, estimate = 0.0, run.estimate
    for event in run.watch():
        if event.kind == "step":
            is_last = event.data.get("step") == event.data.get("steps")
            if is_last or time.monotonic() - printed >= LOG_SECONDS:
                printed = time.monotonic()
                aside().print(step_facts(event, estimate))
        elif line := event_line(event):
            aside().print(line)
