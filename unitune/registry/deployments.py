"""Match deployments of registered models with aliases."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from decimal import Decimal

from unitune.cost.budget import HostingBudget
from unitune.errors import UserError
from unitune.ledger import Ledger, RunRecord
from unitune.ledger.model_versions import AliasMove, standing_aliases
from unitune.run.deployment import Deployment, deployments
from unitune.run.swapping import swap, swapping_host

log = logging.getLogger(__name__)


def move_deployment(
    ledger: Ledger,
    move: AliasMove,
    run: RunRecord,
    budget: HostingBudget | Decimal | float | None,
) -> Deployment | None:
    """Move the deployment that serves an alias to the version that the alias will point to.

    Args:
        ledger: Ledger of the model.
        move: Planned move of the alias.
        run: Run of the version.
        budget: Maximum cost of the deployment from now until it is deleted, in US dollars; None to
            leave it unchanged.

    Raises:
        Unsupported: The backend cannot swap models.
        UserError: No deployment serves the alias, or several do.
        UnituneError: As `unitune.run.swapping.swap`.
    """
    if budget is None:
        return None
    swapping_host(run.backend)
    standing = [each.refresh() for each in deployments(standing=True)]
    there = [each for each in standing if each.run_id == run.id and each.state == "ready"]
    if there:
        return there[0]
    aliases = standing_aliases(ledger.alias_moves(move.model))
    numbers = {each.run_id: each.number for each in ledger.versions(move.model)}
    of_others = {each.number for each in aliases.values() if each.alias != move.alias}
    free = {each: numbers.get(each.run_id or "") for each in standing}
    free = {each: number for each, number in free.items() if number and number not in of_others}
    current = aliases[move.alias].number if move.alias in aliases else None
    # Deployments of former versions, if an alias moved without its deployment.
    serving = [each for each, number in free.items() if number == current] or [*free]
    if len(serving) != 1:
        ids = ", ".join(each.id for each in serving)
        state = (
            f"several deployments serve models ({ids})" if ids else "no deployment serves a model"
        )
        todo = (
            "Delete all but one" if ids else f"Deploy it (unitune deployments up {run.id} --ttl 2h)"
        )
        raise UserError(f"{state} for {move} and no other alias. {todo} and try again.")
    try:
        swap(ledger, serving[0], run, HostingBudget.of(budget))
    except BaseException:
        warn_of_mismatches(ledger, move.model)
        raise
    return serving[0]


def mismatches(ledger: Ledger, model: str) -> Iterator[str]:
    """Yield deployments whose version no alias points to, and interrupted or running moves."""
    versions = {each.run_id: each for each in ledger.versions(model)}
    aliases = standing_aliases(ledger.alias_moves(model)).values()
    for record in ledger.deployments():
        version = versions.get(record.run_id or "")
        if version is None or record.ended is not None:
            continue
        if record.state == "swapping":
            yield (
                f"deployment {record.id} is being moved away from {version}, or the process that "
                "moved it was killed. Check its model with: unitune deployments"
            )
        elif aliases and version.number not in {move.number for move in aliases}:
            points = ", ".join(f"{move} points to version {move.number}" for move in aliases)
            yield (
                f"deployment {record.id} serves {version}, but {points}. Promote that version with "
                "--deploy, if the vendor can move the deployment, or delete it: unitune "
                f"deployments down {record.id}"
            )


def warn_of_mismatches(ledger: Ledger, model: str) -> None:
    """Log `mismatches` as warnings, which Python writes to standard error."""
    for text in mismatches(ledger, model):
        log.warning("%s", text)
