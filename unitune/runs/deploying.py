"""Deployments: what costs money while it stands, so it is always asked for and always ends.

Some vendors answer with a tuned model only from a deployment, paid by the hour. `deploy` writes
down what it is about to do, brings the model up, and leaves a small process behind that takes it
down when its time is over (`unitune.runs.reaper`). Every other look at deployments takes down what
is overdue too, for the case that the machine was off. Nothing else in unitune deploys.

A deployment's id is its name at the vendor, so a deploy that was interrupted is found by it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import JsonValue

from unitune import budgeting, registry
from unitune.abilities import Deploys, Switches
from unitune.cost.budget import NO_LIMIT, HostingBudget
from unitune.errors import (
    BackendError,
    RunFailed,
    UnituneError,
    UnknownName,
    Unsupported,
    UserError,
)
from unitune.home import home
from unitune.ledger import DeploymentRecord, Ledger
from unitune.models import TunedModel
from unitune.patience import outcome_open
from unitune.runs.hosting import budget_of, usd_per_hour
from unitune.runs.run import Run
from unitune.specs.prices import PriceEntry

DEFAULT_SECONDS = 2 * 3600.0
"""How long a deployment stands when nobody says: long enough for an evaluation."""
POLL_SECONDS = 5.0


class Deployment:
    """One deployment, as it was last seen.

    Args:
        ledger: Where it is written down.
        record: What is written down of it.
    """

    def __init__(self, ledger: Ledger, record: DeploymentRecord) -> None:
        self._ledger = ledger
        self._record = record

    def __repr__(self) -> str:
        return f"<Deployment {self.id} on {self.backend_name}: {self.state}>"

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
    def model(self) -> TunedModel:
        """What to ask once it is ready."""
        return self._record.model

    @property
    def since(self) -> datetime:
        """When it was asked for, UTC."""
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
        price = self._record.usd_per_hour
        return None if price is None else Decimal(price)

    @property
    def usd_spent(self) -> Decimal | None:
        """Price times the hours that it has stood; None where the price is not known."""
        if self.usd_per_hour is None:
            return None
        hours = ((self._record.ended or time.time()) - self._record.created) / 3600
        return (self.usd_per_hour * Decimal(hours)).quantize(Decimal("0.01"))

    def refresh(self) -> Deployment:
        """Ask the vendor how it stands, and write that down.

        Raises:
            Unreachable: No answer came.
        """
        record = self._record
        if self.stands and record.ref is not None:
            seen = _host(record.backend).deployed(record.ref, record.model)
            ended = time.time() if seen.state == "gone" else None
            changed = replace(record, state=seen.state, model=seen.model, ended=ended)
            if changed != record:
                self._record = self._ledger.write_deployment(changed)
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
            BackendError: The vendor did not take it down; it still stands, and costs.
        """
        record = self._record
        if self.stands:
            host = _host(record.backend)
            ref = record.ref or host.find_deployment(record.name)
            if ref is not None:
                host.undeploy(ref)
            elif time.time() < record.created + registry.offer(record.backend).settle_seconds:
                raise BackendError(
                    f"{record.backend} shows no deployment {record.name} yet, and it may still "
                    f"come: it was asked for just now. Again: unitune undeploy {record.id}"
                )
            ended = replace(record, ref=ref, state="gone", ended=time.time())
            self._record = self._ledger.write_deployment(ended)
        return self

    def switch(self, model: TunedModel) -> Deployment:
        """Put another tuned model behind it, without a moment's absence.

        Raises:
            Unsupported: The vendor cannot.
        """
        host, record = _host(self.backend_name), self._record
        if not isinstance(host, Switches) or record.ref is None:
            raise Unsupported(
                f"{self.backend_name} cannot switch a deployment to another model. Deploy that "
                "one beside it, and undeploy this one."
            )
        host.switch(record.ref, model)
        return self.refresh()


def deploy(
    run: Run,
    *,
    seconds: float = DEFAULT_SECONDS,
    options: Mapping[str, JsonValue] | None = None,
    while_pid: int | None = None,
    budget: HostingBudget = NO_LIMIT,
) -> Deployment:
    """Bring a run's model up, for a limited time.

    What it may cost until its end is held to budget.yaml first, as a training is.

    Args:
        run: A succeeded run.
        seconds: After which it is taken down.
        options: The backend's own: hardware, capacity, …
        while_pid: Take it down as soon as this process has ended, too.
        budget: What it may cost.

    Raises:
        OverBudget: It may cost more than a budget leaves, or its price is unknown.
        UserError: The run has no model.
        Unsupported: The backend's models need no deployment.
        UnituneError: The vendor refused or did not answer.
    """
    if run.model is None:
        raise UserError(f"run {run.id} is {run.state} and has no model to deploy.")
    host = _host(run.backend_name)
    ledger = Ledger(home())
    record = _planned(ledger, run, run.model, seconds, budget.prices)
    budgeting.add_deployment(ledger, record, budget_of(run), budget.usd, unpriced=budget.unpriced)
    _leave_reaper(record.id, while_pid)  # first, so that whatever happens next has an end
    try:
        ref = host.deploy(run.model, record.name, options or {})
    except UnituneError as refusal:
        if not outcome_open(refusal):
            _clear(ledger, host, record)
        raise
    started = ledger.write_deployment(replace(record, state="starting", ref=ref))
    return Deployment(ledger, started).refresh()


def _clear(ledger: Ledger, host: Deploys, record: DeploymentRecord) -> None:
    """Take down what a deployment that was refused half way has left at the vendor.

    What cannot be taken down now still stands: it is listed, and tried again later.
    """
    failed = replace(record, state="failed")
    try:
        failed = replace(failed, ref=host.find_deployment(record.name))
        if failed.ref is not None:
            host.undeploy(failed.ref)
    except BackendError:
        ledger.write_deployment(failed)
    else:
        ledger.write_deployment(replace(failed, ended=time.time()))


def deployments(*, standing: bool = False) -> list[Deployment]:
    """Return the deployments of this ledger, newest first, and take down what is overdue.

    What its vendor does not take down now still stands; the next look tries again.

    Args:
        standing: Only those that may cost money.
    """
    ledger = Ledger(home())
    found = [Deployment(ledger, record) for record in ledger.deployments()]
    for one in found:
        if one.stands and one.until < datetime.now(UTC):
            with suppress(BackendError):
                one.take_down()
    return [one for one in found if one.stands or not standing]


def find_deployment(id_or_run: str) -> Deployment:
    """Return a deployment by its id, or the newest one of a run by the run's id.

    Raises:
        UnknownName: There is none.
    """
    found = deployments()
    for one in found:
        if one.id == id_or_run or (one.run_id or "").startswith(id_or_run):
            return one
    hint = "`unitune deployments` lists them."
    raise UnknownName("deployment", id_or_run, [one.id for one in found], hint)


@contextmanager
def standing(
    run: Run,
    seconds: float,
    budget: HostingBudget = NO_LIMIT,
    options: Mapping[str, JsonValue] | None = None,
) -> Generator[Decimal]:
    """Let a run's model answer while the body runs, and take down what was brought up for it.

    The deployment ends with the body, with this process however it ends, and at its time, whichever
    is first. Models that answer without a deployment, or from one that stands, get none. What is
    given is what it may cost at most, in US dollars; nothing where its price is not known.

    Args:
        run: A succeeded run.
        seconds: How long the deployment may stand.
        budget: What it may cost.
        options: The backend's own: hardware, capacity, …
    """
    if not needs_deployment(run):
        yield Decimal(0)
        return
    made = deploy(run, seconds=seconds, options=options, while_pid=os.getpid(), budget=budget)
    try:
        made.wait()
        yield (made.usd_per_hour or Decimal(0)) * Decimal(seconds) / 3600
    finally:
        made.take_down()


def needs_deployment(run: Run) -> bool:
    """Whether a run's model answers only from a deployment, and none is ready."""
    return isinstance(registry.backend(run.backend_name), Deploys) and _ready(run) is None


def answering(run: Run) -> TunedModel:
    """Return what to ask for a run's model: itself, or the deployment that stands for it.

    Args:
        run: A succeeded run.

    Raises:
        UserError: It answers only from a deployment, and none is ready.
    """
    assert run.model is not None, "callers have looked"
    if not isinstance(registry.backend(run.backend_name), Deploys):
        return run.model
    ready = _ready(run)
    if ready is not None:
        return ready.model
    raise UserError(
        f"the model of run {run.id} answers only from a deployment at {run.backend_name}, which "
        f"costs money, and none is ready. Bring it up: unitune deploy {run.id} --for 2h"
    )


def _ready(run: Run) -> Deployment | None:
    """Return a deployment that answers for a run's model."""
    mine = (one for one in deployments(standing=True) if one.run_id == run.id)
    return next((one for one in mine if one.refresh().state == "ready"), None)


def _host(backend: str) -> Deploys:
    found = registry.backend(backend)
    if not isinstance(found, Deploys):
        raise Unsupported(f"models of {backend} answer without a deployment; just ask them.")
    return found


def _planned(
    ledger: Ledger, run: Run, model: TunedModel, seconds: float, prices: Sequence[PriceEntry]
) -> DeploymentRecord:
    earlier = sum(record.run_id == run.id for record in ledger.deployments())
    name = f"{run.id}-d{earlier + 1}"
    price = usd_per_hour(run, prices)
    now = time.time()
    return DeploymentRecord(
        id=name,
        run_id=run.id,
        backend=run.backend_name,
        name=name,
        model=model,
        state="planned",
        ref=None,
        usd_per_hour=None if price is None else str(price),
        created=now,
        until=now + seconds,
        ended=None,
    )


def _leave_reaper(deployment: str, while_pid: int | None) -> None:
    """Start the process that takes the deployment down; no terminal can end it."""
    watched = [] if while_pid is None else [str(while_pid)]
    reaper = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", "unitune.runs.reaper", deployment, *watched],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Someone has to take note of its end, or it stays in the process table.
    threading.Thread(target=reaper.wait, daemon=True).start()
