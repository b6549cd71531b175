"""Implement the registry commands: models, register, promote, rollback, unalias, verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.compare import Batch, confirm_costs
from unitune.cli.options import (
    JOB_FILE,
    AllowUnpriced,
    BudgetUsd,
    DeployFor,
    DeployOptions,
    JobFile,
    Json,
    Quiet,
    RunId,
    complete_alias,
    complete_model,
    complete_run,
    parse_deploy_options,
)
from unitune.cli.output import aside, console, print_json
from unitune.errors import UserError

if TYPE_CHECKING:
    from decimal import Decimal

    from unitune.cost.budget import HostingBudget
    from unitune.ledger.model_versions import AliasMove

Alias = Annotated[
    str,
    typer.Argument(
        metavar="NAME@ALIAS",
        help="Alias of a registered model, e.g. triage@production.",
        autocompletion=complete_alias,
    ),
]
ModelName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Registered model (default: the job's name).")
]
MoveDeployment = Annotated[
    bool,
    typer.Option("--deploy", help="Also switch the alias's deployment to this version."),
]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Reason for the audit log.")]


def models(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Model whose versions to show.", autocompletion=complete_model
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List registered models, or the versions of one with verdicts and costs.

    `unitune models base` lists the base models that can be tuned here.

    [dim]$ unitune models
    $ unitune models triage[/dim]
    """
    from unitune.cli.model_registry_view import print_model, print_models, view_of
    from unitune.registry.versions import find_registered_model, registered_models

    if model is None:
        listed = registered_models()
        if json:
            print_json({"schema_version": 1, "models": [view_of(each) for each in listed]})
        else:
            print_models(listed)
        return
    view = view_of(find_registered_model(model))
    print_json(view) if json else print_model(view)


def register(run: RunId, *, name: ModelName = None, json: Json = False) -> None:
    """Register the model of a successful run as the next version of a name.

    `unitune models promote` registers it automatically.

    [dim]$ unitune models register r2611
    $ unitune compare --run triage:3[/dim]
    """
    from unitune.registry.versions import register
    from unitune.run.run import find_run

    version = register(find_run(run), name)
    if json:
        print_json({"schema_version": 1, "version": version})
    else:
        console().print(f"{version} is the model of run {version.run_id}.")


def promote(
    run: RunId,
    *,
    alias: Annotated[
        str, typer.Option("--as", metavar="ALIAS", help="Alias to point to it, e.g. production.")
    ],
    name: ModelName = None,
    without_gate: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="Promote without a passed gate; REASON goes into the audit log."
        ),
    ] = None,
    deploy: MoveDeployment = False,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    json: Json = False,
) -> None:
    """Point an alias such as production to the model of a run that passed its gate.

    The newest comparison of this model that applied a gate decides. If the gate was not passed,
    nothing changes and the exit code is the gate's. With --deploy, the alias's deployment (Bedrock
    only) is switched first; --budget limits the cost of its remaining time.

    [dim]$ unitune models promote r2611 --as production
    $ unitune models promote triage:3 --as production --without-gate "approved by Ana, ticket 812"
    $ unitune models promote r2611 --as production --deploy --budget 20[/dim]
    """
    from unitune.registry.versions import promote
    from unitune.run.run import find_run

    allowed = _hosting_budget(budget, deploy=deploy, unpriced=allow_unpriced)
    move = promote(find_run(run), alias, name=name, without_gate=without_gate, deploy=allowed)
    _print_move(move, json=json, deploy=deploy)


def rollback(
    name: Alias,
    *,
    reason: Reason = None,
    deploy: MoveDeployment = False,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    json: Json = False,
) -> None:
    """Point an alias back to its previous version.

    Each rollback goes one version further back; it never undoes another rollback.

    [dim]$ unitune models rollback triage@production --reason "answers in the wrong language"
    $ unitune models rollback triage@production --deploy --budget 20[/dim]
    """
    from unitune.registry.versions import rollback

    allowed = _hosting_budget(budget, deploy=deploy, unpriced=allow_unpriced)
    _print_move(rollback(name, reason, deploy=allowed), json=json, deploy=deploy)


def unalias(name: Alias, *, reason: Reason = None, json: Json = False) -> None:
    """Remove an alias; its version and the record of its moves are kept.

    [dim]$ unitune models unalias triage@staging[/dim]
    """
    from unitune.registry.versions import remove_alias

    move = remove_alias(name, reason)
    if json:
        print_json({"schema_version": 1, "move": move})
    else:
        console().print(f"Removed {move}, which pointed to version {move.number}.")


def _hosting_budget(usd: Decimal | None, *, deploy: bool, unpriced: bool) -> HostingBudget | None:
    from unitune.cost.budget import HostingBudget

    if not deploy and (usd is not None or unpriced):
        raise UserError("--budget and --allow-unpriced apply to a deployment. Add --deploy.")
    return HostingBudget(usd, unpriced) if deploy else None


def _print_move(move: AliasMove, *, json: bool, deploy: bool) -> None:
    from unitune.cli.model_registry_view import evidence
    from unitune.run.deploying import find_deployment

    if json:
        print_json({"schema_version": 1, "move": move})
        return
    before = "" if move.previous in (None, move.number) else f", no longer to {move.previous}"
    still = "still points" if move.previous == move.number else "points"
    console().print(f"{move} {still} to version {move.number}{before} ({evidence(move)}).")
    if deploy:
        deployment = find_deployment(f"{move.model}:{move.number}")
        console().print(f"{deployment.id} now serves it.")


def verify(
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION",
            help="Version of a registered model: NAME@ALIAS or NAME:3.",
            autocompletion=complete_run,
        ),
    ],
    file: JobFile = JOB_FILE,
    *,
    deploy: DeployFor = None,
    option: DeployOptions = None,
    batch: Batch = False,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run a job's gate again with new answers, to see whether a version has drifted.

    Exits with the gate's code, or with 5 if the model's files are not the registered ones. Cases
    gained and lost since its promotion are printed, too.

    [dim]$ unitune models verify triage@production evals/unitune.yaml --budget 2[/dim]
    """
    from unitune.cli.model_registry_view import change_lines
    from unitune.cli.progress import evaluation_progress
    from unitune.job.job import Job
    from unitune.planning.preflight import preflight
    from unitune.registry.verification import verify
    from unitune.render.terminal import view
    from unitune.report.comparison import describe
    from unitune.report.files import write_report
    from unitune.run.deploying import ttl_seconds
    from unitune.run.run import find_run

    job = Job.load(file)
    if budget is not None:
        job = job.with_evaluation_budget(budget)
    resolved, seconds = preflight(job), None if deploy is None else ttl_seconds(deploy, "--deploy")
    if job.evaluate.budget is None:
        confirm_costs(resolved, None, find_run(version), seconds, allow_unpriced=allow_unpriced)
    with evaluation_progress(quiet=quiet or json) as progress:
        verified = verify(
            version,
            resolved,
            deploy_seconds=seconds,
            deploy_options=parse_deploy_options(option),
            batch=batch,
            allow_unpriced=allow_unpriced,
            progress=progress,
            announce=None if quiet or json else aside().print,
        )
    page = write_report(verified.comparison)
    if json:
        print_json(verified.model_dump(mode="json", exclude={"comparison": {"cases"}}))
    else:
        console().print(view(describe(verified.comparison), [page]))
        for line in change_lines(verified):
            console().print(line)
    raise typer.Exit(verified.exit_code)
