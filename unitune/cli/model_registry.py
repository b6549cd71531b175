"""Commands about registered models: models, register, promote, rollback, unalias, verify."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.compare import Batch, DeployFor, confirm_costs
from unitune.cli.completion import complete_alias, complete_model, complete_run
from unitune.cli.options import (
    JOB_FILE,
    AllowUnpriced,
    BudgetUsd,
    DeployOptions,
    JobFile,
    Json,
    Quiet,
    RunId,
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
        help="An alias of a registered model, such as triage@production.",
        autocompletion=complete_alias,
    ),
]
ModelName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of the registered model; by default the job's.")
]
MoveDeployment = Annotated[
    bool,
    typer.Option(
        "--deploy", help="Let the deployment that answers for the alias answer with this version."
    ),
]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for the record.")]


def models(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Show the versions of this one.", autocompletion=complete_model
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List the registered models; or one's versions, with aliases, verdicts, costs and dates.

    The base models that can be tuned here are listed by `unitune base-models`.

    [dim]$ unitune models
    $ unitune models triage[/dim]
    """
    from unitune.cli.model_registry_view import print_model, print_models, view_of
    from unitune.model_registry.versions import find_registered_model, registered_models

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
    """Give the model of a succeeded run the next version number of a name.

    `unitune promote` does so by itself.

    [dim]$ unitune register r2611
    $ unitune compare --run triage:3[/dim]
    """
    from unitune.model_registry.versions import register
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
        str, typer.Option("--as", metavar="ALIAS", help="Which alias is to point to it.")
    ],
    name: ModelName = None,
    without_gate: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Although it has passed no gate; recorded."),
    ] = None,
    deploy: MoveDeployment = False,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    json: Json = False,
) -> None:
    """Let an alias such as production point to the model of a run that has passed its gate.

    The newest comparison with a gate that has judged this very model decides. Where it was not
    passed, nothing is changed, and the exit code is the gate's. With --deploy the deployment that
    answers for the alias (of Bedrock) is moved first; --budget is for the rest of its time.

    [dim]$ unitune promote r2611 --as production
    $ unitune promote triage:3 --as production --without-gate "approved by Ana, ticket 812"
    $ unitune promote r2611 --as production --deploy --budget 20[/dim]
    """
    from unitune.model_registry.versions import promote
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
    """Let an alias point to the version again that it pointed to before.

    Each rollback leads one version further back; none takes back another rollback.

    [dim]$ unitune rollback triage@production --reason "answers in the wrong language"
    $ unitune rollback triage@production --deploy --budget 20[/dim]
    """
    from unitune.model_registry.versions import rollback

    allowed = _hosting_budget(budget, deploy=deploy, unpriced=allow_unpriced)
    _print_move(rollback(name, reason, deploy=allowed), json=json, deploy=deploy)


def unalias(name: Alias, *, reason: Reason = None, json: Json = False) -> None:
    """Remove an alias; its version stays, and so does what is on record of its moves.

    [dim]$ unitune unalias triage@staging[/dim]
    """
    from unitune.model_registry.versions import remove_alias

    move = remove_alias(name, reason)
    if json:
        print_json({"schema_version": 1, "move": move})
    else:
        console().print(f"{move} is removed; it pointed to version {move.number}.")


def _hosting_budget(usd: Decimal | None, *, deploy: bool, unpriced: bool) -> HostingBudget | None:
    from unitune.cost.budget import HostingBudget

    if not deploy and (usd is not None or unpriced):
        raise UserError("--budget and --allow-unpriced are for the deployment. Add --deploy.")
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
        console().print(f"{deployment.id} answers with it.")


def verify(
    version: Annotated[
        str,
        typer.Argument(
            metavar="VERSION",
            help="Of a registered model: NAME@ALIAS or NAME:3.",
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
    """Run a job's gate again for a version, on answers given now, to see whether it has drifted.

    Exits as the gate decides, and 5 where the files of the model are not those that were
    registered. What its answers have gained and lost since it was promoted is printed, too.

    [dim]$ unitune verify triage@production evals/unitune.yaml --budget 2[/dim]
    """
    from unitune.cli.model_registry_view import change_lines
    from unitune.cli.progress import evaluation_progress
    from unitune.job.job import Job
    from unitune.model_registry.verify import verify
    from unitune.planning.preflight import preflight
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
