"""Commands that start from a job: quickstart, run."""

from __future__ import annotations

from pathlib import Path

from unitune.cli.init import EXAMPLE, Directory, write_example
from unitune.cli.options import (
    JOB_FILE,
    AllowDuplicate,
    AllowUnpriced,
    BudgetUsd,
    Detach,
    JobFile,
    Json,
    OtherBackend,
    OwnPrices,
    Quiet,
    parse_prices,
)
from unitune.cli.output import aside
from unitune.errors import DuplicateRunError, UserError


def run(
    file: JobFile = JOB_FILE,
    *,
    backend: OtherBackend = None,
    price: OwnPrices,
    detach: Detach = False,
    allow_duplicate: AllowDuplicate = False,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train: launch the job once and follow it to its end.

    The training outlives this command: after Ctrl-C or a closed terminal it goes on, and
    `unitune watch` follows it again. Lists of values under `tuning` make a run of each combination;
    the same command launches those that are missing. What costs money needs a budget or a saved
    plan (`unitune apply`); without either a terminal asks, and a script is refused.

    [dim]$ unitune run unitune.yaml
    $ RUN=$(unitune run unitune.yaml --detach)[/dim]
    """
    from unitune.backends.launched import join_if_other_rank
    from unitune.cli.consent import confirm_training, refuse_unready
    from unitune.cli.progress import working
    from unitune.cli.sweep import run_job
    from unitune.job.job import Job
    from unitune.planning.preflight import preflight

    job = Job.load(file).with_backend(backend).with_budget(budget)
    join_if_other_rank(job.backend)
    job = job.with_prices(parse_prices(price, job.backend))
    with working("reading rows, looking for leaks", quiet=quiet or json):
        resolved = preflight(job)
    refuse_unready(resolved)
    confirm_training(resolved, allow_unpriced=allow_unpriced)
    option = f" --backend {backend}" if backend else ""
    run_job(
        resolved,
        f"unitune compare {file}{option}",
        allow_duplicate=allow_duplicate,
        allow_unpriced=allow_unpriced,
        detach=detach,
        quiet=quiet,
        json=json,
    )


def quickstart(
    directory: Directory = Path(EXAMPLE), *, quiet: Quiet = False, json: Json = False
) -> None:
    """Tune and judge a small real model on this machine: init, plan, run, compare.

    Needs the extra `local`, and no account, GPU or model hub. Run again, it goes on where it
    stopped.

    [dim]$ unitune quickstart[/dim]
    """
    from unitune.cli.compare import compare
    from unitune.cli.plan_view import print_plan
    from unitune.cli.progress import working
    from unitune.cli.watch import conclude, follow
    from unitune.job.job import Job
    from unitune.planning.plan import plan
    from unitune.planning.preflight import preflight
    from unitune.run.run import find_run, launch

    file = directory / "unitune.yaml"
    if not file.exists():
        write_example(directory)
    with working("reading rows, forecasting time", quiet=quiet or json):
        resolved = preflight(Job.load(file))
        planned = plan(resolved)
    if not (quiet or json):
        print_plan(planned, resolved.job.evaluate)
    if planned.errors:
        raise UserError(f"{file}: the plan has errors; `unitune plan {file}` shows them.")
    try:
        with working("starting the training", quiet=quiet or json):
            launched = launch(resolved)
    except DuplicateRunError as duplicate:
        launched = find_run(duplicate.run_id)
        aside().print(f"This training exists already: run {launched.id}.")
    follow(launched, quiet=quiet or json)
    conclude(launched, silent=json)
    compare(file, run=launched.id, quiet=quiet, json=json)
