"""`Deployment`: the handle on what costs money while it stands; who answers for a run's model."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Self

from unitune.backends import registry
from unitune.backends.capabilities import Deploys
from unitune.errors import (
    BackendError,
    NotFoundError,
    RunFailed,
    UnituneError,
    UnreadableRecord,
    UserError,
)
from unitune.ledger import DeploymentRecord, Ledger, RunRecord
from unitune.models import TunedModel
from unitune.run.reaper import (
    Reaper,
    forget,
    host_of,
    reaper_of,
    remove,
    seconds_left,
    write,
)
from unitune.security.redaction import one_line
from unitune.workspace.home import home

POLL_SECONDS = 5.0
log = logging.getLogger(__name__)


class Deployment:
    """One deployment, as it was last seen; as a context manager it is ready, and then taken down.

    Examples:
        >>> with unitune.deploy(run, ttl="2h"):
        ...     print(run.model.ask("Where is my parcel?"))
    """

    def __init__(self, ledger: Ledger, record: DeploymentRecord) -> None:
        self._ledger = ledger
        self._record = record

    def __repr__(self) -> str:
        return f"<Deployment {self.id} on {self.backend_name}: {self.state}>"

    def __enter__(self) -> Self:
        try:
            self.wait()
        except BaseException:
            self.take_down()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.take_down()

    @property
    def id(self) -> str:
        """Its name, at the vendor too."""
        return self._record.id

    @property
    def run_id(self) -> str | None:
        """The run whose model it is."""
        return self._record.run_id

    @property
    def backend_name(self) -> str:
        """Who hosts it."""
        return self._record.backend

    @property
    def state(self) -> str:
        """planned, starting, ready, swapping, failed or gone."""
        return self._record.state

    @property
    def tuned_model(self) -> TunedModel:
        """The model under the name that requests go to; `Run.model` sends them."""
        return self._record.model

    @property
    def since(self) -> datetime:
        """When it was requested, UTC."""
        return datetime.fromtimestamp(self._record.created, UTC)

    @property
    def until(self) -> datetime:
        """When it is taken down, UTC."""
        return datetime.fromtimestamp(self._record.until, UTC)

    @property
    def stands(self) -> bool:
        """Whether it may cost money."""
        return self._record.ended is None

    @property
    def usd_per_hour(self) -> Decimal | None:
        """Price; None where it is not known."""
        return self._record.usd_per_hour

    @property
    def usd_spent(self) -> Decimal | None:
        """Price times the hours that it has stood; None where the price is not known."""
        if self.usd_per_hour is None:
            return None
        hours = ((self._record.ended or self._ledger.now()) - self._record.created) / 3600
        return (self.usd_per_hour * Decimal(hours)).quantize(Decimal("0.01"))

    @property
    def is_overdue(self) -> bool:
        """Whether it stands though its time is over."""
        return (
            self.stands and seconds_left(self._ledger.folder, self._record, self._ledger.now()) <= 0
        )

    @property
    def reaper(self) -> Reaper | None:
        """The process that takes it down in time; None where none was left on this machine."""
        return reaper_of(self._ledger.folder, self.id)

    def refresh(self) -> Deployment:
        """Request its status from the vendor, and write that down.

        Raises:
            Unreachable: No answer came.
        """
        record = self._record = self._ledger.deployment(self.id)  # others may have moved it
        if self.stands and record.ref is not None:
            host = host_of(record.backend)
            status, run_id = host.deployment_status(record.ref, record.model), record.run_id
            answering = status.tuned and _run_of(self._ledger, record, status.tuned)
            if answering and answering.id != run_id:  # put in its place since, or meanwhile
                run_id, served = answering.id, answering.model or record.model
                status = host.deployment_status(record.ref, served)
            ended = self._ledger.now() if status.state == "gone" else None
            self._record = write(
                self._ledger,
                record,
                state=status.state,
                run_id=run_id,
                model=status.model,
                ended=ended,
            )
        return self

    def wait(self, seconds: float = 3600.0) -> Deployment:
        """Wait until it is ready, for so many seconds at most.

        Raises:
            RunFailed: It failed or is gone.
            BackendError: It was not ready in time; it still stands.
        """
        until = time.monotonic() + seconds
        while self.refresh().state not in ("ready", "failed", "gone"):
            if time.monotonic() > until:
                raise BackendError(
                    f"deployment {self.id} is still {self.state} after {seconds:.0f} seconds. "
                    f"Wait on: unitune deployments. Take it down: unitune undeploy {self.id}"
                )
            time.sleep(POLL_SECONDS)
        if self.state != "ready":
            raise RunFailed(f"deployment {self.id} is {self.state}.")
        return self

    def take_down(self) -> Deployment:
        """End it; one that is down already is left as it is.

        Raises:
            BackendError: The vendor did not take it down, or shows another deployment than the
                ledger has; it still stands, and costs.
        """
        if self.stands:
            remove(self._record, self._ledger.now() - self._record.created)
            ended = self._ledger.now()
            self._record = write(self._ledger, self._record, state="gone", ended=ended)
            with suppress(OSError):
                forget(self._ledger.folder, self.id)
        return self


def _run_of(ledger: Ledger, record: DeploymentRecord, tuned: str) -> RunRecord | None:
    """Return the run whose model a deployment answers with, first of all the one on record."""
    with suppress(NotFoundError, UnreadableRecord):
        run = ledger.record(record.run_id or "")
        if run.model is not None and run.model.name == tuned:
            return run
    named = (run for run in ledger.records() if run.model and run.model.name == tuned)
    return next((run for run in named if run.backend == record.backend), None)


def deployments(*, standing: bool = False) -> list[Deployment]:
    """Return the deployments of this ledger, newest first, and take down what is overdue.

    With `standing`, only those that may cost money. What its vendor does not take down now still
    stands; the next look tries again.
    """
    ledger = Ledger(home())
    listed = [Deployment(ledger, record) for record in ledger.deployments()]
    for deployment in listed:
        if deployment.is_overdue:
            outcome = f"was overdue: taken down at {deployment.backend_name}"
            try:
                deployment.take_down()
            except UnituneError as error:
                outcome = f"is overdue, and still stands: {error}"
            log.warning("deployment %s", one_line(f"{deployment.id} {outcome}"))
    return [deployment for deployment in listed if deployment.stands or not standing]


def needs_deployments(backend: str) -> bool:
    """Whether a backend's tuned models answer only from a deployment."""
    return isinstance(registry.backend(backend), Deploys)


def ready_deployment(run_id: str) -> Deployment | None:
    """Return a deployment that answers for a run's model."""
    of_run = (each for each in deployments(standing=True) if each.run_id == run_id)
    return next((each for each in of_run if each.refresh().state == "ready"), None)


def answering(run_id: str, model: TunedModel) -> TunedModel:
    """Return what requests for a run's model go to: itself, or the deployment that stands for it.

    Raises:
        UserError: It answers only from a deployment, and none is ready.
    """
    if not needs_deployments(model.backend):
        return model
    if (ready := ready_deployment(run_id)) is not None:
        return ready.tuned_model
    raise UserError(
        f"the model of run {run_id} answers only from a deployment at {model.backend}, which "
        f"costs money, and none is ready. Bring it up: unitune deploy {run_id} --ttl 2h"
    )
