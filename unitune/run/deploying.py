"""Deploy tuned models for a limited time.

Some vendors serve a tuned model only from a deployment, paid by the hour. `deploy` records what it
is about to do, starts the deployment and leaves a process that takes it down in time
(`unitune.run.reaper`). Listing deployments also takes down overdue ones, in case the machine was
off. The deployment's id is its name at the vendor, so an interrupted deploy can find it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.capabilities import Deploys
from unitune.backends.exactly_once import CreateCall, deployment_name, exactly_once
from unitune.backends.protocol import Guarantee
from unitune.cost.budget import NO_LIMIT, HostingBudget, ProjectBudget, least, project_budget
from unitune.cost.prices.book import book_for
from unitune.errors import CONFLICT, BackendError, NotFoundError, RunFailed, UnituneError, UserError
from unitune.job.prices import PriceEntry
from unitune.ledger import DeploymentRecord, Ledger, budgeting
from unitune.ledger.finding import find_record
from unitune.ledger.holders import process
from unitune.models import TunedModel, VersionName
from unitune.run.deployment import Deployment, deployments, needs_deployments, ready_deployment
from unitune.run.reaper import host_of, leave_reaper, seconds_left, write
from unitune.run.run import Run
from unitune.workspace.home import home
from unitune.workspace.user_settings import today

DEFAULT_TTL = timedelta(hours=2)  # long enough for an evaluation
UNIT_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
# Price units charged by the hour; a monthly price gives no hourly price
HOURLY = ("hour", "gpu-hour")
log = logging.getLogger(__name__)


def deploy(
    run: Run,
    *,
    ttl: timedelta | str | float = DEFAULT_TTL,
    options: Mapping[str, JsonValue] | None = None,
    while_pid: int | None = None,
    budget: HostingBudget | Decimal | float | None = None,
) -> Deployment:
    """Deploy a run's model at its vendor for a limited time, which costs money.

    The cost is first checked against budget.yaml and `budget`. The deployment is taken down in time
    even if this process has ended. If the run has a deployment that is starting or ready, it is
    continued and keeps its end; a second one is never created.

    Examples:
        >>> with unitune.deploy(run, ttl="2h", budget=20):  # waits until it is ready
        ...     print(run.model.ask("Where is my parcel?"))

    Args:
        run: A succeeded run.
        ttl: Time after which it is taken down, such as "30m", "2h" or "1d", or seconds.
        options: Backend-specific options: hardware, capacity, …
        while_pid: Also take it down as soon as this process has ended.
        budget: Maximum cost in US dollars.

    Raises:
        OverBudget: The cost may exceed a budget, or the price is unknown.
        UserError: The run has no model.
        Unsupported: The backend's models do not need a deployment.
        UnituneError: The vendor refused the request or did not answer.
    """
    if run.tuned_model is None:
        raise UserError(f"run {run.id} is {run.state} and has no model to deploy.")
    seconds = ttl_seconds(ttl)
    budget = HostingBudget.of(budget)
    host, options = host_of(run.backend_name), serving_options(run, options or {})
    _check_tier(run, options, seconds)
    ledger = Ledger(home())
    earlier = _unfinished(run) if while_pid is None else None
    if earlier is None:
        price = usd_per_hour(run, budget.prices, options)
        record = _planned(ledger, run, run.tuned_model, seconds, price)
        limits, unpriced = budget_of(run), budget.unpriced
        budgeting.add_deployment(ledger, record, limits, budget.usd, unpriced=unpriced)
    else:
        record = ledger.deployment(earlier.id)
        budgeting.hold_deployment(ledger, record, budget.usd, unpriced=budget.unpriced)
        until = f"{earlier.until.astimezone():%H:%M}"
        log.warning("continuing deployment %s, which is taken down at %s", record.id, until)
    if earlier is None or earlier.reaper is None or earlier.reaper.life == "gone":
        parent = None if while_pid is None else process(while_pid).text
        _leave_reaper(
            ledger, record, parent
        )  # first, so that the deployment ends whatever happens next
    if record.ref is not None:
        return Deployment(ledger, record)
    try:
        ref = exactly_once(_DeploymentCall(host, run.tuned_model, record.name, options))
    except UnituneError as error:
        # After a conflict something has this name; the list may not show it yet.
        if not error.is_ambiguous and getattr(error, "status", None) != CONFLICT:
            _clear(ledger, host, record)
        raise
    started = Deployment(ledger, write(ledger, record, state="starting", ref=ref))
    if not started.stands:
        host.undeploy(ref)
        raise RunFailed(f"{record.id} started after its end time and was taken down.")
    return started.refresh()


def ttl_seconds(ttl: timedelta | str | float, name: str = "ttl") -> float:
    """Convert a time such as "30m", "2h" or "1d", or seconds, to seconds, or raise `UserError`."""
    if isinstance(ttl, timedelta):
        seconds = ttl.total_seconds()
    elif isinstance(ttl, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", ttl.strip())
        seconds = float(match[1]) * UNIT_SECONDS[match[2]] if match else 0.0
    else:
        seconds = ttl
    if not seconds > 0:
        raise UserError(f"{name} is {ttl!r}; write a time such as 30m, 2h or 1d.")
    return seconds


@dataclass(frozen=True, slots=True)
class _DeploymentCall(CreateCall):
    host: Deploys
    model: TunedModel
    name: str
    options: Mapping[str, JsonValue]
    guarantee: Guarantee = Guarantee.OWN_ID

    def create(self) -> str:
        return self.host.deploy(self.model, self.name, self.options)

    def find(self) -> list[str]:
        ref = self.host.find_deployment(self.name)
        return [] if ref is None else [ref]


def _clear(ledger: Ledger, host: Deploys, record: DeploymentRecord) -> None:
    """Remove what a refused deployment left at the vendor, or record that it still stands."""
    ref = None
    try:
        ref = host.find_deployment(record.name)
        if ref is not None:
            host.undeploy(ref)
    except BackendError:
        write(ledger, record, state="failed", ref=ref)
    else:
        write(ledger, record, state="failed", ref=ref, ended=ledger.now())


def without_reaper() -> list[Deployment]:
    """Return the active deployments of this machine without a live reaper process."""
    ledger = Ledger(home())
    lost: list[Deployment] = []
    for record in ledger.deployments():
        deployment = Deployment(ledger, record)
        reaper = deployment.reaper
        is_lost = not ledger.is_shared if reaper is None else reaper.life in ("gone", "stopped")
        if record.ended is None and is_lost:
            lost.append(deployment)
    return lost


def leave_reaper_again(deployment: Deployment) -> None:
    """Restart the process that takes a deployment down in time."""
    ledger, reaper = Ledger(home()), deployment.reaper
    _leave_reaper(ledger, ledger.deployment(deployment.id), reaper and reaper.parent)


def find_deployment(id_or_run: str) -> Deployment:
    """Return the newest of `find_deployments`."""
    return find_deployments(id_or_run)[0]


def find_deployments(id_or_run: str) -> list[Deployment]:
    """Return the deployment with this id, or all active ones of a run, newest first.

    If none of the run's deployments is active, the newest one is returned.

    Raises:
        NotFoundError: No deployment has this id, and no run of this name has a deployment.
        UserError: The name matches several runs that have deployments.
    """
    listed, name = deployments(), id_or_run
    if VersionName.parse(name):
        name = find_record(Ledger(home()), name).id
    of_run = [each for each in listed if (each.run_id or "").startswith(name)]
    found = [each for each in listed if each.id == name]
    found = found or [each for each in of_run if each.stands] or of_run[:1]
    if not found:
        hint = "`unitune deployments` lists them."
        raise NotFoundError("deployment", id_or_run, [each.id for each in listed], hint)
    if len({each.run_id for each in found}) > 1:
        names = ", ".join(each.id for each in found)
        raise UserError(
            f"{id_or_run!r} matches deployments of several runs: {names}. Use a longer name."
        )
    return found


def _unfinished(run: Run) -> Deployment | None:
    """Return the run's deployment that `deploy` continues, but none that ends with a process."""
    for deployment in deployments(standing=True):
        reaper = deployment.reaper
        if deployment.run_id != run.id or (reaper is not None and reaper.parent is not None):
            continue
        if deployment.refresh().stands and deployment.state != "failed":
            return deployment
    return None


@contextmanager
def standing(
    run: Run,
    seconds: float,
    budget: HostingBudget = NO_LIMIT,
    options: Mapping[str, JsonValue] | None = None,
) -> Generator[Decimal]:
    """Deploy a run's model while the body runs, if it needs that, and take it down afterwards.

    Yield the maximum cost in US dollars; 0 if no deployment is started or its price is unknown. The
    deployment ends with the body, with this process or at its time, whichever comes first. See
    `deploy` for the arguments.
    """
    if not needs_deployment(run):
        yield Decimal(0)
        return
    made = deploy(run, ttl=seconds, options=options, while_pid=os.getpid(), budget=budget)
    try:
        made.wait()
        yield (made.usd_per_hour or Decimal(0)) * Decimal(seconds) / 3600
    finally:
        made.take_down()
        log.warning("deployment %s is taken down", made.id)


def needs_deployment(run: Run) -> bool:
    """Return whether a run's model needs a deployment and none is ready."""
    return needs_deployments(run.backend_name) and ready_deployment(run.id) is None


def _planned(
    ledger: Ledger, run: Run, model: TunedModel, seconds: float, price: Decimal | None
) -> DeploymentRecord:
    earlier = sum(record.run_id == run.id for record in ledger.deployments())
    name = deployment_name(run.id, earlier + 1)
    now = ledger.now()
    return DeploymentRecord(
        id=name,
        run_id=run.id,
        backend=run.backend_name,
        name=name,
        model=model,
        state="planned",
        ref=None,
        usd_per_hour=price,
        created=now,
        until=now + seconds,
        ended=None,
    )


def _leave_reaper(ledger: Ledger, record: DeploymentRecord, parent: str | None) -> None:
    left = seconds_left(ledger.folder, record, ledger.now())
    leave_reaper(ledger.folder, record.id, left, parent)


def serving_options(run: Run, given: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the options of a deployment of a run's model, with the tier that its job chose."""
    offer, options = registry.offer(run.backend_name), run.job.options.get(run.backend_name, {})
    return offer.serving_options(options, given, run.base_model)


def _check_tier(run: Run, options: Mapping[str, JsonValue], seconds: float) -> None:
    """Raise `UserError` if a tier may move data that a job keeps in place, or ends too early."""
    offer, chosen = registry.offer(run.backend_name), run.job.options.get(run.backend_name, {})
    tier = offer.serving_tier({**chosen, **options}, run.base_model)
    if offer.tiers is None:
        return
    if refusal := offer.tiers.residency_refusal(chosen, tier):
        name = offer.tiers.residency_option
        raise UserError(
            f"options.{offer.name}.{name} of the job is {chosen[name]}, but {refusal}. Deploy with "
            f"another {offer.tiers.serving_option}."
        )
    hours = offer.tiers.facts_of(tier).lifetime_hours
    if hours is not None and seconds > hours * 3600:
        raise UserError(
            f"{offer.name} deletes a deployment of tier {tier} after {hours} hours. Use --ttl "
            f"{hours}h or less, or another {offer.tiers.serving_option}."
        )


def usd_per_hour(
    run: Run, prices: Iterable[PriceEntry] = (), options: Mapping[str, JsonValue] | None = None
) -> Decimal | None:
    """Return the hourly price on the most expensive machine; None if unknown."""
    job = run.job.model_copy(update={"folder": _project(run) or Path()}).with_prices(prices)
    book = book_for(job)
    chosen = {**job.options.get(run.backend_name, {}), **serving_options(run, options or {})}
    tier = book.offer(run.backend_name).serving_tier(chosen, run.base_model)
    ends = book.hosting(run.backend_name, run.base_model, tier=tier, on=today())
    if ends is None or any(row.usd and row.per not in HOURLY for row in ends):
        return None
    return ends[1].usd


def budget_of(run: Run) -> ProjectBudget:
    """Return the budget limits for a deployment of a run's model.

    They come from its project and the current folder, or else from the run's launch.
    """
    here, project = project_budget(Path()), _project(run)
    if project is not None:
        return least((here, project_budget(project)))
    approval = budgeting.approval_of(Ledger(home()), run.id)
    return least((here, approval.project)) if approval else here


def _project(run: Run) -> Path | None:
    """Return the folder of the run's training rows, if it still exists."""
    job = run.job
    rows = [job.path(name) for name in job.data.files("train")]
    return next((path.parent.resolve() for path in rows if path.parent.exists()), None)
