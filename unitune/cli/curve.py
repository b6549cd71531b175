"""The command `unitune curve`: how much data a job needs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from unitune.cli.options import (
    JOB_FILE,
    AllowUnpriced,
    BudgetUsd,
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

    from unitune.evaluate.options import AnswerOptions
    from unitune.planning.plan import Plan, PlannedRun

Points = Annotated[
    int, typer.Option(metavar="N", min=3, max=8, help="How many sizes, each half of the next.")
]
Seeds = Annotated[
    int, typer.Option(metavar="N", min=2, max=8, help="How many trainings of each size.")
]
Goal = Annotated[
    float | None, typer.Option(metavar="SCORE", help="How many rows a score such as 0.9 takes.")
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Say what it would cost and take, and start nothing.")
]
DeployFor = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="If a model needs a deployment: bring one up for each, for so long at most.",
    ),
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
    """Say how much data a job needs: train it on parts of its rows, and carry the curve on.

    Each size of half, a quarter, … of the training rows is trained with several seeds, and judged
    on the validation rows; the test stays unused. What twice and four times the rows would bring
    comes with a range, or with the reason why the scores do not say. The same command goes on
    where it stopped; what costs money needs a budget, or a person who agrees to the price.

    [dim]$ unitune curve unitune.yaml --plan
    $ unitune curve unitune.yaml --goal 0.9
    $ unitune curve unitune.yaml --backend together --budget 20[/dim]
    """
    from unitune.cli.consent import confirm_answers, confirm_training, refuse_unready
    from unitune.cli.progress import evaluation_progress, working
    from unitune.cli.sweep import follow_sweep
    from unitune.evaluate.learning_curve import check_goal, judge_curve, with_budget
    from unitune.job.job import Job
    from unitune.planning.learning_curve import curve_notes, learning_curve_of
    from unitune.planning.plan import plan as curve_plan
    from unitune.planning.preflight import preflight
    from unitune.render.terminal import view
    from unitune.report.learning_curve import describe, write_page
    from unitune.run.sweep import launch_sweep

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
    page = write_page(made)
    if json:
        print_json(made)
    else:
        console().print(view(describe(made), [page]))


def answer_options(
    deploy: str | None, option: list[str] | None, *, allow_unpriced: bool
) -> AnswerOptions:
    """Return how validation rows are answered, by the options of the command line.

    Raises:
        UserError: They are not valid, or speak of a deployment where none is to be brought up.
    """
    from unitune.evaluate.options import AnswerOptions
    from unitune.run.deploying import ttl_seconds

    if option and deploy is None:
        raise UserError("--option is for the deployments that --deploy brings up; give both.")
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
        numbers = "rows", "runs", "steps a run"
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
        charge = "none: your own hardware" if planned.charge == "none" else usd_range(launch)
        if planned.estimate is not None:
            answers_usd = usd_range(planned.estimate.evaluation_usd)
            charge += f" for the trainings, {answers_usd} for the answers"
        judged = f"{rows:,} validation rows by each run{time}; the test stays unused"
        spent = planned.verdict_seconds
        whole = {"takes": f"about {duration(spent.expected)} in all"} if spent else {}
        console().print(facts({"judged on": judged, **whole, "charge": charge}))
    print_findings(planned.findings)


def _training(runs: Sequence[PlannedRun]) -> str:
    """Return what the trainings of a size take together, in time or in money."""
    from unitune.cost.spread import Spread
    from unitune.render.typography import duration, usd_range

    if forecasts := [run.forecast for run in runs if run.forecast is not None]:
        return f"about {duration(sum(each.seconds_expected for each in forecasts))}"
    usd = [run.estimate.launch_usd for run in runs if run.estimate is not None]
    known = [each for each in usd if each is not None]
    return usd_range(Spread.total(known) if known and len(known) == len(runs) else None)
