"""Implement `unitune data curve`: estimate how much data a job needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from unitune.cli.options import (
    JOB_FILE,
    AllowUnpriced,
    BudgetUsd,
    DeployFor,
    DeployOptions,
    JobFile,
    Json,
    OtherBackend,
    OwnPrices,
    Quiet,
    parse_deploy_options,
    parse_prices,
)
from unitune.cli.output import (
    console,
    exit_for_errors,
    facts,
    new_table,
    print_findings,
    print_json,
    print_table,
)
from unitune.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unitune.evaluate.inference.engine import AnswerOptions
    from unitune.planning.plan import Plan, PlannedRun

Points = Annotated[
    int, typer.Option(metavar="N", min=3, max=8, help="Number of sizes, each half of the next.")
]
Seeds = Annotated[
    int, typer.Option(metavar="N", min=2, max=8, help="Number of trainings per size.")
]
Goal = Annotated[
    float | None,
    typer.Option(metavar="SCORE", help="Score to estimate the number of rows for, e.g. 0.9."),
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Show the cost and time without starting anything.")
]


def curve(
    file: JobFile = JOB_FILE,
    *,
    points: Points = 4,
    seeds: Seeds = 3,
    goal: Goal = None,
    plan: PlanOnly = False,
    backend: OtherBackend = None,
    price: OwnPrices,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    deploy: DeployFor = None,
    option: DeployOptions = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Estimate how much data a job needs from trainings on parts of its rows.

    Each size (all training rows, a half, a quarter, …) is trained with several seeds and evaluated
    on the validation rows; the test stays unused. The expected gain from two and four times the
    rows is shown with a range, or with the reason why it cannot be estimated. Run the same command
    to continue where it stopped. Paid steps need a budget or your confirmation.

    [dim]$ unitune data curve unitune.yaml --plan
    $ unitune data curve unitune.yaml --goal 0.9
    $ unitune data curve unitune.yaml --backend together --budget 20[/dim]
    """
    from unitune.cli.consent import confirm_answers, confirm_training, refuse_unready
    from unitune.cli.progress import evaluation_progress, working
    from unitune.cli.sweep import follow_sweep
    from unitune.curve.measuring import check_goal, judge_curve, with_budget
    from unitune.curve.page import PAGE, describe
    from unitune.curve.planning import curve_notes, learning_curve_of
    from unitune.job.job import Job
    from unitune.planning.plan import plan as curve_plan
    from unitune.planning.preflight import preflight
    from unitune.render.html import write_page
    from unitune.render.terminal import view
    from unitune.run.run import launch_sweep

    check_goal(goal)
    options = answer_options(deploy, option, allow_unpriced=allow_unpriced)
    silent = quiet or json
    job = Job.load(file).with_backend(backend)
    job = job.with_prices(parse_prices(price, job.backend))
    with working("reading rows, looking for leaks", quiet=silent):
        resolved = preflight(job)
    refuse_unready(resolved)
    resolved = learning_curve_of(resolved, points, seeds)
    if budget is not None:
        resolved = with_budget(resolved, budget, allow_unpriced=allow_unpriced)
    with working("counting tokens, forecasting time", quiet=silent):
        planned = curve_plan(resolved)
        findings = (*planned.findings, *curve_notes(resolved))
        planned = planned.model_copy(update={"findings": findings})
    if plan:
        print_json(planned) if json else _print_plan(planned, seeds)
        exit_for_errors(planned.findings)
        return
    if not silent:
        _print_plan(planned, seeds)
    confirm_training(resolved, allow_unpriced=allow_unpriced)
    confirm_answers(resolved, {}, allow_unpriced=allow_unpriced)
    launches = launch_sweep(resolved, allow_unpriced=allow_unpriced)
    runs = follow_sweep(resolved, launches, quiet=silent)
    with evaluation_progress(quiet=silent) as progress:
        made = judge_curve(resolved, runs, goal=goal, options=replace(options, progress=progress))
    shown = describe(made)
    page = write_page(made.folder / PAGE, shown)
    if json:
        print_json(made)
    else:
        console().print(view(shown, [page]))


def answer_options(
    deploy: str | None, option: list[str] | None, *, allow_unpriced: bool
) -> AnswerOptions:
    """Return the options for answering validation rows.

    Raises:
        UserError: They are invalid, or there are deployment options without ``--deploy``.
    """
    from unitune.evaluate.inference.engine import AnswerOptions
    from unitune.run.deploying import ttl_seconds

    if option and deploy is None:
        raise UserError("--option configures the deployments of --deploy; pass both.")
    return AnswerOptions(
        deploy_seconds=None if deploy is None else ttl_seconds(deploy, "--deploy"),
        deploy_options=parse_deploy_options(option),
        allow_unpriced=allow_unpriced,
    )


def _print_plan(planned: Plan, seeds: int) -> None:
    from unitune.render.typography import duration, usd_range

    title = f": learning curve of {planned.model} on {planned.backend}"
    console().print(Text.assemble((planned.job, "bold"), title))
    if not planned.errors:
        numbers = "rows", "runs", "steps per run"
        table = new_table(*numbers, "training, all runs", right=numbers)
        for at in range(0, len(planned.runs), seeds):
            runs = planned.runs[at : at + seeds]
            forecasts = [run.forecast for run in runs if run.forecast is not None]
            steps = f"{forecasts[0].steps:,}" if forecasts else ""
            table.add_row(f"{runs[0].settings['rows']:,}", f"{seeds}", steps, _training(runs))
        print_table(table)
        rows, answers = planned.test_rows or 0, planned.evaluation
        time = f", about {duration(answers.seconds.expected)}" if answers else ""
        launch = planned.estimate and planned.estimate.launch_usd
        charge = "none (your own hardware)" if planned.charge == "none" else usd_range(launch)
        if planned.estimate is not None:
            answers_usd = usd_range(planned.estimate.evaluation_usd)
            charge += f" for the trainings, {answers_usd} for the answers"
        judged = f"{rows:,} validation rows per run{time}; the test stays unused"
        spent = planned.verdict_seconds
        whole = {"takes": f"about {duration(spent.expected)} in total"} if spent else {}
        console().print(facts({"evaluated on": judged, **whole, "charge": charge}))
    print_findings(planned.findings)


def _training(runs: Sequence[PlannedRun]) -> str:
    from unitune.cost.spread import Spread
    from unitune.render.typography import duration, usd_range

    if forecasts := [run.forecast for run in runs if run.forecast is not None]:
        return f"about {duration(sum(each.seconds_expected for each in forecasts))}"
    usd = [run.estimate.launch_usd for run in runs if run.estimate is not None]
    known = [each for each in usd if each is not None]
    return usd_range(Spread.total(known) if known and len(known) == len(runs) else None)
