"""Commands that ask models: compare, chat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.options import (
    AllowUnpriced,
    DeployOption,
    JobFile,
    Json,
    OtherBackend,
    Quiet,
    RunId,
)
from unitune.errors import UserError

if TYPE_CHECKING:
    from unitune.job.job import Job
    from unitune.planning.preflight import ResolvedJob
    from unitune.run.run import Run


def compare(
    file: JobFile,
    *,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Default: the newest run of this very training."),
    ] = None,
    backend: OtherBackend = None,
    deploy: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="If the model needs a deployment: bring one up, for so long at most.",
        ),
    ] = None,
    option: DeployOption = None,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch", help="Test cases in batches: within a day, for about half the price."
        ),
    ] = False,
    replay: Annotated[
        bool,
        typer.Option(
            "--replay", help="Judge by the recorded answers: no question, no key, no cost."
        ),
    ] = False,
    use_cache: Annotated[
        bool, typer.Option("--use-cache", help="Take answers that another comparison was given.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(metavar="USD", help="The most that the answers may cost, in US dollars."),
    ] = None,
    allow_unpriced: AllowUnpriced = False,
    update_baseline: Annotated[
        bool,
        typer.Option(
            "--update-baseline", help="Accept these scores: write the gate's baseline file."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where rows, verdict and report go."),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Judge the tuned model against the best prompt, case by case, and gate on it.

    Killed at any moment, it goes on where it stopped. Without a gate in the job it exits 0
    whatever the verdict. Where a vendor takes money for answers it needs a budget (--budget, or
    evaluate.budget); without one a terminal asks, and a script is refused.

    [dim]$ unitune compare unitune.yaml
    $ unitune compare unitune.yaml --batch
    $ unitune compare unitune.yaml --replay --output evaluation
    $ unitune compare unitune.yaml --json > verdict.json[/dim]
    """
    from unitune.cli.consent import consent_to_answers, consent_to_deployment
    from unitune.cli.options import deploy_options_of, seconds_of, usd_of
    from unitune.cli.output import aside, console, print_json_text
    from unitune.cli.progress import asking
    from unitune.cost.budget import HostingBudget
    from unitune.evaluate.compare import compare as make_comparison
    from unitune.evaluate.compare import default_folder
    from unitune.job.job import Job
    from unitune.planning.preflight import preflight
    from unitune.report.files import write_report
    from unitune.report.terminal import comparison_view
    from unitune.run.deploying import needs_deployment

    if option and deploy is None:
        raise UserError("--option is for the deployment that --deploy brings up; give both.")
    job = Job.load(file).with_backend(backend)
    if budget is not None:
        job = job.with_evaluation_budget(usd_of("--budget", budget))
    found = None if run is None else _named(run)
    seconds = None if deploy is None else seconds_of("--deploy", deploy)
    resolved = preflight(job)
    if not replay and job.evaluate.budget is None:
        consent_to_answers(resolved, allow_unpriced=allow_unpriced)
        if seconds is not None:
            found = found or _newest(resolved)
            if needs_deployment(found):
                consent_to_deployment(found, seconds, HostingBudget(unpriced=allow_unpriced))
    with asking(quiet=quiet or json) as progress:
        comparison = make_comparison(
            resolved,
            found,
            out=out,
            deploy_seconds=seconds,
            deploy_options=deploy_options_of(option),
            batch=batch,
            replay=replay,
            use_cache=use_cache,
            update_baseline=update_baseline,
            allow_unpriced=allow_unpriced,
            progress=progress,
            announce=None if quiet or json else aside().print,
        )
    folder = out or default_folder(comparison)
    write_report(comparison, folder)
    if json:
        print_json_text(comparison.verdict_json())
    else:
        console().print(comparison_view(comparison, folder))
        if update_baseline:
            console().print(_baseline_line(job, passed=comparison.exit_code == 0))
    raise typer.Exit(comparison.exit_code)


def _baseline_line(job: Job, *, passed: bool) -> str:
    gate = job.evaluate.gate
    path = job.path(gate.baseline) if gate and gate.baseline else job.folder
    if passed:
        return f"{path} is written; look through its diff and commit it."
    return f"{path} is left as it was: the gate's other rules must pass first."


def _newest(resolved: ResolvedJob) -> Run:
    """Return the run whose model is judged where the user names none."""
    from unitune.evaluate.prompts.tuned_run import find_tuned_run

    return find_tuned_run(resolved, None).run


def _named(run: str) -> Run:
    from unitune.run.run import find_run

    return find_run(run)


def chat(
    run: RunId,
    *,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask once and print the answer.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Ask the untuned model instead.")] = False,
    system: Annotated[
        str | None,
        typer.Option(help="System prompt; by default the one that all training rows share."),
    ] = None,
) -> None:
    """Talk to the model of a run; an empty line or Ctrl-D ends it.

    [dim]$ unitune chat r2611
    $ unitune chat r2611 -m "where is my parcel??"[/dim]
    """
    from unitune.cli.output import print_raw
    from unitune.cli.talking import Conversation
    from unitune.run.run import find_run

    conversation = Conversation.open(find_run(run), base=base, system=system)
    with conversation.model:
        if message is not None:
            print_raw(conversation.say(message))
        else:
            conversation.talk()
