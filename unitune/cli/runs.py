"""Commands about launched runs: runs, show, watch, cancel, resume."""

from __future__ import annotations

from typing import Annotated

import typer

from unitune.cli.options import Json, Quiet, RunId
from unitune.errors import UserError


def runs(
    *,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many, the newest first; 50 by default."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every run.")] = False,
    json: Json = False,
) -> None:
    """List the newest runs, the newest first.

    [dim]$ unitune runs
    $ unitune runs --limit 200[/dim]
    """
    from unitune.cli.output import aside, console, print_json, print_table
    from unitune.cli.runviews import RunList, run_views, runs_table
    from unitune.errors import UnreadableRecord
    from unitune.run.run import SHOWN_RUNS, look_for_runs, run_count

    if everything and limit is not None:
        raise UserError("give --limit N or --all, not both.")
    found, unreadable = look_for_runs(None if everything else limit or SHOWN_RUNS)
    shown = len(found) + len(unreadable)
    total = max(run_count(), shown)
    if json:
        views, more = run_views(found)
        unreadable += more
        broken = tuple(map(str, unreadable))
        print_json(RunList(runs=views, unreadable=broken, total=total, left_out=total - shown))
    elif not shown:
        console().print("No runs yet. Start one: unitune run unitune.yaml")
    else:
        print_table(runs_table(found))
        if total > shown:
            console().print(f"The newest {shown:,} of {total:,} runs. More: --limit N, or --all.")
    for problem in unreadable:
        aside().print(str(problem))
    if unreadable:
        raise typer.Exit(UnreadableRecord.exit_code)


def show(run: RunId, *, json: Json = False) -> None:
    """Show one run: state, settings, losses, files.

    [dim]$ unitune show r2611[/dim]
    """
    from unitune.cli.output import print_json
    from unitune.cli.runviews import RunView, print_run
    from unitune.run.run import find_run

    found = find_run(run).refresh()
    print_json(RunView.of(found)) if json else print_run(found)


def watch(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run's id, or the first letters of it."),
    ] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Every run that has not ended, from this one process.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Follow a run to its end; Ctrl-C leaves it running.

    With --json each event is a line of its own; with --all each change of a run's state is.

    [dim]$ unitune watch r2611
    $ unitune watch --all[/dim]
    """
    from unitune.cli.following import conclude, follow, follow_all, follow_json
    from unitune.run.run import find_run

    if everything == (run is not None):
        raise UserError("name one run, or give --all.")
    if run is None:
        follow_all(json=json)
        return
    found = find_run(run)
    if json:
        follow_json(found)
    else:
        follow(found, quiet=quiet)
    conclude(found, next_command=None, json=False, silent=json)


def cancel(
    run: RunId,
    *,
    job: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Not the run's own job, but a second one that carries its key."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """End a run; what it has learned is not kept as a model.

    [dim]$ unitune cancel r2611[/dim]
    """
    from unitune.cli.output import console, print_json
    from unitune.cli.runviews import RunView
    from unitune.run.run import find_run

    found = find_run(run)
    if job is None:
        found.cancel()
    else:
        found.cancel_duplicate(job)
    if json:
        print_json(RunView.of(found))
    elif job is not None:
        console().print(f"{job} is cancelled; {found.id} is {found.state}.")
    else:
        console().print(f"{found.id} is {found.state}.")


def pause(run: RunId, *, json: Json = False) -> None:
    """Stop a run for now, and return when it stands; `unitune resume` goes on with it.

    [dim]$ unitune pause r2611[/dim]
    """
    from unitune.backends.protocol import State
    from unitune.cli.following import wait_at_rest
    from unitune.cli.output import console, print_json
    from unitune.cli.runviews import RunView
    from unitune.run.run import find_run

    found = find_run(run).pause()
    wait_at_rest(found)
    if json:
        print_json(RunView.of(found))
    elif found.state is State.PAUSED:
        console().print(f"{found.id} is paused; resume with: unitune resume {found.id}")
    else:
        console().print(f"{found.id} has {found.state}; nothing is left to pause.")


def resume(
    run: RunId,
    *,
    adopt: Annotated[
        str | None,
        typer.Option(metavar="ID", help="For an uncertain run: the backend's job that is its own."),
    ] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="For an uncertain run: there is no such job.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Go on with a run that was interrupted, paused or killed, from its last checkpoint.

    [dim]$ unitune resume r2611[/dim]
    """
    from unitune.cli.following import conclude, follow
    from unitune.run.run import find_run

    found = find_run(run)
    found.resume(adopt=adopt, resubmit=resubmit)
    follow(found, quiet=quiet or json)
    conclude(found, next_command=None, json=json)
