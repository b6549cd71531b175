"""Swap the model that a deployment serves for another run's model, keeping its address.

Only some vendors support this (`SwapsModel`). The deployment is recorded as `swapping` before the
request, and every refresh asks the vendor which model it serves, so an interrupted swap is resolved
by the next refresh. Its hourly price and end time stay the same.
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

LONGEST_SECONDS = 3600.0  # maximum wait until the other model answers


def swap(ledger: Ledger, deployment: Deployment, run: RunRecord, budget: HostingBudget) -> None:
    """Replace the model that a deployment serves by a run's model, and wait until it answers.

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
