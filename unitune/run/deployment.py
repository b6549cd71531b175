"""`Deployment`: the handle on what costs money while it stands, and how it is taken down.

Taken down is only what this ledger is seen to have put up: the vendor must show, under a name of
ours, the very deployment that the ledger has. A ledger may come from elsewhere, and what it names
may be someone else's production.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self

from unitune.backends import registry
from unitune.backends.capabilities import Deploys
from unitune.backends.launch_keys import is_deployment_name
from unitune.errors import (
    BackendError,
    LockTimeout,
    RunFailed,
    UnituneError,
    Unsupported,
    UserError,
)
from unitune.ledger import DeploymentRecord, Ledger
from unitune.models import TunedModel
from unitune.run.reaping import Reaper, forget, reaper_of, seconds_left
from unitune.security.printable import one_line
from unitune.workspace.home import home

POLL_SECONDS = 5.0
WRITES = 3
"""How often a change is tried while other processes change the record in between."""


log = logging.getLogger(__name__)


class Deployment:
    """One deployment, as it was last seen; as a context manager it is ready, and then taken down.

    Examples:
        >>> with unitune.deploy(run, ttl="2h"):
        ...     print(run.model.ask("Where is my parcel?"))

    Args:
        ledger: Where it is written down.
        record: What is written down of it.
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
        """planned, starting, ready, failed or gone."""
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
        return self.stands and self._seconds_left() <= 0

    @property
    def reaper(self) -> Reaper | None:
        """The process that takes it down in time; None where none was left on this machine."""
        return reaper_of(self._ledger.folder, self.id)

    def refresh(self) -> Deployment:
        """Request its status from the vendor, and write that down.

        Raises:
            Unreachable: No answer came.
        """
        record = self._record
        if self.stands and record.ref is not None:
            status = host_of(record.backend).deployment_status(record.ref, record.model)
            ended = self._ledger.now() if status.state == "gone" else None
            self._record = write(
                self._ledger, record, state=status.state, model=status.model, ended=ended
            )
        return self

    def wait(self, seconds: float = 3600.0) -> Deployment:
        """Wait until it is ready.

        Args:
            seconds: How long at most.

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
            self._record = write_end(self._ledger, self._record)
            with suppress(OSError):
                forget(self._ledger.folder, self.id)
        return self

    def _seconds_left(self) -> float:
        return seconds_left(self._ledger.folder, self._record, self._ledger.now())


def deployments(*, standing: bool = False) -> list[Deployment]:
    """Return the deployments of this ledger, newest first, and take down what is overdue.

    What its vendor does not take down now still stands; the next look tries again.

    Args:
        standing: Only those that may cost money.
    """
    ledger = Ledger(home())
    listed = [Deployment(ledger, record) for record in ledger.deployments()]
    for deployment in listed:
        if deployment.is_overdue:
            _take_down_overdue(deployment)
    return [deployment for deployment in listed if deployment.stands or not standing]


def _take_down_overdue(deployment: Deployment) -> None:
    """Take a deployment down whose time is over, and say so."""
    try:
        deployment.take_down()
    except UnituneError as error:
        outcome = f"is overdue, and still stands: {error}"
    else:
        outcome = f"was overdue: taken down at {deployment.backend_name}"
    log.warning("deployment %s", one_line(f"{deployment.id} {outcome}"))


def needs_deployments(backend: str) -> bool:
    """Whether a backend's tuned models answer only from a deployment."""
    return isinstance(registry.backend(backend), Deploys)


def ready_deployment(run_id: str) -> Deployment | None:
    """Return a deployment that answers for a run's model."""
    of_run = (each for each in deployments(standing=True) if each.run_id == run_id)
    return next((each for each in of_run if each.refresh().state == "ready"), None)


def answering(run_id: str, model: TunedModel) -> TunedModel:
    """Return what requests for a run's model go to: itself, or the deployment that stands for it.

    Args:
        run_id: Of the run that tuned it.
        model: The tuned model.

    Raises:
        UserError: It answers only from a deployment, and none is ready.
    """
    if not needs_deployments(model.backend):
        return model
    ready = ready_deployment(run_id)
    if ready is not None:
        return ready.tuned_model
    raise UserError(
        f"the model of run {run_id} answers only from a deployment at {model.backend}, which "
        f"costs money, and none is ready. Bring it up: unitune deploy {run_id} --ttl 2h"
    )


def host_of(backend: str) -> Deploys:
    """Return a backend whose models answer from deployments.

    Raises:
        Unsupported: Its models need none.
    """
    host = registry.backend(backend)
    if not isinstance(host, Deploys):
        raise Unsupported(f"models of {backend} answer without a deployment.")
    return host


def remove(record: DeploymentRecord, age_seconds: float) -> None:
    """Take a deployment down at its vendor, without reading the ledger.

    Args:
        record: As the ledger has it.
        age_seconds: How long ago it was requested.

    Raises:
        BackendError: The vendor did not do so, or shows another deployment than the ledger has.
    """
    host = host_of(record.backend)
    ref = host.find_deployment(record.name)
    if ref is None and record.ref is None:
        if age_seconds < registry.offer(record.backend).settle_seconds:
            raise BackendError(
                f"{record.backend} shows no deployment {record.name} yet, and it may still "
                f"come: it was requested just now. Again: unitune undeploy {record.id}"
            )
        return
    if ref is None and host.deployment_status(str(record.ref), record.model).state == "gone":
        return
    if ref is None or record.ref not in (None, ref) or not is_deployment_name(record.name):
        raise BackendError(
            f"{record.backend} shows {ref!r} as the deployment {record.name!r}, and the ledger "
            f"has {record.ref!r}: that is not seen to be one that this ledger has put up, so it is "
            f"left alone. If it is yours, take it down at {record.backend}."
        )
    host.undeploy(ref)


def write(ledger: Ledger, record: DeploymentRecord, **changes: Any) -> DeploymentRecord:
    """Write down what has changed of a deployment, also when another process writes in between.

    Args:
        ledger: Where it is written down.
        record: As it was read.
        changes: Fields of the record; left out where another process has seen its end.

    Returns:
        The record as it then stands.

    Raises:
        LockTimeout: Others change it again and again.
    """
    for tries in range(1, WRITES + 1):
        changed = replace(record, **changes)
        if changed == record or record.ended is not None:
            return record
        try:
            return ledger.write_deployment(changed)
        except LockTimeout:
            if tries == WRITES:
                raise
            record = ledger.deployment(record.id)
    raise AssertionError("the last try returns or raises")


def write_end(ledger: Ledger, record: DeploymentRecord) -> DeploymentRecord:
    """Write down that a deployment is down, and return the record as it then stands."""
    return write(ledger, record, state="gone", ended=ledger.now())
