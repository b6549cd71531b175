"""Commands about what stands at vendors: deploy, undeploy, deployments, delete."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from unitune.cli.options import (
    AllowUnpriced,
    DeployOption,
    GivenPrices,
    Json,
    RunId,
    deploy_options_of,
    prices_given,
    seconds_of,
    usd_of,
)
from unitune.errors import BackendError, UserError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from unitune.run.deploying import Deployment


def deploy(
    run: RunId,
    *,
    stand: Annotated[
        str, typer.Option("--ttl", metavar="TIME", help="When it is taken down: 30m, 2h, 1d.")
    ] = "2h",
    option: DeployOption = None,
    wait: Annotated[bool, typer.Option(help="Return when it is ready to answer.")] = True,
    price: GivenPrices,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="USD", help="The most that the deployment may cost."),
    ] = None,
    allow_unpriced: AllowUnpriced = False,
    json: Json = False,
) -> None:
    """Bring a tuned model up at its vendor, for a limited time; it costs money while it stands.

    It needs a budget (--budget, or budget.yaml); without one a terminal asks, and a script is
    refused.

    [dim]$ unitune deploy r2611 --ttl 2h --budget 20[/dim]
    """
    from unitune.cli.consent import consent_to_deployment
    from unitune.cli.output import aside, console
    from unitune.cost.budget import HostingBudget
    from unitune.run.deploying import deploy as bring_up
    from unitune.run.run import find_run

    found, seconds, options = find_run(run), seconds_of("--ttl", stand), deploy_options_of(option)
    limit = HostingBudget(
        usd=usd_of("--budget", budget) if budget else None,
        unpriced=allow_unpriced,
        prices=tuple(prices_given(price, found.backend_name)),
    )
    consent_to_deployment(found, seconds, limit)
    made = bring_up(found, ttl=seconds, options=options, budget=limit)
    if wait:
        aside().print(f"{made.id} is {made.state}; waiting until it is ready.")
        made.wait()
    if json:
        _print_json([made])
    else:
        console().print(f"{made.id} is {made.state}, until {made.until.astimezone():%H:%M}.")
        console().print(f"Take it down sooner: unitune undeploy {made.id}")


def undeploy(
    deployment: Annotated[
        str, typer.Argument(metavar="DEPLOYMENT", help="Its id, or the run's whose model it is.")
    ],
) -> None:
    """Take a deployment down.

    [dim]$ unitune undeploy r2611[/dim]
    """
    from unitune.cli.output import console
    from unitune.run.deploying import find_deployment

    found = find_deployment(deployment).take_down()
    spent = "" if found.usd_spent is None else f" It cost about ${found.usd_spent}."
    console().print(f"{found.id} is {found.state}.{spent}")


def deployments(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Those that are gone, too.")] = False,
    reap: Annotated[
        bool,
        typer.Option(
            "--reap", help="Start the process again that takes one down in time, where it is gone."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """List what stands and costs money: where, since when, the price, what was spent.

    Whatever has outlived its time is taken down.

    [dim]$ unitune deployments[/dim]
    """
    from unitune.cli.output import aside, console
    from unitune.run.deploying import deployments as all_deployments
    from unitune.run.deploying import leave_reaper_again, without_reaper

    found = all_deployments(standing=not everything)
    for one in found:
        try:
            one.refresh()
        except BackendError as error:
            aside().print(f"{one.id} is shown as it was last seen: {error}")
    for one in without_reaper():
        if reap:
            leave_reaper_again(one)
        aside().print(
            f"{one.id} is watched again, and taken down in time." if reap else unwatched(one),
            soft_wrap=True,
        )
    if json:
        _print_json(found)
    elif found:
        _print_table(found)
    else:
        console().print("Nothing stands.")


def delete(
    run: RunId,
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask; needs the run's whole id.")
    ] = False,
    reports: Annotated[
        bool, typer.Option("--reports", help="The reports of its evaluation, too.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Forget the run even if something cannot be deleted.")
    ] = False,
) -> None:
    """Delete what a run left: files and model at the vendor, its folder, its place in the ledger.

    Says first what that is, and asks; a script says --yes. Reports stay without --reports.

    [dim]$ unitune delete r2611
    $ unitune delete r261126-4f7h2k9q3w --yes[/dim]
    """
    from rich.text import Text

    from unitune.cli.consent import somebody_is_there
    from unitune.cli.output import aside, confirmed, console
    from unitune.run.run import find_run

    found = find_run(run)
    things = found.inventory(reports=reports)
    aside().print(f"To be deleted of run {found.id}, {found.name}:")
    for thing in things:
        aside().print(f"  {thing}", soft_wrap=True)
    if yes and run != found.id:
        raise UserError(f"--yes needs the whole id: unitune delete {found.id} --yes")
    if not yes and not somebody_is_there():
        raise UserError(
            f"nothing was deleted; nobody can be asked. To delete it: unitune delete {found.id} "
            "--yes"
        )
    if not yes and not confirmed("Delete it?"):
        raise UserError("nothing was deleted.")
    left = found.delete(force=force, reports=reports)
    for sentence in left:
        aside().print(Text.assemble(("not deleted", "yellow"), f" {sentence}"))
    if left and not force:
        raise UserError(f"run {found.id} is kept. To forget it all the same: --force")
    console().print(f"{found.id} is deleted.")


def unwatched(one: Deployment) -> str:
    """Say that nobody takes a deployment down in time, and what to do."""
    state = "is stopped" if one.reaper and one.reaper.life == "stopped" else "has ended"
    return (
        f"{one.id} stands and costs money, and the process that takes it down in time {state}. "
        f"Start another one: unitune deployments --reap. Take it down: unitune undeploy {one.id}"
    )


def _print_json(found: list[Deployment]) -> None:
    from unitune.cli.output import print_json

    rows: list[JsonValue] = [
        {
            "id": one.id,
            "run": one.run_id,
            "backend": one.backend_name,
            "state": one.state,
            "model": one.tuned_model.name,
            "since": one.since.isoformat(),
            "until": one.until.isoformat(),
            "usd_per_hour": None if one.usd_per_hour is None else str(one.usd_per_hour),
            "usd_spent": None if one.usd_spent is None else str(one.usd_spent),
            "reaper": None if one.reaper is None else one.reaper.life,
        }
        for one in found
    ]
    print_json({"schema_version": 1, "deployments": rows})


def _print_table(found: list[Deployment]) -> None:
    from rich.table import Table

    from unitune.cli.output import print_table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("deployment", "backend", "state", "since", "until", "an hour", "so far"):
        table.add_column(heading, no_wrap=True)
    for one in found:
        table.add_row(
            one.id,
            one.backend_name,
            one.state,
            _moment(one.since),
            _moment(one.until) if one.stands else "-",
            "unknown" if one.usd_per_hour is None else f"${one.usd_per_hour}",
            "unknown" if one.usd_spent is None else f"${one.usd_spent}",
        )
    print_table(table)


def _moment(time: datetime) -> str:
    """Return a time of today as ``14:05``, and any other with its date."""
    local = time.astimezone()
    today = local.date() == datetime.now(local.tzinfo).date()
    return f"{local:%H:%M}" if today else f"{local:%m-%d %H:%M}"
