"""Implement `unitune decide`: recommend tuning or prompting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.options import (
    JOB_FILE,
    AllowUnpriced,
    BudgetUsd,
    DeployFor,
    DeployOptions,
    JobFile,
    Json,
    OwnPrices,
    Quiet,
    RequestsMonth,
    backend_option,
    parse_prices,
)
from unitune.cli.output import aside, console, print_json
from unitune.curve.command import Seeds, answer_options
from unitune.errors import OverBudget

if TYPE_CHECKING:
    from unitune.decision.evidence import Measurement
    from unitune.planning.preflight import ResolvedJob
    from unitune.run.run import Run

Backends = Annotated[
    list[str] | None,
    backend_option("Backend to consider for tuning (repeatable; default: the job's)."),
]
Goal = Annotated[
    float | None,
    typer.Option(metavar="SCORE", help="Score that is good enough, e.g. 0.9."),
]
Points = Annotated[
    int,
    typer.Option(
        metavar="N", min=3, max=8, help="Number of sizes on the learning curve, if needed."
    ),
]
PlanOnly = Annotated[
    bool,
    typer.Option("--plan", help="Measure nothing; show what is known and the next step."),
]


def decide(
    file: JobFile = JOB_FILE,
    *,
    backend: Backends = None,
    goal: Goal = None,
    requests: RequestsMonth = None,
    points: Points = 3,
    seeds: Seeds = 3,
    plan: PlanOnly = False,
    price: OwnPrices,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    deploy: DeployFor = None,
    option: DeployOptions = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Recommend tuning or prompting, based on measurements.

    Measures step by step, cheapest first, until the answer is clear: the data, prompts, one
    training, a learning curve. All steps use the validation rows; the test stays unused. The answer
    is to prompt, to tune here or at a vendor, to collect more rows first, or that it cannot tell,
    with reasons. Paid steps need a budget or your confirmation.

    [dim]$ unitune decide unitune.yaml
    $ unitune decide unitune.yaml --goal 0.9 --requests 250000
    $ unitune decide unitune.yaml --backend local --backend together --budget 20[/dim]
    """
    from unitune.cli.consent import confirm_answers, confirm_training
    from unitune.cli.progress import evaluation_progress, working
    from unitune.cli.sweep import follow_sweep
    from unitune.curve.measuring import check_goal
    from unitune.decision.decide import measure_and_conclude, resolve
    from unitune.decision.evidence import PAGE, describe
    from unitune.decision.measuring import Choices
    from unitune.job.job import Job
    from unitune.render.html import write_page
    from unitune.render.terminal import view
    from unitune.run.run import launch_sweep

    check_goal(goal)
    silent = quiet or json

    def launch(sweep: ResolvedJob) -> list[Run]:
        launches = launch_sweep(sweep, allow_unpriced=allow_unpriced)
        return follow_sweep(sweep, launches, quiet=silent)

    def agree(what: Measurement, judged: ResolvedJob) -> None:
        if what != "prompts":
            confirm_training(judged, allow_unpriced=allow_unpriced)
        confirm_answers(judged, {}, allow_unpriced=allow_unpriced)

    job = Job.load(file)
    job = job.with_prices(parse_prices(price, job.backend))
    with working("reading rows, looking for leaks", quiet=silent):
        resolved = resolve(job, backend or [])
    choices = Choices(
        points=points,
        seeds=seeds,
        requests_month=requests,
        budget=budget,
        launch=launch,
        agree=agree,
        answers=answer_options(deploy, option, allow_unpriced=allow_unpriced),
        shown=lambda: evaluation_progress(quiet=silent),
        goal=goal,
        file="" if file == JOB_FILE else str(file),
        announce=lambda found: None if silent else aside().print(" ".join(found.reasons)),
    )
    decision = measure_and_conclude(resolved, choices, measure=not plan)
    shown = describe(decision)
    page = write_page(decision.folder / PAGE, shown)
    if json:
        print_json(decision)
    else:
        console().print(view(shown, [page]))
    if decision.over_budget and budget is not None:
        raise typer.Exit(OverBudget.exit_code)
