"""Implement the commands for launched runs, and `unitune runs audit`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
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
    print_raw,
    print_table,
)
from unitune.errors import UnreadableRecord, UserError

if TYPE_CHECKING:
    from unitune.cli.watch import RunView
    from unitune.ledger import Ledger, RunRecord
    from unitune.run.handle import Run


All = Annotated[bool, typer.Option("--all", help="All runs of all projects.")]


def runs(
    *,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of runs to list (default: 50)."),
    ] = None,
    all_runs: All = False,
    json: Json = False,
) -> None:
    """List this project's runs, the newest first.

    Runs on this machine have their current state, runs at vendors the last known one. To update
    those, run `unitune runs watch --all`.

    [dim]$ unitune runs
    $ unitune runs --limit 200[/dim]
    """
    from unitune.ledger import Ledger, RunRecord
    from unitune.ledger.ledger import SHOWN_RUNS
    from unitune.workspace.home import home

    if all_runs and limit is not None:
        raise UserError("give --limit N or --all, not both.")
    most = None if all_runs else limit or SHOWN_RUNS
    ledger = Ledger(home())
    listed = ledger.newest(most, everywhere=all_runs)
    if active := [e for e in listed if isinstance(e, RunRecord) and not e.state.ended]:
        from unitune.run.watching import refresh_local

        refresh_local(ledger, active)
        listed = ledger.newest(most, everywhere=all_runs)
    records = [each for each in listed if isinstance(each, RunRecord)]
    unreadable = [each for each in listed if isinstance(each, UnreadableRecord)]
    shown = len(listed)
    total = max(ledger.run_count(everywhere=all_runs), shown)
    if json:
        views, problems = _views(ledger, records)
        unreadable += problems
        counts = {"total": total, "left_out": total - shown}
        messages = list(map(str, unreadable))
        print_json({"schema_version": 1, "runs": views, "unreadable": messages, **counts})
    elif not shown:
        others = ledger.run_count(everywhere=True)
        more = f" Of other projects: {others:,} (unitune runs --all)." if others else ""
        console().print(f"No runs in this project yet. Start one: unitune run unitune.yaml{more}")
    else:
        _print_runs(ledger, records, projects=all_runs)
        if total > shown:
            console().print(f"The newest {shown:,} of {total:,} runs. More: --limit N.")
    for problem in unreadable:
        aside().print(str(problem))
    if unreadable:
        raise typer.Exit(UnreadableRecord.exit_code)


def _views(
    ledger: Ledger, records: list[RunRecord]
) -> tuple[list[RunView], list[UnreadableRecord]]:
    from unitune.cli.watch import RunView
    from unitune.run.handle import Run

    views, problems = list[RunView](), list[UnreadableRecord]()
    for record in records:
        try:
            views.append(RunView.of(Run(ledger, record)))
        except UnreadableRecord as problem:
            problems.append(problem)
    return views, problems


def _print_runs(ledger: Ledger, records: list[RunRecord], *, projects: bool) -> None:
    table = new_table("run", "job", "state", "backend", "base model", "started")
    narrow = new_table("run", "job, base model", "state", "started", fold=("job, base model",))
    for run in records:
        state = state_text(run, worse=ledger.worse_than_start(run) is not None)
        started = f"{datetime.fromtimestamp(run.created).astimezone():%Y-%m-%d %H:%M}"
        base = f"{run.base_model} after {run.start}" if run.start else run.base_model
        name = run.name
        if projects:
            name += f"\n{ledger.run_folder(run.id).parents[1].parent}"
        table.add_row(run.id, name, state, run.backend, base, started)
        model = (f"\n{base}, {run.backend}", "dim")
        narrow.add_row(run.id, Text.assemble(name, model), state, started[5:])
    print_table(table if fits(table) else narrow)


def state_text(run: Run | RunRecord, *, worse: bool) -> Text:
    """Return the state of a run in a word or two, coloured."""
    from unitune.backends.protocol import INTERRUPTED
    from unitune.render.terminal import STYLES
    from unitune.report.run_state import is_interrupted, tone

    words = f"{run.state}{', worse' if worse else ''}"
    return Text(INTERRUPTED if is_interrupted(run) else words, STYLES[tone(run, worse=worse)])


def show(run: RunId = NEWEST, *, json: Json = False) -> None:
    """Show one run: state, settings, losses, files.

    [dim]$ unitune runs show r2611[/dim]
    """
    from unitune.cli.watch import RunView
    from unitune.render.terminal import view
    from unitune.report.run_document import describe
    from unitune.run.run import find_run

    shown = find_run(run).refresh()
    print_json(RunView.of(shown)) if json else console().print(view(describe(shown)))


def watch(
    run: RunId = NEWEST,
    *,
    all_runs: Annotated[
        bool, typer.Option("--all", help="Follow every active run from this process.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Follow a run until it ends; Ctrl-C leaves it running.

    With --json, prints one line per event; with --all, one line per change of state.

    [dim]$ unitune runs watch r2611
    $ unitune runs watch --all[/dim]
    """
    from unitune.cli.watch import conclude, follow, follow_all
    from unitune.run.run import find_run

    if all_runs and run != NEWEST:
        raise UserError("pass one run or --all, not both.")
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
            metavar="ID", help="Duplicate job at the vendor to cancel instead of the run's own job."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Cancel a run; its partly trained model is not kept.

    [dim]$ unitune runs cancel r2611[/dim]
    """
    from unitune.cli.watch import RunView
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
    """Pause a run and return when it has stopped; continue with `unitune runs resume`.

    [dim]$ unitune runs pause r2611[/dim]
    """
    from unitune.backends.protocol import State
    from unitune.cli.watch import RunView, wait_for_pause
    from unitune.run.run import find_run

    paused = find_run(run).pause()
    wait_for_pause(paused)
    if json:
        print_json(RunView.of(paused))
    elif paused.state is State.PAUSED:
        console().print(f"{paused.id} is paused; resume with: unitune runs resume {paused.id}")
    else:
        console().print(f"{paused.id} has {paused.state}; there is nothing to pause.")


def resume(
    run: RunId = NEWEST,
    *,
    adopt: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Job at the vendor that belongs to this uncertain run."),
    ] = None,
    resubmit: Annotated[
        bool, typer.Option("--resubmit", help="Submit an uncertain run again: it has no job.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Resume an interrupted, paused or killed run from its last checkpoint.

    [dim]$ unitune runs resume r2611[/dim]
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
        bool, typer.Option("--yes", help="Skip the confirmation; needs the full run id.")
    ] = False,
    reports: Annotated[
        bool, typer.Option("--reports", help="Also delete the reports of its evaluation.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Remove the run even if something cannot be deleted.")
    ] = False,
) -> None:
    """Delete a run's files and model, here and at the vendor, and its ledger entry.

    Lists them first and asks for confirmation; a script passes --yes. Without --reports, reports
    are kept.

    [dim]$ unitune runs delete r2611
    $ unitune runs delete r261126-4f7h2k9q3w --yes[/dim]
    """
    from unitune.cli.consent import is_interactive
    from unitune.run.run import find_run

    doomed = find_run(run)
    aside().print(f"Deleting run {doomed.id}, {doomed.name}, removes:")
    for item in doomed.inventory(reports=reports):
        aside().print(f"  {item}", soft_wrap=True)
    command = f"unitune runs delete {doomed.id} --yes"
    if yes and run != doomed.id:
        raise UserError(f"--yes needs the full run id: {command}")
    if not yes and not is_interactive():
        raise UserError(f"nothing was deleted without confirmation. To delete the run: {command}")
    if not yes and not confirmed("Delete it?"):
        raise UserError("nothing was deleted.")
    failures = doomed.delete(force=force, reports=reports)
    for failure in failures:
        aside().print(Text.assemble(("not deleted", "yellow"), f" {failure}"))
    if failures and not force:
        raise UserError(f"run {doomed.id} was kept. Pass --force to remove it anyway.")
    console().print(f"{doomed.id} is deleted.")


SHOWN_HASH = 8  # characters of a hash that are shown; an export has all of them


def _parse_day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day such as 2026-11-01.") from None


Since = Annotated[
    datetime | None,
    typer.Option(metavar="DATE", parser=_parse_day, help="First day to show (UTC)."),
]
Verify = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Verify an export against the ledger."),
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="File for the log.")
]


def audit(
    *, since: Since = None, verify: Verify = None, output: Output = None, json: Json = False
) -> None:
    """Show the audit log: launches, ends, costs, promotions and deletions.

    A launch is recorded with its data and prices. Each entry has the hash of the previous one, so
    a changed entry is detected: in an export (JSON Lines, --json or --output), and in the ledger
    with any older export (--verify). The actor is UNITUNE_USER, or account and machine. Exits 5 if
    an entry has changed.

    [dim]$ unitune runs audit --since 2026-11-01
    $ unitune runs audit --output audit.jsonl
    $ unitune runs audit --verify audit.jsonl[/dim]
    """
    from unitune.files.filesystem import content_of, replacing
    from unitune.ledger import Ledger
    from unitune.ledger.audit import check_chain, export_lines, held_against, read_export
    from unitune.workspace.home import home

    if verify is not None and (since or output or json):
        raise UserError("--verify checks a file; leave out --since, --output and --json.")
    log = check_chain(Ledger(home()).audit_log(), "the ledger")
    if verify is not None:
        exported = check_chain(read_export(content_of(verify), str(verify)), str(verify))
        held_against(exported, log)
        console().print(f"{verify}: {len(exported):,} entries, all unchanged and in the ledger.")
        return
    start = since.timestamp() if since else 0.0
    entries = [entry for entry in log if entry.time >= start]
    # A copy stored elsewhere proves later that no entry up to this one was changed or removed.
    anchor = f"Entry {log[-1].number} has the hash {log[-1].sha256}" if log else ""
    if output is not None:
        with replacing(output) as file:
            file.writelines(export_lines(entries))
        console().print(f"{output}: {len(entries):,} entries.")
        console().print(anchor, style="dim")
    elif json:
        print_raw("".join(export_lines(entries)), end="")
    elif not entries:
        console().print("The audit log is empty.")
    else:
        names = ("", "time (UTC)", "action", "subject", "who", "hash")
        table = new_table(*names, right={""}, fold={"who"})
        for entry in entries:
            time = datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%d %H:%M")
            hash_ = entry.sha256[:SHOWN_HASH]
            table.add_row(str(entry.number), time, entry.action, entry.subject, entry.who, hash_)
        print_table(table)
        console().print(anchor, style="dim")
