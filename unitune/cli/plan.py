"""Commands about what a job costs: plan, cost, and apply a plan that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from unitune.cli.options import (
    JOB_FILE,
    AllowDuplicate,
    AllowUnpriced,
    BudgetUsd,
    Detach,
    JobFile,
    Json,
    OwnPrices,
    Quiet,
    RequestsMonth,
    backend_option,
    parse_prices,
)
from unitune.cli.output import aside, console, exit_for_errors, print_json, print_raw
from unitune.cli.output_files import Kind, check_output, replacing
from unitune.errors import OverBudget, UserError

if TYPE_CHECKING:
    from unitune.job.job import Job
    from unitune.planning.plan import Plan
    from unitune.planning.preflight import ResolvedJob

Backends = Annotated[
    list[str] | None, backend_option("As if the job named it; several: side by side.")
]
AllBackends = Annotated[
    bool, typer.Option("--all", help="On every backend that anything is known of.")
]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Time a few steps on this machine first.")
]
Quote = Annotated[
    bool, typer.Option("--quote", help="Upload the rows and request the vendor's own price.")
]
CountWithVendor = Annotated[
    bool,
    typer.Option("--count-with-vendor", help="Upload a sample of rows; the vendor counts it."),
]
ShowTokens = Annotated[
    bool, typer.Option("--show-tokens", help="Print rows with their trained tokens coloured.")
]
ShownRows = Annotated[int, typer.Option(min=1, metavar="N", help="How many, with --show-tokens.")]
SavedPlan = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="PLAN", help="Save the plan, for `unitune apply`."),
]
BasePlan = Annotated[
    Path | None,
    typer.Option(metavar="PLAN", help="With --markdown: what changed since a saved plan."),
]
Markdown = Annotated[bool, typer.Option("--markdown", help="For a comment on a pull request.")]
PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="A saved plan, e.g. plan.json.")]


def plan(
    file: JobFile = JOB_FILE,
    *,
    backend: Backends = None,
    all_backends: AllBackends = False,
    price: OwnPrices,
    budget: BudgetUsd = None,
    calibrate: Calibrate = False,
    quote: Quote = False,
    count_with_vendor: CountWithVendor = False,
    show_tokens: ShowTokens = False,
    rows: ShownRows = 3,
    output: SavedPlan = None,
    against: BasePlan = None,
    markdown: Markdown = False,
    json: Json = False,
) -> None:
    r"""Say what a job would cost and take, and start nothing.

    Findings, tokens, cost as a range, time and memory; `unitune run` refuses what this calls an
    error. No vendor is called, and no extra has to be installed for a hosted backend.

    [dim]$ unitune plan unitune.yaml
    $ unitune plan unitune.yaml --all
    $ unitune plan unitune.yaml --backend together --backend openai
    $ unitune plan unitune.yaml -o plan.json && unitune apply plan.json[/dim]
    """
    from unitune.cli.plan_view import print_quote, print_tokens
    from unitune.cli.progress import working
    from unitune.job.job import Job
    from unitune.planning.backend_calls import calibrate as time_steps
    from unitune.planning.preflight import preflight
    from unitune.planning.saved import saved_text
    from unitune.render.terminal import view
    from unitune.report.plan import describe

    names = _backend_names(backend, all_backends=all_backends)
    if against is not None and not markdown:
        raise UserError("--against is for --markdown, which prints what has changed; give both.")
    check_output(output, Kind.PLAN, [file, *([against] if against else [])])
    job = Job.load(file).with_budget(budget)
    job = job.with_prices(parse_prices(price, names[0] if len(names) == 1 else job.backend))
    if len(names) > 1:
        _refuse_for_several(
            output=output,
            against=against,
            show_tokens=show_tokens,
            quote=quote,
            count_with_vendor=count_with_vendor,
        )
        _plan_several(job, names, json=json)
        return
    with working("reading rows, looking for leaks", quiet=json):
        resolved = preflight(job.with_backend(names[0] if names else None))
    if calibrate:
        with working("timing a few steps", quiet=json):
            time_steps(resolved)
    if show_tokens:
        print_tokens(resolved, rows)
        return
    with working("counting tokens, forecasting time", quiet=json):
        planned = _plan_single(resolved, count_with_vendor=count_with_vendor)
    if output is not None and not planned.errors:
        text = saved_text(planned, output, file)
        with replacing(output) as plan_file:  # before anything is printed: no one may be reading
            plan_file.write(text.encode())
    if markdown:
        _print_markdown(planned, against)
    elif json:
        print_json(planned)
    else:
        console().print(view(describe(planned, resolved.job.evaluate)))
        if quote:
            print_quote(resolved, planned)
    _conclude(planned, output, file)


def _backend_names(backend: list[str] | None, *, all_backends: bool) -> list[str]:
    from unitune.backends import registry

    if all_backends and backend:
        raise UserError("give --all or --backend, not both.")
    if all_backends:
        return [name for name in registry.offer_names() if name != "fake"]
    return backend or []


def _refuse_for_several(**options: object) -> None:
    for name, value in options.items():
        if value:
            option = name.replace("_", "-")
            raise UserError(f"--{option} is for one backend; name one with --backend.")


def _plan_several(job: Job, names: list[str], *, json: bool) -> None:
    from unitune.cli.progress import working
    from unitune.planning.plan import plans
    from unitune.render.terminal import view
    from unitune.report.plan import describe_several

    if job.data.train is None:
        raise UserError(
            f"job {job.name!r} names no rows to train on, so that it is planned on no backend but "
            "its own: unitune plan without --all and --backend."
        )
    with working("reading rows, counting tokens", quiet=json):
        planned = plans(job, names)
    print_json(planned) if json else console().print(view(describe_several(planned)))


def _plan_single(resolved: ResolvedJob, *, count_with_vendor: bool) -> Plan:
    """Return a plan, with what a comparison of the job would refuse."""
    from unitune.evaluate.readiness import readiness_findings
    from unitune.planning.plan import comparison_plan, plan

    planned = comparison_plan(plan(resolved, vendor_counts=count_with_vendor), resolved)
    if planned.errors:
        return planned
    ready = readiness_findings(resolved.job, resolved.rows.read, resolved.book)
    return planned.model_copy(update={"findings": (*planned.findings, *ready)})


def _print_markdown(planned: Plan, against: Path | None) -> None:
    from unitune.planning import saved
    from unitune.render import markdown
    from unitune.report.plan import describe, has_changed

    base = saved.read(against) if against is not None else None
    if base is None or has_changed(planned, base):
        print_raw(markdown.render(describe(planned, base=base), "plan").removesuffix("\n"))


def _conclude(planned: Plan, output: Path | None, file: Path) -> None:
    from unitune.planning.saved import refuse_errors

    if output is not None:
        refuse_errors(planned)
        following = f"compare {file}" if planned.compares_only else f"apply {output}"
        aside().print(f"Saved. Next: unitune {following}")
    exit_for_errors(planned.findings)


def apply(
    file: PlanFile,
    *,
    detach: Detach = False,
    allow_duplicate: AllowDuplicate = False,
    allow_unpriced: AllowUnpriced = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Launch what a saved plan says, and only that.

    Refused with exit code 5 when the job, its rows or the prices have changed since.

    [dim]$ unitune plan unitune.yaml -o plan.json
    $ unitune apply plan.json[/dim]
    """
    from unitune.cli.progress import working
    from unitune.cli.sweep import run_job
    from unitune.planning import saved
    from unitune.planning.preflight import preflight

    planned = saved.read(file)
    job = saved.job_of(planned, file)
    if planned.charge == "unknown" and not allow_unpriced:
        raise OverBudget(
            f"{file} does not know what the training costs. Take it all the same with "
            "--allow-unpriced."
        )
    with working("reading rows, looking for leaks", quiet=quiet or json):
        resolved = preflight(job)
    run_job(
        resolved,
        f"unitune compare {saved.job_file_of(planned, file)}",
        allow_duplicate=allow_duplicate,
        allow_unpriced=allow_unpriced,
        plan=planned,
        detach=detach,
        quiet=quiet,
        json=json,
    )


def cost(
    file: JobFile = JOB_FILE,
    *,
    backend: Annotated[
        list[str] | None,
        backend_option("Of this backend; several: side by side, then each in full."),
    ] = None,
    all_backends: AllBackends = False,
    requests: RequestsMonth = None,
    price: OwnPrices,
    json: Json = False,
) -> None:
    """Say what a tuned model costs in total, and from which volume it beats prompting.

    Training, hosting and requests over the months that the model lives, against the prompted base
    and the newest untuned model. How it will be used stands in the job (`usage`), or is measured
    in its newest comparison, or counted. No vendor is called.

    [dim]$ unitune cost unitune.yaml
    $ unitune cost unitune.yaml --all
    $ unitune cost unitune.yaml --backend azure --requests 250000[/dim]
    """
    from unitune.cli.progress import working
    from unitune.job.job import Job
    from unitune.render.terminal import section_lines, view
    from unitune.report.plan import refused_section
    from unitune.report.total_cost import describe, describe_several
    from unitune.tco.total_cost import total_costs

    job = Job.load(file)
    names = _backend_names(backend, all_backends=all_backends) or [job.backend]
    job = job.with_prices(parse_prices(price, names[0] if len(names) == 1 else job.backend))
    with working("reading rows, counting tokens", quiet=json):
        costs = total_costs(job, names, requests_month=requests, only_launchable=all_backends)
    if json:
        print_json(costs)
        return
    if len(names) > 1:
        console().print(view(describe_several(costs.backends)))
    if all_backends:
        if costs.left_out:
            reasons = {name: reason.splitlines() for name, reason in costs.left_out.items()}
            refused = refused_section(reasons, "unitune cost FILE --backend NAME")
            console().print(Text(), *section_lines(refused), sep="\n")
        return
    for number, total_cost in enumerate(costs.backends):
        apart = [Text()] if number or len(names) > 1 else []
        console().print(*apart, view(describe(total_cost)), sep="\n")
    for name, reason in costs.left_out.items():
        console().print(f"\n{name} is left out: {reason}")
