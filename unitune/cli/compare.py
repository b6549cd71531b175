"""Implement `unitune compare`: evaluate the tuned model against the best prompt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.export import print_outcomes
from unitune.cli.options import (
    JOB_FILE,
    AllowUnpriced,
    BudgetUsd,
    DeployFor,
    DeployOptions,
    JobFile,
    Json,
    OtherBackend,
    Quiet,
    complete_run,
    parse_deploy_options,
)
from unitune.cli.output import aside, console, print_json_text
from unitune.errors import UserError

if TYPE_CHECKING:
    from unitune.evaluate.documents.results import Comparison
    from unitune.planning.preflight import ResolvedJob
    from unitune.run.run import Run

TunedBy = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Run to evaluate when no contender names one (default: the job's newest).",
        autocompletion=complete_run,
    ),
]
Batch = Annotated[
    bool,
    typer.Option("--batch", help="Use batch requests: within a day, for about half the price."),
]
Replay = Annotated[
    bool,
    typer.Option("--replay", help="Score recorded answers only: no request, no key, no cost."),
]
UseCache = Annotated[
    bool, typer.Option("--use-cache", help="Reuse cached answers from earlier comparisons.")
]
UpdateBaseline = Annotated[
    bool,
    typer.Option(
        "--update-baseline", help="Accept these scores and write the gate's baseline file."
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Preview on N test cases, always the same (no verdict, no gate).",
    ),
]
NewAnswers = Annotated[
    str | None,
    typer.Option(
        metavar="REASON",
        help="Request answers again from a tested candidate; REASON is recorded.",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Folder for rows, verdict and report."),
]


def compare(
    file: JobFile = JOB_FILE,
    *,
    run: TunedBy = None,
    limit: Limit = None,
    backend: OtherBackend = None,
    deploy: DeployFor = None,
    option: DeployOptions = None,
    batch: Batch = False,
    replay: Replay = False,
    use_cache: UseCache = False,
    new_answers: NewAnswers = None,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    update_baseline: UpdateBaseline = False,
    output: Folder = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Evaluate the tuned model against the best prompt, and apply the job's gate.

    By default the newest run of this training is evaluated; of a sweep, the run with the best score
    on the validation rows. If it is interrupted, or after a preview (--limit), the same command
    continues. Without a gate in the job it exits 0 whatever the verdict. If a vendor charges for
    answers, set a budget (--budget or evaluate.budget). Without one, a terminal asks for
    confirmation and a script is refused.

    [dim]$ unitune compare unitune.yaml
    $ unitune compare unitune.yaml --limit 20
    $ unitune compare unitune.yaml --replay --output evaluation
    $ unitune compare unitune.yaml --json > verdict.json[/dim]
    """
    from unitune.cli.progress import evaluation_progress, working
    from unitune.evaluate.compare import compare as run_comparison
    from unitune.job.job import Job
    from unitune.planning.preflight import preflight

    if option and deploy is None:
        raise UserError("--option configures the deployment of --deploy; pass both.")
    job = Job.load(file).with_backend(backend)
    if budget is not None:
        job = job.with_evaluation_budget(budget)
    tuned_run = seconds = None
    if run is not None:
        from unitune.run.run import find_run

        tuned_run = find_run(run)
    if deploy is not None:
        from unitune.run.deploying import ttl_seconds

        seconds = ttl_seconds(deploy, "--deploy")
    with working("reading rows, looking for leaks", quiet=quiet or json):
        resolved = preflight(job)
    if not replay and job.evaluate.budget is None:
        confirm_costs(resolved, limit, tuned_run, seconds, allow_unpriced=allow_unpriced)
    with evaluation_progress(quiet=quiet or json) as progress:
        comparison = run_comparison(
            resolved,
            tuned_run,
            out=output,
            deploy_seconds=seconds,
            deploy_options=parse_deploy_options(option),
            batch=batch,
            replay=replay,
            use_cache=use_cache,
            update_baseline=update_baseline,
            limit=limit,
            new_answers=new_answers,
            allow_unpriced=allow_unpriced,
            progress=progress,
            announce=None if quiet or json else aside().print,
        )
    _show(comparison, json=json)
    if update_baseline and not json:
        _print_baseline(resolved, passed=comparison.exit_code == 0)
    if job.track:
        from unitune.report.tracking import track_comparison

        print_outcomes(track_comparison(comparison, job.track))
    raise typer.Exit(comparison.exit_code)


def _show(comparison: Comparison, *, json: bool) -> None:
    from unitune.render.terminal import view
    from unitune.report.comparison import describe
    from unitune.report.files import write_report

    page = write_report(comparison)
    if json:
        print_json_text(comparison.verdict_json())
    else:
        console().print(view(describe(comparison), [page]))


def confirm_costs(
    resolved: ResolvedJob,
    limit: int | None,
    run: Run | None,
    seconds: float | None,
    *,
    allow_unpriced: bool,
) -> None:
    """Ask the user to confirm the costs of answers and deployments, unless a budget covers them."""
    from unitune.cli.consent import confirm_answers, confirm_deployment, limited
    from unitune.cost.budget import HostingBudget
    from unitune.evaluate.prompts.tuned_run import find_runs, find_sweep_runs
    from unitune.job.contenders import Tuned
    from unitune.run.deploying import needs_deployment

    job = resolved.job
    named = [spec for spec in job.evaluate.contenders if isinstance(spec, Tuned) and spec.run]
    runs: dict[str, Run] = {}
    if named or seconds is not None:  # otherwise no run has to be looked up
        swept = {} if run or not job.sweep else find_sweep_runs(resolved, replay=False)
        chosen = run or next(iter(swept.values()), None)  # any of them: they cost the same
        runs = find_runs(job, resolved.fingerprint, chosen, replay=False) | swept
    trained = {name: each.job for name, each in runs.items()}
    judged = resolved if limit is None else limited(resolved, limit)
    confirm_answers(judged, trained, allow_unpriced=allow_unpriced)
    for each in {each.id: each for each in runs.values()}.values():
        if seconds is not None and needs_deployment(each):
            confirm_deployment(each, seconds, HostingBudget(unpriced=allow_unpriced))


def _print_baseline(resolved: ResolvedJob, *, passed: bool) -> None:
    job, gate = resolved.job, resolved.job.evaluate.gate
    path = job.path(gate.baseline) if gate and gate.baseline else job.folder
    if passed:
        console().print(f"Wrote {path}. Review its diff and commit it.")
    else:
        console().print(f"{path} is unchanged: the gate's other rules must pass first.")
