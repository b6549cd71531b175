"""Registries of experiment trackers: brought up to the ledger's after each change of it.

Where the job of a version names a tracker that has a registry of models, as MLflow has, that gets
the same versions and aliases. The ledger is what counts: nothing is ever read back, and a mirror
that could not be reached, or whose process was killed, gets everything at the next change, or by
`unitune track`.
"""

from __future__ import annotations

import logging

from unitune.errors import NotFoundError, UnreadableRecord
from unitune.ledger import Ledger, RunRecord
from unitune.tracking.feed import feeding
from unitune.tracking.interface import WITH_REGISTRY

log = logging.getLogger(__name__)


def mirror(ledger: Ledger, model: str) -> None:
    """Send the versions and aliases of a registered model to the trackers that mirror them.

    What a tracker does not take is a warning, with the command that sends it later.

    Args:
        ledger: Which has changed.
        model: Name of the registered model.
    """
    names, record = _mirrored(ledger, model)
    if record is None:
        return
    with feeding(ledger, record, names) as outcomes:
        pass
    for outcome in outcomes:
        if outcome.problem:
            log.warning(
                "the registry of %s was not brought up to %s: %s. Send it later: unitune track %s "
                "--to %s",
                *(outcome.tracker, model, outcome.problem.rstrip("."), record.id, outcome.tracker),
            )


def _mirrored(ledger: Ledger, model: str) -> tuple[list[str], RunRecord | None]:
    """Return the trackers that mirror a model, and the newest of its runs whose job names them."""
    for version in reversed(ledger.versions(model)):
        try:
            names = sorted(WITH_REGISTRY.intersection(ledger.job(version.run_id).track))
            if names:
                return names, ledger.record(version.run_id)
        except (NotFoundError, UnreadableRecord):  # its run is deleted, or was launched by others
            continue
    return [], None
