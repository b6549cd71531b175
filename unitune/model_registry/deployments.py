"""Deployments of registered models: which one answers for an alias, and which answer for none.

Where a vendor has a switch for it, a promotion can move the deployment, too (`move_deployment`). It
does so before the alias is moved: what the vendor refuses changes nothing. Both can differ all the
same, by a promotion that leaves the deployment as it is, or by a killed process. `mismatches` says
so, at every move and in `unitune models NAME`.
"""

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
    """Let the deployment that answers for an alias answer with the version that it is to point to.

    Args:
        ledger: Where all this is.
        move: Of the alias, which is still to come.
        run: Whose model the version is.
        budget: What the deployment may cost from now until it is taken down, in US dollars; None:
            it is left as it is.

    Raises:
        Unsupported: The backend has no such switch.
        UserError: No deployment answers for the alias, or several do.
        UnituneError: As of `unitune.run.swapping.swap`.
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
    # Of former versions, where an alias has moved and left its deployment as it was.
    serving = [each for each, number in free.items() if number == current] or [*free]
    if len(serving) != 1:
        ids = ", ".join(each.id for each in serving)
        state = f"several deployments answer ({ids})" if ids else "no deployment answers"
        todo = "Take all but one down" if ids else f"Bring it up (unitune deploy {run.id} --ttl 2h)"
        raise UserError(f"{state} for {move} and no other alias. {todo}, and do this again.")
    try:
        swap(ledger, serving[0], run, HostingBudget.of(budget))
    except BaseException:
        warn_of_mismatches(ledger, move.model)
        raise
    return serving[0]


def mismatches(ledger: Ledger, model: str) -> Iterator[str]:
    """Yield which deployments answer with a version of a model to which no alias points.

    And which were being moved, by a process that may have been killed.
    """
    versions = {each.run_id: each for each in ledger.versions(model)}
    aliases = standing_aliases(ledger.alias_moves(model)).values()
    for record in ledger.deployments():
        version = versions.get(record.run_id or "")
        if version is None or record.ended is not None:
            continue
        if record.state == "swapping":
            yield (
                f"deployment {record.id} is being moved away from {version}, or the process that "
                "did so was killed. See which model it answers with: unitune deployments"
            )
        elif aliases and version.number not in {move.number for move in aliases}:
            points = ", ".join(f"{move} points to version {move.number}" for move in aliases)
            yield (
                f"deployment {record.id} answers with {version}, and {points}. Promote that with "
                f"--deploy, where its vendor can move it, or take it down: unitune undeploy "
                f"{record.id}"
            )


def warn_of_mismatches(ledger: Ledger, model: str) -> None:
    """Log what `mismatches` yields as warnings, which Python writes to standard error."""
    for text in mismatches(ledger, model):
        log.warning("%s", text)
