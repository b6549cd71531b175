"""Another run's model in place of the one that a deployment serves, so that its address stays.

Only a vendor that has such a switch can do it (`SwapsModel`). The deployment is `swapping` on
record before the vendor is asked, and every look at it asks the vendor which model answers
(`Deployment.refresh`): so whatever is killed, the next look says what is so. What it costs an hour,
and when it is taken down, stays.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from unitune.backends import registry
from unitune.backends.capabilities import Deploys, SwapsModel
from unitune.backends.exactly_once import CreateCall, exactly_once
from unitune.backends.protocol import Guarantee
from unitune.cost.budget import HostingBudget
from unitune.errors import BackendError, UnituneError, Unsupported, UserError
from unitune.ledger import DeploymentRecord, Ledger, RunRecord, budgeting
from unitune.models import TunedModel
from unitune.run.deployment import POLL_SECONDS, Deployment
from unitune.run.reaper import host_of, write

LONGEST_SECONDS = 3600.0  # how long to wait until the other model answers


def swap(ledger: Ledger, deployment: Deployment, run: RunRecord, budget: HostingBudget) -> None:
    """Put a run's model in place of the one that a deployment serves, and wait until it answers.

    Args:
        ledger: Where both are.
        deployment: One that is ready.
        run: A succeeded run of the same backend and base model.
        budget: What the deployment may cost from now until it is taken down.

    Raises:
        Unsupported: The backend cannot, and what to do instead.
        UserError: The run is of another base model.
        OverBudget: It may cost more.
        BackendError: The vendor has refused, and nothing has changed; or it is not known whether it
            has, and the deployment stays `swapping` until a look says so.
    """
    record, model = ledger.deployment(deployment.id), run.model
    host = swapping_host(run.backend)
    served = record.backend, record.model.base
    if model is None or record.ref is None or (run.backend, model.base) != served:
        raise UserError(
            f"run {run.id} is a model of {run.base_model} at {run.backend}, and deployment "
            f"{record.id} serves one of {record.model.base} at {record.backend}. Deploy it by "
            f"itself: unitune deploy {run.id} --ttl 2h"
        )
    budgeting.hold_deployment(ledger, record, budget.usd, unpriced=budget.unpriced)
    exactly_once(_SwapCall(ledger, host, record, model))
    _wait(ledger, deployment, model)


def swapping_host(backend: str) -> SwapsModel:
    """Return a backend that can put another model in place of a deployment's.

    Raises:
        Unsupported: It cannot, and what to do instead.
    """
    host = registry.backend(backend)
    if isinstance(host, SwapsModel):
        return host
    if isinstance(host, Deploys):
        raise Unsupported(
            f"{backend} has no switch that puts another model in the place of a deployment's. "
            "Deploy the new version (unitune deploy RUN --ttl 2h), send requests there, and take "
            "the old one down: unitune undeploy DEPLOYMENT. Leave --deploy out."
        )
    raise Unsupported(
        f"models of {backend} answer without a deployment, so there is none to move. Leave "
        "--deploy out."
    )


@dataclass(slots=True)
class _SwapCall(CreateCall):
    """The call that asks for another model; asked for twice, that is the same."""

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
    """Wait until a model answers; a list may show late that it is being put there."""
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
                f"{model.backend} has not put {model.name} into deployment {deployment.id}, which "
                f"answers with {status.tuned}: {status.raw}"
            )
        time.sleep(POLL_SECONDS)
