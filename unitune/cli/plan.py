"""Implement the commands about the cost of a job: plan and cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from unitune.cli.options import (
    JOB_FILE,
    BudgetUsd,
    JobFile,
    Json,
    OwnPrices,
    RequestsMonth,
    backend_option,
    parse_prices,
)
from unitune.cli.output import (
    Kind,
    aside,
    check_output,
    console,
    exit_for_errors,
    print_json,
    print_raw,
    replacing,
)
from unitune.errors import UserError

if TYPE_CHECKING:
    from unitune.job.job import Job
    from unitune.planning.plan import Plan
    from unitune.planning.preflight import ResolvedJob

Backends = Annotated[
    list[str] | None, backend_option("Backend to use; several are compared (repeatable).")
]
AllBackends = Annotated[bool, typer.Option("--all", help="Compare every supported backend.")]
Calibrate = Annotated[
    bool, typer.Option("--calibrate", help="Time a few training steps on this machine first.")
]
Quote = Annotated[
    bool, typer.Option("--quote", help="Upload the rows and request the vendor's quote.")
]
CountWithVendor = Annotated[
    bool,
    typer.Option("--count-with-vendor", help="Upload a sample of rows for the vendor to count."),
]
ShowTokens = Annotated[
    bool, typer.Option("--show-tokens", help="Print rows with the trained tokens in colour.")
]
ShownRows = Annotated[
    int, typer.Option(min=1, metavar="N", help="Number of rows for --show-tokens.")
]
SavedPlan = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="PLAN", help="Save the plan for `unitune run --plan`."),
]
BasePlan = Annotated[
    Path | None,
    typer.Option(metavar="PLAN", help="Saved plan whose changes --markdown shows."),
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown for a pull request.")]


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
    """Show the cost, time and memory of a job without starting anything.

    Prints findings, tokens, the range of the cost, time and memory. `unitune run` refuses a job
    whose plan has errors. No vendor is called, and a hosted backend needs no extra.

    [dim]$ unitune plan unitune.yaml
    $ unitune plan unitune.yaml --all
    $ unitune plan unitune.yaml --backend together --backend openai
    $ unitune plan unitune.yaml -o plan.json && unitune run --plan plan.json[/dim]
    """
    from unitune.cli.plan_view import print_quote, print_tokens
    from unitune.cli.progress import working
    from unitune.job.job import Job
    from unitune.planning.forecasts import calibrate as time_steps
    from unitune.planning.preflight import preflight
    from unitune.planning.saved import saved_text
    from unitune.render.terminal import view
    from unitune.report.plan import describe

    names = _backend_names(backend, all_backends=all_backends)
    if against is not None and not markdown:
        raise UserError("--against needs --markdown, which prints the changes; pass both.")
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
        planned = plan_single(resolved, count_with_vendor=count_with_vendor)
    if output is not None and not planned.errors:
        text = saved_text(planned, output, file)
        with replacing(output) as plan_file:  # before printing: standard output may be closed
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
        raise UserError("pass --all or --backend, not both.")
    if all_backends:
        return [name for name in registry.offer_names() if name != "fake"]
    return backend or []


def _refuse_for_several(**options: object) -> None:
    for name, value in options.items():
        if value:
            option = name.replace("_", "-")
            raise UserError(f"--{option} works with one backend; pass one with --backend.")


def _plan_several(job: Job, names: list[str], *, json: bool) -> None:
    from unitune.cli.progress import working
    from unitune.planning.plan import plans
    from unitune.render.terminal import view
    from unitune.report.plan import describe_several

    if job.data.train is None:
        raise UserError(
            f"job {job.name!r} has no training rows, so it can only be planned on its own backend. "
            "Leave out --all and --backend."
        )
    with working("reading rows, counting tokens", quiet=json):
        planned = plans(job, names)
    print_json(planned) if json else console().print(view(describe_several(planned)))


def plan_single(resolved: ResolvedJob, *, count_with_vendor: bool = False) -> Plan:
    """Return a plan with the findings that would make a comparison refuse the job."""
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
        following = f"compare {file}" if planned.compares_only else f"run --plan {output}"
        aside().print(f"Saved. Next: unitune {following}")
    exit_for_errors(planned.findings)


def cost(
    file: JobFile = JOB_FILE,
    *,
    backend: Backends = None,
    all_backends: AllBackends = False,
    requests: RequestsMonth = None,
    price: OwnPrices,
    json: Json = False,
) -> None:
    """Show the total cost of ownership, and the volume at which tuning pays off.

    Compares training, hosting and requests over the model's lifetime with the prompted base model
    and the newest untuned model. Usage is read from the job (`usage`), its newest comparison, or
    a count of tokens. No vendor is called.

    [dim]$ unitune cost unitune.yaml
    $ unitune cost unitune.yaml --all
    $ unitune cost unitune.yaml --backend azure --requests 250000[/dim]
    """
    from unitune.cli.progress import working
    from unitune.job.job import Job
    from unitune.ownership.page import describe, describe_several
    from unitune.ownership.total_cost import total_costs
    from unitune.render.terminal import section_lines, view
    from unitune.report.plan import refused_section

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
