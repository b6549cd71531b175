"""What a training of the same job has cost, where the ledger on this machine has its bill."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from unitune.ledger import Ledger
from unitune.ledger.budgeting import outcome_of
from unitune.planning.preflight import ResolvedJob
from unitune.workspace.home import home, ledger_url


@dataclass(frozen=True, slots=True)
class Billed:
    """A training's bill.

    Args:
        run: Id of the run.
        usd: US dollars.
    """

    run: str
    usd: Decimal


def billed(resolved: ResolvedJob) -> Billed | None:
    """Return the newest bill of this very training; None where there is none here."""
    if ledger_url() is not None or not (home() / "ledger.db").exists():
        return None  # a ledger that machines share is not asked in passing
    ledger, job = Ledger(home()), resolved.job
    for cost in reversed(ledger.costs()):
        theirs = (cost.backend, cost.base_model) == (job.backend, job.base_model)
        if not theirs or cost.outcome is None or cost.run_id is None:
            continue
        found = outcome_of(cost)
        same = ledger.record(cost.run_id).fingerprint == resolved.fingerprint
        if same and found.end == "succeeded" and found.usd is not None:
            return Billed(cost.run_id, found.usd)
    return None
