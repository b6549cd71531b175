"""Launch the run of a job or the runs of a sweep, follow them and print how they ended.

Runs at a vendor train at the same time; runs on this machine train one after another.
"""

from __future__ import annotations

from collections.abc import Iterable

from unitune.backends.protocol import State
from unitune.cli.output import aside, new_table, print_json, print_raw, print_table
from unitune.cli.progress import working
from unitune.cli.runs import state_text
from unitune.cli.watch import (
    RunView,
    follow,
    follow_launch,
    state_line,
    warn_of_duplicates,
    without_model,
)
from unitune.errors import Interrupted, RunFailed, UserError
from unitune.planning.plan import Plan
from unitune.planning.preflight import ResolvedJob
from unitune.run.run import Run, launch, launch_sweep
from unitune.run.watching import watch_all


def run_job(
    resolved: ResolvedJob,
    next_command: str,
    *,
    allow_duplicate: bool,
    allow_unpriced: bool,
    plan: Plan | None = None,
    detach: bool,
    quiet: bool,
    json: bool,
) -> None:
    """Launch a job's run, or the runs of its sweep, and follow them until they end.

    Raises `RunFailed` if a run has no model, `Interrupted` after Ctrl-C; launched runs continue.
    """
    allowed = {"allow_duplicate": allow_duplicate, "allow_unpriced": allow_unpriced}
    if not resolved.job.sweep:
        with working("uploading rows, creating the job", quiet=quiet or json):
            run = launch(resolved, plan=plan, **allowed)
        follow_launch(
            run, detach=detach, quiet=quiet, json=json, next_command=None if plan else next_command
        )
        return
    launches = launch_sweep(resolved, plan=plan, **allowed)
    if detach and resolved.offer.trains_here:
        raise UserError(
            "a sweep on this machine trains one run after another, so this command must keep "
            "running. Leave out --detach, or run the command in the background."
        )
    runs = follow_sweep(resolved, launches, detach=detach, quiet=quiet or json)
    if not detach:
        _conclude(runs, next_command, json=json)


def follow_sweep(
    resolved: ResolvedJob, launches: Iterable[Run], *, quiet: bool, detach: bool = False
) -> list[Run]:
    """Launch the runs of a sweep, follow them until they end, and return them."""
    here, runs = resolved.offer.trains_here, list[Run]()
    try:
        for run in _shown_launches(launches, quiet=quiet or here):
            runs.append(run)
            if detach:
                print_raw(run.id)
                continue
            if not quiet:
                aside().print(state_line(run), soft_wrap=True)
            if here and not run.state.ended:
                follow(run, quiet=quiet)
        watched = () if here or detach else watch_all(only=[run.id for run in runs])
        for run in watched:
            if not quiet:
                aside().print(state_line(run), soft_wrap=True)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(
            f"{len(runs)} of {len(resolved.runs)} runs are launched and continue. Run the same "
            "command to launch the others and follow all of them."
        ) from None
    return runs if detach else [run.refresh() for run in runs]


def _shown_launches(launches: Iterable[Run], *, quiet: bool) -> Iterable[Run]:
    waiting = iter(launches)
    while True:
        with working("uploading rows, creating the job", quiet=quiet):
            run = next(waiting, None)
        if run is None:
            return
        yield run


def _conclude(runs: list[Run], next_command: str, *, json: bool) -> None:
    if json:
        print_json({"schema_version": 1, "runs": [RunView.of(run) for run in runs]})
    else:
        table = new_table("run", "state", "job", fold=("job",))
        for run in runs:
            table.add_row(run.id, state_text(run, worse=bool(run.worse_than_start)), run.name)
        print_table(table)
    for run in runs:
        warn_of_duplicates(run)
    failed = [run for run in runs if run.state is not State.SUCCEEDED]
    if not failed:
        if not json:
            aside().print(f"Next: {next_command}")
        return
    one_by_one = "\n".join(str(without_model(run)) for run in failed)
    rest = len(runs) - len(failed)
    left = f" `{next_command}` chooses among the other {rest}." if rest else ""
    raise RunFailed(f"{len(failed)} of {len(runs)} runs have no model.{left}\n{one_by_one}")
