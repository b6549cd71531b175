"""Commands about launched runs: runs, show, watch, cancel, pause, resume, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from unitune.cli.options import NEWEST, Json, Quiet, RunId
from unitune.cli.output import (
    aside,
    confirmed,
    console,
    fits,
    new_table,
    print_json,
    print_table,
)
from unitune.errors import UnreadableRecord, UserError

if TYPE_CHECKING:
    from unitune.cli.run_view import RunView
    from unitune.run.run import Run

All = Annotated[bool, typer.Option("--all", help="Every run.")]


def runs(
    *,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many, the newest first; 50 by default."),
    ] = None,
    all_runs: All = False,
    json: Json = False,
) -> None:
    """List the newest runs, the newest first.

    Those on this machine as they stand now, those at vendors as they were last seen (`unitune
    watch --all`).

    [dim]$ unitune runs
    $ unitune runs --limit 200[/dim]
    """
    from unitune.run.run import SHOWN_RUNS, run_count, run_listing
    from unitune.run.watching import refresh_local
    from unitune.workspace.home import home

    if all_runs and limit is not None:
        raise UserError("give --limit N or --all, not both.")
    listed, unreadable = run_listing(None if all_runs else limit or SHOWN_RUNS)
    refresh_local(listed)
    shown = len(listed) + len(unreadable)
    total = max(run_count(), shown)
    if json:
        views, problems = _views(listed)
        unreadable += problems
        counts = {"total": total, "left_out": total - shown}
        messages = list(map(str, unreadable))
        print_json({"schema_version": 1, "runs": views, "unreadable": messages, **counts})
    elif not shown:
        console().print(f"No runs yet in {home()}. Start one: unitune run unitune.yaml")
    else:
        _print_runs(listed)
        if total > shown:
            console().print(f"The newest {shown:,} of {total:,} runs. More: --limit N, or --all.")
    for problem in unreadable:
        aside().print(str(problem))
    if unreadable:
        raise typer.Exit(UnreadableRecord.exit_code)


def _views(runs: list[Run]) -> tuple[list[RunView], list[UnreadableRecord]]:
    from unitune.cli.run_view import RunView

    views, problems = list[RunView](), list[UnreadableRecord]()
    for run in runs:
        try:
            views.append(RunView.of(run))
        except UnreadableRecord as problem:
            problems.append(problem)
    return views, problems


def _print_runs(runs: list[Run]) -> None:
    from unitune.cli.run_view import state_text

    table = new_table("run", "job", "state", "backend", "base model", "started")
    narrow = new_table("run", "job, base model", "state", "started", fold=("job, base model",))
    for run in runs:
        state, started = state_text(run), f"{run.created.astimezone():%Y-%m-%d %H:%M}"
        base = f"{run.base_model} after {run.start}" if run.start else run.base_model
        table.add_row(run.id, run.name, state, run.backend_name, base, started)
        model = (f"\n{base}, {run.backend_name}", "dim")
        narrow.add_row(run.id, Text.assemble(run.name, model), state, started[5:])
    print_table(table if fits(table) else narrow)


def show(run: RunId = NEWEST, *, json: Json = False) -> None:
    """Show one run: state, settings, losses, files.

    [dim]$ unitune show r2611[/dim]
    """
    from unitune.cli.run_view import RunView, print_run
    from unitune.run.run import find_run

    shown = find_run(run).refresh()
    print_json(RunView.of(shown)) if json else print_run(shown)


def watch(
    run: RunId = NEWEST,
    *,
    all_runs: Annotated[
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
    from unitune.cli.watch import conclude, follow, follow_all
    from unitune.run.run import find_run

    if all_runs and run != NEWEST:
        raise UserError("name one run, or give --all.")
    if all_runs:
        follow_all(json=json)
        return
    followed = find_run(run)
    if json:
        for event in followed.watch():
            line = {"run": followed.id, "kind": event.kind, "time": event.time, "data": event.data}
            print_json({"schema_version": 1, **line}, indent=None)
    else:
        follow(followed, quiet=quiet)
    conclude(followed, silent=json)


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
    from unitune.cli.run_view import RunView
    from unitune.run.run import find_run

    cancelled = find_run(run)
    if job is None:
        cancelled.cancel()
    else:
        cancelled.cancel_duplicate(job)
    if json:
        print_json(RunView.of(cancelled))
    else:
        first = "" if job is None else f"{job} is cancelled; "
        console().print(f"{first}{cancelled.id} is {cancelled.state}.")


def pause(run: RunId = NEWEST, *, json: Json = False) -> None:
    """Stop a run for now, and return when it stands; `unitune resume` goes on with it.

    [dim]$ unitune pause r2611[/dim]
    """
    from unitune.backends.protocol import State
    from unitune.cli.run_view import RunView
    from unitune.cli.watch import wait_for_pause
    from unitune.run.run import find_run

    paused = find_run(run).pause()
    wait_for_pause(paused)
    if json:
        print_json(RunView.of(paused))
    elif paused.state is State.PAUSED:
        console().print(f"{paused.id} is paused; resume with: unitune resume {paused.id}")
    else:
        console().print(f"{paused.id} has {paused.state}; nothing is left to pause.")


def resume(
    run: RunId = NEWEST,
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
    """Resume a run that was interrupted, paused or killed, from its last checkpoint.

    [dim]$ unitune resume r2611[/dim]
    """
    from unitune.backends.launched import join_if_other_rank
    from unitune.cli.watch import follow_launch
    from unitune.run.run import find_run

    join_if_other_rank("local")
    resumed = find_run(run)
    resumed.resume(adopt=adopt, resubmit=resubmit)
    follow_launch(resumed, detach=False, quiet=quiet, json=json)


def delete(
    run: RunId,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask; needs the run's whole id.")
    ] = False,
    reports: Annotated[
        bool, typer.Option("--reports", help="The reports of its evaluation, too.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Forget the run even if something cannot be deleted.")
    ] = False,
) -> None:
    """Delete what a run left: files and model at the vendor, its folder, its place in the ledger.

    Says first what that is, and asks; a script says --yes. Reports stay without --reports.

    [dim]$ unitune delete r2611
    $ unitune delete r261126-4f7h2k9q3w --yes[/dim]
    """
    from unitune.cli.consent import is_interactive
    from unitune.run.run import find_run

    doomed = find_run(run)
    aside().print(f"To be deleted of run {doomed.id}, {doomed.name}:")
    for item in doomed.inventory(reports=reports):
        aside().print(f"  {item}", soft_wrap=True)
    command = f"unitune delete {doomed.id} --yes"
    if yes and run != doomed.id:
        raise UserError(f"--yes needs the whole id: {command}")
    if not yes and not is_interactive():
        raise UserError(f"nothing was deleted without confirmation. To delete it: {command}")
    if not yes and not confirmed("Delete it?"):
        raise UserError("nothing was deleted.")
    failures = doomed.delete(force=force, reports=reports)
    for failure in failures:
        aside().print(Text.assemble(("not deleted", "yellow"), f" {failure}"))
    if failures and not force:
        raise UserError(f"run {doomed.id} is kept. To forget it all the same: --force")
    console().print(f"{doomed.id} is deleted.")
