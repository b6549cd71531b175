"""Commands before a launch: plan, and apply a plan that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.options import (
    AllowUnpriced,
    BudgetUsd,
    GivenPrices,
    JobFile,
    Json,
    Quiet,
    prices_given,
    usd_of,
)
from unitune.errors import OverBudget, UserError

if TYPE_CHECKING:
    from unitune.planning.documents import Plan
    from unitune.planning.preflight import ResolvedJob

Backends = Annotated[
    list[str] | None,
    typer.Option(
        "--backend", metavar="NAME", help="As if the job named it; several: side by side."
    ),
]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A saved plan, e.g. plan.json.")]


def plan(
    file: JobFile,
    *,
    backend: Backends = None,
    everywhere: Annotated[
        bool, typer.Option("--all", help="On every backend that anything is known of.")
    ] = False,
    price: GivenPrices,
    budget: BudgetUsd = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Time a few steps on this machine first.")
    ] = False,
    quote: Annotated[
        bool,
        typer.Option("--quote", help="Hand the rows over and ask the vendor for its own price."),
    ] = False,
    vendor_count: Annotated[
        bool,
        typer.Option(
            "--count-with-vendor",
            help="Hand a sample of the rows over and let the vendor count it.",
        ),
    ] = False,
    show_tokens: Annotated[
        bool, typer.Option("--show-tokens", help="Print rows with their trained tokens coloured.")
    ] = False,
    rows: Annotated[
        int, typer.Option("--rows", min=1, metavar="N", help="How many, with --show-tokens.")
    ] = 3,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PLAN", help="Save the plan, for `unitune apply`."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="PLAN", help="Tell what changed since a saved plan."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="For a comment on a pull request.")
    ] = False,
    json: Json = False,
) -> None:
    r"""Say what a job would cost and take, and start nothing.

    Findings, tokens, cost as a range, time and memory; `unitune run` refuses what this calls an
    error. Nobody is called, and no extra has to be installed for a hosted backend.

    [dim]$ unitune plan unitune.yaml
    $ unitune plan unitune.yaml --all
    $ unitune plan unitune.yaml --backend together --backend openai
    $ unitune plan unitune.yaml -o plan.json && unitune apply plan.json[/dim]
    """
    from unitune.cli.outfile import PLAN, check_place
    from unitune.cli.output import exit_for_errors, print_json
    from unitune.cli.plans import print_plan, print_plans
    from unitune.evaluate.readiness import readiness_findings
    from unitune.job.job import Job
    from unitune.planning import calibration
    from unitune.planning.plan import plan as make_plan
    from unitune.planning.plan import plans
    from unitune.planning.preflight import preflight

    names = _names(backend, everywhere=everywhere)
    if output is not None:
        check_place(output, PLAN, [file, *([against] if against else [])])
    job = Job.load(file).with_budget(usd_of("--budget", budget) if budget else None)
    job = job.with_prices(prices_given(price, names[0] if len(names) == 1 else job.backend))
    if len(names) > 1:
        _one_only(
            output=output,
            against=against,
            show_tokens=show_tokens,
            quote=quote,
            vendor_count=vendor_count,
        )
        several = plans(job, names)
        print_json(several) if json else print_plans(several)
        return
    resolved = preflight(job.with_backend(names[0] if names else None))
    job = resolved.job
    if calibrate:
        calibration.calibrate(resolved)
    if show_tokens:
        from unitune.cli.tokens import print_tokens

        print_tokens(resolved, rows)
        return
    found = make_plan(resolved, vendor_counts=vendor_count)
    if not found.errors:
        more = readiness_findings(job, resolved.splits)
        found = found.model_copy(update={"findings": (*found.findings, *more)})
    _save(found, output, file)  # before anything is printed: nobody may be reading
    if markdown:
        _print_markdown(found, against)
    elif json:
        print_json(found)
    else:
        print_plan(found, job.evaluate)
        _print_quote(resolved, found, quote=quote)
    _conclude(found, output)
    exit_for_errors(found.findings)


def apply(
    file: PlanFile,
    *,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the run's id and return at once.")
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--allow-duplicate", help="Train although the same training was run before."),
    ] = False,
    allow_unpriced: AllowUnpriced = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Launch what a saved plan says, and only that.

    Refused with exit code 5 when the job, its rows or the prices have changed since.

    [dim]$ unitune plan unitune.yaml -o plan.json
    $ unitune apply plan.json[/dim]
    """
    from unitune.cli.following import conclude, detached, follow
    from unitune.planning import saved
    from unitune.run.run import launch

    kept = saved.read(file)
    job = saved.job_of(kept, file)
    if kept.charge == "unknown" and not allow_unpriced:
        raise OverBudget(
            f"{file} does not know what the training costs. Take it all the same with "
            "--allow-unpriced."
        )
    launched = launch(job, allow_duplicate=again, allow_unpriced=allow_unpriced, plan=kept)
    if detach:
        detached(launched)
        return
    follow(launched, quiet=quiet or json)
    conclude(launched, next_command=None, json=json)


def _names(backend: list[str] | None, *, everywhere: bool) -> list[str]:
    from unitune.backends import registry

    if everywhere and backend:
        raise UserError("give --all or --backend, not both.")
    if everywhere:
        return [name for name in registry.offer_names() if name != "fake"]
    return backend or []


def _one_only(**given: object) -> None:
    """Refuse options that mean one backend."""
    for name, value in given.items():
        if value:
            option = name.replace("_", "-")
            raise UserError(f"--{option} is for one backend; name one with --backend.")


def _save(found: Plan, output: Path | None, file: Path) -> None:
    from unitune.cli.outfile import replacing
    from unitune.planning import saved

    if output is None or found.errors:
        return
    text = saved.saved_text(found, output, file)
    with replacing(output) as plan_file:
        plan_file.write(text.encode())


def _print_markdown(found: Plan, against: Path | None) -> None:
    from unitune.cli.output import print_raw
    from unitune.planning import saved
    from unitune.report import plan_markdown

    before = saved.read(against) if against is not None else None
    text = plan_markdown.render(found, before)
    if text:
        print_raw(text.removesuffix("\n"))


def _print_quote(resolved: ResolvedJob, found: Plan, *, quote: bool) -> None:
    from unitune.cli.output import console
    from unitune.cli.quotes import quoted

    if quote:
        console().print(quoted(resolved, found))


def _conclude(found: Plan, output: Path | None) -> None:
    from unitune.cli.output import aside
    from unitune.planning import saved

    if output is not None:
        saved.refuse_errors(found)
        aside().print(f"Saved. Next: unitune apply {output}")
