"""The command `unitune track`: what is known of a run, sent to experiment trackers."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.options import NEWEST, Json, RunId
from unitune.cli.output import aside, console, print_json
from unitune.errors import BackendError, UserError

if TYPE_CHECKING:
    from unitune.tracking.interface import Outcome


class TrackerName(StrEnum):
    """As in `unitune.tracking.interface.SOURCES`, which ``--help`` need not load."""

    MLFLOW = "mlflow"
    WANDB = "wandb"
    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"


Trackers = Annotated[
    list[TrackerName] | None,
    typer.Option("--to", metavar="TRACKER", help="Default: those that its job names."),
]


def track(run: RunId = NEWEST, *, to: Trackers = None, json: Json = False) -> None:
    """Send a run's figures, and the comparison that judged it, to experiment trackers.

    MLflow's registry gets the versions and aliases of its registered model, too.

    Needed only for what no one has watched, or what a tracker did not take: a job that names
    trackers (`track: [mlflow]`) feeds them while it is watched. What is there is not sent twice.

    [dim]$ unitune track
    $ unitune track r261128 --to mlflow --to tensorboard[/dim]
    """
    from unitune.report.tracking import track as track_run
    from unitune.run.run import find_run

    chosen = find_run(run)
    names = tuple(map(str, to or ())) or chosen.job.track
    if not names:
        raise UserError(
            f"the job of run {chosen.id} names no trackers. Name one: unitune track {chosen.id} "
            f"--to mlflow ({', '.join(TrackerName)})"
        )
    outcomes = track_run(chosen, names)
    if json:
        print_json({"schema_version": 1, "run": chosen.id, "trackers": outcomes})
    for outcome in outcomes:
        if outcome.problem:
            raise BackendError(f"{outcome.tracker} was not fed: {outcome.problem}")
        if not json:
            console().print(f"{outcome.tracker}  {outcome.where}", soft_wrap=True)


def print_outcomes(outcomes: Iterable[Outcome]) -> None:
    """Print what came of trackers, aside: it is not the result of the command."""
    for outcome in outcomes:
        what = f"was not fed: {outcome.problem}" if outcome.problem else outcome.where
        aside().print(f"{outcome.tracker}  {what}", soft_wrap=True)
