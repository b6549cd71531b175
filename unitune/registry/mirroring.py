"""Mirror registered models to experiment trackers with a model registry, such as MLflow.

Nothing is read back. A missed mirror is updated at the next change or by `unitune runs track`.
"""

from __future__ import annotations

import logging

from unitune.errors import NotFoundError, UnreadableRecord
from unitune.ledger import Ledger, RunRecord
from unitune.tracking.feed import feeding
from unitune.tracking.interface import WITH_REGISTRY

log = logging.getLogger(__name__)


def mirror(ledger: Ledger, model: str) -> None:
    """Send a registered model's versions and aliases to its trackers; failures are warnings."""
    names, record = _mirrored(ledger, model)
    if record is None:
        return
    with feeding(ledger, record, names) as outcomes:
        pass
    for outcome in outcomes:
        if outcome.problem:
            log.warning(
                "the registry of %s was not updated with %s: %s. Update it later: unitune "
                "runs track %s --to %s",
                *(outcome.tracker, model, outcome.problem.rstrip("."), record.id, outcome.tracker),
            )


def _mirrored(ledger: Ledger, model: str) -> tuple[list[str], RunRecord | None]:
    for version in reversed(ledger.versions(model)):
        try:
            names = sorted(WITH_REGISTRY.intersection(ledger.job(version.run_id).track))
            if names:
                return names, ledger.record(version.run_id)
        except (NotFoundError, UnreadableRecord):  # the run is deleted, or was launched by others
            continue
    return [], None
