"""Define the `Deployment` handle and find the deployment that serves a run's model."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Self

from unitune.backends import registry
from unitune.backends.capabilities import Deploys, SwapsModel
from unitune.backends.retry import retry_read
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
from unitune.run.reaper import Reaper, forget, host_of, reaper_of, remove, seconds_left, write
from unitune.security.redaction import one_line
from unitune.workspace.home import home
from unitune.workspace.user_settings import Bound

POLL_SECONDS = 5.0
log = logging.getLogger(__name__)


class Deployment(Bound):
    """One deployment as last seen; as a context manager it waits until ready, then ends it.

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
        """Name, also at the vendor."""
        return self._record.id

    @property
    def run_id(self) -> str | None:
        """Id of the run whose model it serves."""
        return self._record.run_id

    @property
    def backend_name(self) -> str:
        """Name of the backend that hosts it."""
        return self._record.backend

    @property
    def state(self) -> str:
        """planned, starting, ready, swapping, failed or gone."""
        return self._record.state

    @property
    def tuned_model(self) -> TunedModel:
        """The model under its name for requests, which `Run.model` sends."""
        return self._record.model

    @property
    def since(self) -> datetime:
        """Time of the request, UTC."""
        return datetime.fromtimestamp(self._record.created, UTC)

    @property
    def until(self) -> datetime:
        """Time at which it is taken down, UTC."""
        return datetime.fromtimestamp(self._record.until, UTC)

    @property
    def stands(self) -> bool:
        """True while it may cost money."""
        return self._record.ended is None

    @property
    def usd_per_hour(self) -> Decimal | None:
        """Price per hour; None if unknown."""
        return self._record.usd_per_hour

    @property
    def usd_spent(self) -> Decimal | None:
        """Price times the hours so far; None if the price is unknown."""
        if self.usd_per_hour is None:
            return None
        hours = ((self._record.ended or self._ledger.now()) - self._record.created) / 3600
        return (self.usd_per_hour * Decimal(hours)).quantize(Decimal("0.01"))

    @property
    def is_overdue(self) -> bool:
        """True if it still runs after its end time."""
        return (
            self.stands and seconds_left(self._ledger.folder, self._record, self._ledger.now()) <= 0
        )

    @property
    def reaper(self) -> Reaper | None:
        """The process that takes it down in time; None if this machine has none."""
        return reaper_of(self._ledger.folder, self.id)

    def refresh(self) -> Deployment:
        """Request the status from the vendor and record it.

        Raises:
            Unreachable: The vendor did not answer.
        """
        record = self._record = self._ledger.deployment(
            self.id
        )  # another process may have changed it
        if self.stands and record.ref is not None:
            host = host_of(record.backend)
            status, run_id = host.deployment_status(record.ref, record.model), record.run_id
            if status.state == "empty" and isinstance(host, SwapsModel):
                retry_read(partial(host.swap_model, record.ref, record.model))  # repeatable
                status = replace(status, state="starting")
            answering = status.tuned and _run_of(self._ledger, record, status.tuned)
            if answering and answering.id != run_id:  # another model has been swapped in
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
        """Wait until it is ready, for at most so many seconds.

        Raises:
            RunFailed: It failed or is gone.
            BackendError: It was not ready in time; it is still running.
        """
        until = time.monotonic() + seconds
        while self.refresh().state not in ("ready", "failed", "gone"):
            if time.monotonic() > until:
                raise BackendError(
                    f"deployment {self.id} is still {self.state} after {seconds:.0f} seconds. "
                    "Check it: unitune deployments. Take it down: unitune deployments down "
                    f"{self.id}"
                )
            time.sleep(POLL_SECONDS)
        if self.state != "ready":
            raise RunFailed(f"deployment {self.id} is {self.state}.")
        return self

    def take_down(self) -> Deployment:
        """Take it down, unless it is down already.

        Raises:
            BackendError: The vendor did not take it down, or it is not the deployment in the
                ledger; it is still running and costs money.
        """
        if self.stands:
            remove(self._record, self._ledger.now() - self._record.created)
            ended = self._ledger.now()
            self._record = write(self._ledger, self._record, state="gone", ended=ended)
            with suppress(OSError):
                forget(self._ledger.folder, self.id)
        return self


def _run_of(ledger: Ledger, record: DeploymentRecord, tuned: str) -> RunRecord | None:
    with suppress(NotFoundError, UnreadableRecord):
        run = ledger.record(record.run_id or "")
        if run.model is not None and run.model.name == tuned:
            return run
    named = (run for run in ledger.records() if run.model and run.model.name == tuned)
    return next((run for run in named if run.backend == record.backend), None)


def deployments(*, standing: bool = False) -> list[Deployment]:
    """Return the deployments of this ledger, newest first, and take down overdue ones.

    With `standing`, return only those that may cost money. Overdue ones that their vendor does not
    take down are tried again at the next call.
    """
    ledger = Ledger(home())
    listed = [Deployment(ledger, record) for record in ledger.deployments()]
    for deployment in listed:
        if deployment.is_overdue:
            outcome = f"was overdue and was taken down at {deployment.backend_name}"
            try:
                deployment.take_down()
            except UnituneError as error:
                outcome = f"is overdue and still running: {error}"
            log.warning("deployment %s", one_line(f"{deployment.id} {outcome}"))
    return [deployment for deployment in listed if deployment.stands or not standing]


def needs_deployments(backend: str) -> bool:
    """Return whether a backend serves tuned models only from a deployment."""
    return isinstance(registry.backend(backend), Deploys)


def ready_deployment(run_id: str) -> Deployment | None:
    """Return a ready deployment of a run's model, if there is one."""
    of_run = (each for each in deployments(standing=True) if each.run_id == run_id)
    return next((each for each in of_run if each.refresh().state == "ready"), None)


def answering(run_id: str, model: TunedModel) -> TunedModel:
    """Return the model to send requests to: the run's own or its deployment's.

    Raises:
        UserError: It needs a deployment and none is ready.
    """
    if not needs_deployments(model.backend):
        return model
    if (ready := ready_deployment(run_id)) is not None:
        return ready.tuned_model
    raise UserError(
        f"the model of run {run_id} needs a deployment at {model.backend}, which costs money, and "
        f"none is ready. Start one: unitune deployments up {run_id} --ttl 2h"
    )
