"""Implement the commands for deployments at vendors: deploy, undeploy, deployments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.options import (
    AllowUnpriced,
    BudgetUsd,
    DeployOptions,
    Json,
    OwnPrices,
    RunId,
    parse_deploy_options,
    parse_prices,
)
from unitune.cli.output import aside, console, new_table, print_json, print_table
from unitune.errors import BackendError

if TYPE_CHECKING:
    from unitune.run.deploying import Deployment


def deploy(
    run: RunId,
    *,
    ttl: Annotated[
        str, typer.Option(metavar="TIME", help="Time until it is deleted: 30m, 2h, 1d.")
    ] = "2h",
    option: DeployOptions = None,
    wait: Annotated[bool, typer.Option(help="Wait until it is ready.")] = True,
    price: OwnPrices,
    budget: BudgetUsd = None,
    allow_unpriced: AllowUnpriced = False,
    json: Json = False,
) -> None:
    """Deploy a tuned model at its vendor for a limited time; it is billed by the hour.

    Set a budget (--budget or budget.yaml). Without one, a terminal asks for confirmation and a
    script is refused.

    [dim]$ unitune deployments up r2611 --ttl 2h --budget 20[/dim]
    """
    from unitune.cli.consent import confirm_deployment
    from unitune.cost.budget import HostingBudget
    from unitune.run.deploying import deploy, ttl_seconds
    from unitune.run.run import find_run

    tuned_run = find_run(run)
    seconds, options = ttl_seconds(ttl, "--ttl"), parse_deploy_options(option)
    prices = tuple(parse_prices(price, tuned_run.backend_name))
    limit = HostingBudget(usd=budget, unpriced=allow_unpriced, prices=prices)
    confirm_deployment(tuned_run, seconds, limit, options)
    deployment = deploy(tuned_run, ttl=seconds, options=options, budget=limit)
    if wait:
        aside().print(f"{deployment.id} is {deployment.state}; waiting until it is ready.")
        deployment.wait()
    if json:
        _print_json([deployment])
    else:
        until = f"{deployment.until.astimezone():%H:%M}"
        console().print(f"{deployment.id} is {deployment.state}, until {until}.")
        console().print(f"Delete it sooner: unitune deployments down {deployment.id}")


def undeploy(
    deployment: Annotated[
        str, typer.Argument(metavar="DEPLOYMENT", help="Id of a deployment or a run.")
    ],
) -> None:
    """Delete a deployment, or all active deployments of a run.

    [dim]$ unitune deployments down r2611[/dim]
    """
    from unitune.run.deploying import find_deployments

    failures: list[str] = []
    for active in find_deployments(deployment):
        try:
            ended = active.take_down()
        except BackendError as error:
            failures.append(str(error))
            continue
        spent = "" if ended.usd_spent is None else f" It cost about ${ended.usd_spent}."
        console().print(f"{ended.id} is {ended.state}.{spent}")
    if failures:
        raise BackendError("\n".join(failures))


def deployments(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="List deleted deployments, too.")
    ] = False,
    reap: Annotated[
        bool,
        typer.Option("--reap", help="Restart missing processes that delete deployments on time."),
    ] = False,
    json: Json = False,
) -> None:
    """List active deployments with their backend, age, price and cost so far.

    Deletes deployments whose time is over. Some vendors delete unused ones earlier, which is noted.

    [dim]$ unitune deployments[/dim]
    """
    from unitune.run import deploying

    listed = deploying.deployments(standing=not everything)
    for deployment in listed:
        try:
            deployment.refresh()
        except BackendError as error:
            aside().print(
                f"{deployment.id} could not be checked, so its last state is shown: {error}"
            )
    for deployment in deploying.without_reaper():
        text = unwatched(deployment)
        if reap:
            deploying.leave_reaper_again(deployment)
            text = f"{deployment.id} is watched again and will be deleted on time."
        aside().print(text, soft_wrap=True)
    if json:
        _print_json(listed)
    elif listed:
        _print_table(listed)
    else:
        console().print("No active deployments.")


def _print_table(listed: Sequence[Deployment]) -> None:
    from unitune.backends import registry

    table = new_table("deployment", "backend", "state", "since", "until", "per hour", "so far")
    for deployment in listed:
        amounts = (deployment.usd_per_hour, deployment.usd_spent)
        table.add_row(
            deployment.id,
            deployment.backend_name,
            deployment.state,
            _moment(deployment.since),
            _moment(deployment.until) if deployment.stands else "-",
            *("unknown" if usd is None else f"${usd}" for usd in amounts),
        )
    print_table(table)
    for name in sorted({each.backend_name for each in listed if each.stands}):
        if deletion := registry.offer(name).idle_deletion:
            console().print(deletion, style="dim")
    for deployment in listed:
        if deployment.run_id and not deployment.id.startswith(deployment.run_id):
            console().print(f"{deployment.id} now serves run {deployment.run_id}.")


def unwatched(deployment: Deployment) -> str:
    """Return a warning that no process deletes a deployment on time, and the next step."""
    reaper = deployment.reaper
    state = "is stopped" if reaper and reaper.life == "stopped" else "has ended"
    return (
        f"{deployment.id} costs money, and the process that deletes it on time {state}. Start "
        "another: unitune deployments --reap. Delete the deployment: unitune deployments down "
        f"{deployment.id}"
    )


def _print_json(deployments: Sequence[Deployment]) -> None:
    rows = [
        {
            "id": deployment.id,
            "run": deployment.run_id,
            "backend": deployment.backend_name,
            "state": deployment.state,
            "model": deployment.tuned_model.name,
            "since": deployment.since,
            "until": deployment.until,
            "usd_per_hour": deployment.usd_per_hour,
            "usd_spent": deployment.usd_spent,
            "reaper": deployment.reaper and deployment.reaper.life,
        }
        for deployment in deployments
    ]
    print_json({"schema_version": 1, "deployments": rows})


def _moment(time: datetime) -> str:
    """Return a time of today as ``14:05``, any other time with its date."""
    local = time.astimezone()
    today = local.date() == datetime.now(local.tzinfo).date()
    return f"{local:%H:%M}" if today else f"{local:%m-%d %H:%M}"
