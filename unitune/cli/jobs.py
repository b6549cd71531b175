"""Implement the commands that train: quickstart and run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unitune.cli.init import EXAMPLE, Directory, write_example
from unitune.cli.options import (
    JOB_FILE,
    AllowDuplicate,
    AllowUnpriced,
    BudgetUsd,
    Detach,
    Json,
    OtherBackend,
    OwnPrices,
    Quiet,
    parse_prices,
)
from unitune.cli.output import aside, console
from unitune.errors import DuplicateRunError, OverBudget, UserError


def run(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Job file.", show_default=str(JOB_FILE))
    ] = None,
    *,
    plan: Annotated[
        Path | None, typer.Option(metavar="PLAN", help="Launch this saved plan unchanged.")
    ] = None,
    backend: OtherBackend = None,
    price: OwnPrices,
    detach: Detach = False,
    allow_duplicate: AllowDuplicate = False,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Launch a job exactly once and follow its training until it ends.

    The training continues after Ctrl-C or when the terminal closes; `unitune runs watch` follows it
    again. Lists of values under `tuning` start one run per combination; the same command launches
    those that are missing. A paid training needs a budget or a saved plan (--plan). Without
    either, a terminal asks for confirmation and a script is refused. --plan exits 5 if the job, its
    rows or the prices have changed since the plan was saved.

    [dim]$ unitune run unitune.yaml
    $ unitune plan unitune.yaml -o plan.json && unitune run --plan plan.json
    $ RUN=$(unitune run unitune.yaml --detach)[/dim]
    """
    from unitune.backends.launched import join_if_other_rank
    from unitune.cli.consent import confirm_training, refuse_unready
    from unitune.cli.progress import working
    from unitune.cli.sweep import run_job
    from unitune.job.job import Job
    from unitune.planning import saved
    from unitune.planning.preflight import preflight

    planned = saved.read(plan) if plan else None
    if plan and planned:
        given = {"FILE": file, "--backend": backend, "--price": price or None, "--budget": budget}
        if extra := [name for name, value in given.items() if value is not None]:
            raise UserError(
                f"--plan launches a saved plan unchanged. Leave out {', '.join(extra)}, or save a "
                "new plan with `unitune plan -o`."
            )
        job, job_file = saved.job_of(planned, plan), saved.job_file_of(planned, plan)
        if planned.charge == "unknown" and not allow_unpriced:
            raise OverBudget(
                f"{plan} has no price for the training. Pass --allow-unpriced to launch it anyway."
            )
    else:
        job_file = file or JOB_FILE
        job = Job.load(job_file).with_backend(backend).with_budget(budget)
        job = job.with_prices(parse_prices(price, job.backend))
    join_if_other_rank(job.backend)
    with working("reading rows, looking for leaks", quiet=quiet or json):
        resolved = preflight(job)
    if planned is None:
        refuse_unready(resolved)
        confirm_training(resolved, allow_unpriced=allow_unpriced)
    option = f" --backend {backend}" if backend else ""
    run_job(
        resolved,
        f"unitune compare {job_file}{option}",
        allow_duplicate=allow_duplicate,
        allow_unpriced=allow_unpriced,
        plan=planned,
        detach=detach,
        quiet=quiet,
        json=json,
    )


def quickstart(
    directory: Directory = Path(EXAMPLE), *, quiet: Quiet = False, json: Json = False
) -> None:
    """Tune and evaluate a small model on this machine: init, plan, run, compare.

    Needs the extra `local`, but no account, GPU or model hub. Run it again to continue where it
    stopped.

    [dim]$ unitune quickstart[/dim]
    """
    from unitune.cli.compare import compare
    from unitune.cli.progress import working
    from unitune.cli.watch import conclude, follow
    from unitune.job.job import Job
    from unitune.planning.plan import plan
    from unitune.planning.preflight import preflight
    from unitune.render.terminal import view
    from unitune.report.plan import describe
    from unitune.run.run import find_run, launch

    file = directory / "unitune.yaml"
    if not file.exists():
        write_example(directory)
    with working("reading rows, forecasting time", quiet=quiet or json):
        resolved = preflight(Job.load(file))
        planned = plan(resolved)
    if not (quiet or json):
        console().print(view(describe(planned, resolved.job.evaluate)))
    if planned.errors:
        raise UserError(f"{file}: the plan has errors. Show them with: unitune plan {file}")
    try:
        with working("starting the training", quiet=quiet or json):
            launched = launch(resolved)
    except DuplicateRunError as duplicate:
        launched = find_run(duplicate.run_id)
        aside().print(f"This training already exists: run {launched.id}.")
    follow(launched, quiet=quiet or json)
    conclude(launched, silent=json)
    compare(file, run=launched.id, quiet=quiet, json=json)
