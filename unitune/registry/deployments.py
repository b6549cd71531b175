"""Match deployments of registered models with aliases, and swap the models that they serve."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from unitune.backends import registry
from unitune.backends.capabilities import Deploys, SwapsModel
from unitune.backends.exactly_once import CreateCall, exactly_once
from unitune.backends.protocol import Guarantee
from unitune.cost.budget import HostingBudget
from unitune.errors import BackendError, UnituneError, Unsupported, UserError
from unitune.ledger import DeploymentRecord, Ledger, RunRecord, budgeting
from unitune.ledger.model_versions import AliasMove, standing_aliases
from unitune.models import TunedModel
from unitune.run.deployment import POLL_SECONDS, Deployment, deployments
from unitune.run.reaper import host_of, write

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
        UnituneError: As `unitune.registry.deployments.swap`.
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


LONGEST_SECONDS = 3600.0  # maximum wait until the other model answers


def swap(ledger: Ledger, deployment: Deployment, run: RunRecord, budget: HostingBudget) -> None:
    """Replace the model that a deployment serves by a run's model, and wait until it answers.

    Its address, hourly price and end time stay the same. The deployment is recorded as `swapping`
    before the request, and every refresh asks the vendor which model it serves, so an interrupted
    swap is resolved by the next refresh.

    Args:
        ledger: Ledger of both.
        deployment: A ready deployment.
        run: A succeeded run of the same backend and base model.
        budget: Maximum cost of the deployment from now until it is taken down.

    Raises:
        Unsupported: The backend cannot swap models.
        UserError: The run has another base model.
        OverBudget: The cost may exceed a budget.
        BackendError: The vendor refused and nothing changed; or the outcome is unknown and the
            deployment stays `swapping` until a refresh.
    """
    record, model = ledger.deployment(deployment.id), run.model
    host = swapping_host(run.backend)
    served = record.backend, record.model.base
    if model is None or record.ref is None or (run.backend, model.base) != served:
        raise UserError(
            f"run {run.id} has a model of {run.base_model} at {run.backend}, but deployment "
            f"{record.id} serves one of {record.model.base} at {record.backend}. Deploy it "
            f"separately: unitune deployments up {run.id} --ttl 2h"
        )
    budgeting.hold_deployment(ledger, record, budget.usd, unpriced=budget.unpriced)
    exactly_once(_SwapCall(ledger, host, record, model))
    _wait(ledger, deployment, model)


def swapping_host(backend: str) -> SwapsModel:
    """Return a backend that can swap the model of a deployment, or raise `Unsupported`."""
    host = registry.backend(backend)
    if isinstance(host, SwapsModel):
        return host
    if isinstance(host, Deploys):
        raise Unsupported(
            f"{backend} cannot swap the model of a deployment. Omit --deploy: deploy the new "
            "version (unitune deployments up RUN --ttl 2h), send requests there, and take "
            "the old one down (unitune deployments down DEPLOYMENT)."
        )
    raise Unsupported(f"models of {backend} do not need a deployment. Omit --deploy.")


@dataclass(slots=True)
class _SwapCall(CreateCall):
    ledger: Ledger
    host: SwapsModel
    record: DeploymentRecord
    model: TunedModel
    guarantee: Guarantee = Guarantee.OWN_ID

    def create(self) -> str:
        self.host.swap_model(str(self.record.ref), self.model)
        return str(self.record.ref)

    def find(self) -> list[str]:
        return []

    def announce(self) -> None:
        self.record = write(self.ledger, self.record, state="swapping")

    def refuse(self, error: UnituneError) -> None:
        del error
        self.record = write(self.ledger, self.record, state="ready")


def _wait(ledger: Ledger, deployment: Deployment, model: TunedModel) -> None:
    """Wait until a model answers; the vendor's list may show the swap late."""
    begun = time.monotonic()
    shown_by = begun + registry.offer(model.backend).settle_seconds
    while True:
        record, now = ledger.deployment(deployment.id), time.monotonic()
        status = host_of(record.backend).deployment_status(str(record.ref), model)
        if status.state == "ready" and status.tuned == model.name:
            return
        is_settled = status.state not in ("swapping", "starting") and now > shown_by
        if is_settled or now > begun + LONGEST_SECONDS:
            deployment.refresh()
            raise BackendError(
                f"{model.backend} did not swap {model.name} into deployment {deployment.id}, which "
                f"still serves {status.tuned}: {status.raw}"
            )
        time.sleep(POLL_SECONDS)
