"""Commands that start from a job: quickstart, init, check, run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unitune.cli.options import (
    AllowUnpriced,
    BudgetUsd,
    GivenPrices,
    JobFile,
    Json,
    OtherBackend,
    Quiet,
    prices_given,
    usd_of,
)
from unitune.errors import DuplicateRunError, UserError

EXAMPLE = "support-triage"

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="Where the example goes.")]


def init(directory: Directory = Path(EXAMPLE), *, json: Json = False) -> None:
    """Write a complete example: a job file, training rows and test rows.

    [dim]$ unitune init
    $ unitune init my-triage[/dim]
    """
    from unitune.cli.example import Written, write_example
    from unitune.cli.output import console, print_json

    files = write_example(directory)
    if json:
        print_json(Written(directory=directory, files=tuple(files)))
        return
    console().print(f"Wrote {', '.join(str(file) for file in files)}.")
    console().print(f"Next: unitune plan {directory / 'unitune.yaml'}")


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A job file or a data file.")],
    *,
    json: Json = False,
) -> None:
    """Find what is wrong with a job and its data, or with one data file.

    What plan, run and compare would refuse; nothing is asked, paid or run.

    [dim]$ unitune check unitune.yaml
    $ unitune check train.jsonl --json[/dim]
    """
    from unitune.cli.datareport import print_report
    from unitune.cli.output import exit_for_errors, print_json
    from unitune.evaluate.readiness import check as check_job_or_file

    report = check_job_or_file(file)
    print_json(report) if json else print_report(report)
    exit_for_errors(report.findings)


def backends(
    name: Annotated[
        str | None, typer.Argument(help="Show this one in full.", show_default=False)
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List who can tune, or show one in full: models, dates, limits, needs.

    Nobody is called, and no extra has to be installed.

    [dim]$ unitune backends
    $ unitune backends openai[/dim]
    """
    from unitune.backends import registry
    from unitune.cli.offers import BackendList, print_backend, print_backends, view_of
    from unitune.cli.output import print_json

    names = [name] if name else [one for one in registry.offer_names() if one != "fake"]
    found = BackendList(backends=tuple(view_of(one) for one in names))
    if json:
        print_json(found)
    elif name:
        print_backend(found.backends[0])
    else:
        print_backends(found.backends)


def run(
    file: JobFile,
    *,
    backend: OtherBackend = None,
    price: GivenPrices,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the run's id and return at once.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--allow-duplicate", help="Train although the same training was run before."),
    ] = False,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train: launch the job once and follow it to its end.

    The training outlives this command: after Ctrl-C or a closed terminal it goes on, and
    `unitune watch` follows it again. What costs money needs a budget or a saved plan
    (`unitune apply`); without either a terminal asks, and a script is refused.

    [dim]$ unitune run unitune.yaml
    $ RUN=$(unitune run unitune.yaml --detach)[/dim]
    """
    from unitune.cli.consent import consent, refuse_unready
    from unitune.cli.following import conclude, detached, follow
    from unitune.job.job import Job
    from unitune.planning.preflight import preflight
    from unitune.run.run import launch

    job = (
        Job.load(file)
        .with_backend(backend)
        .with_budget(usd_of("--budget", budget) if budget else None)
    )
    job = job.with_prices(prices_given(price, job.backend))
    resolved = preflight(job)
    refuse_unready(resolved)
    consent(resolved, allow_unpriced=allow_unpriced)
    launched = launch(resolved, allow_duplicate=again, allow_unpriced=allow_unpriced)
    if detach:
        detached(launched)
        return
    follow(launched, quiet=quiet or json)
    there = f" --backend {backend}" if backend else ""
    conclude(launched, next_command=f"unitune compare {file}{there}", json=json)


def quickstart(
    directory: Directory = Path(EXAMPLE), *, quiet: Quiet = False, json: Json = False
) -> None:
    """Tune and judge a small real model on this machine: init, plan, run, compare.

    Needs the extra `local`, and no account, GPU or model hub. Run again, it goes on where it
    stopped.

    [dim]$ unitune quickstart[/dim]
    """
    from unitune.cli.evaluation import compare
    from unitune.cli.example import write_example
    from unitune.cli.following import conclude, follow
    from unitune.cli.output import aside
    from unitune.cli.plans import print_plan
    from unitune.job.job import Job
    from unitune.planning.plan import plan as make_plan
    from unitune.planning.preflight import preflight
    from unitune.run.run import find_run, launch

    file = directory / "unitune.yaml"
    if not file.exists():
        write_example(directory)
    job = Job.load(file)
    resolved = preflight(job)
    found = make_plan(resolved)
    if not (quiet or json):
        print_plan(found, job.evaluate)
    if found.errors:
        raise UserError(f"{file}: the plan has errors; `unitune plan {file}` shows them.")
    try:
        launched = launch(resolved)
    except DuplicateRunError as twin:
        launched = find_run(twin.run_id)
        aside().print(f"This training exists already: run {launched.id}.")
    follow(launched, quiet=quiet or json)
    conclude(launched, next_command=None, json=False)
    compare(file, run=launched.id, quiet=quiet, json=json)
