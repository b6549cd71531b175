"""Log and trace the changes of runs."""

from __future__ import annotations

from collections.abc import Sequence

from unitune.backends.protocol import Event, State
from unitune.ledger.records import RunRecord
from unitune.observability.logs import Log
from unitune.observability.traces import report_figures, report_run

# Group of the figures of each kind of event; progress is not a figure
GROUPS = {"step": "train", "validation": "validation"}
NO_FIGURES = frozenset({"step", "steps", "seconds_left"})
log = Log(__name__)


def figures_of(event: Event) -> dict[str, float]:
    """Return the figures of a step by group and name, such as ``train.loss``."""
    if (group := GROUPS.get(event.kind)) is None:
        return {}
    names = event.data.keys() - NO_FIGURES
    values = {f"{group}.{name}": event.number(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def observe_change(before: RunRecord, after: RunRecord, events: Sequence[Event]) -> None:
    """Report a written change of a run and its new events."""
    for event in events:
        report_figures(figures_of(event))
        if event.kind == "checkpoint":
            log.info("%s has a checkpoint after step %s", after.backend, event.data.get("step"))
    if before.state == after.state:
        return
    log.info("run %s is %s", after.id, after.state, job_id=after.job_id, attempt=after.attempt)
    if after.state.ended:
        ended = {
            "unitune.run.state": str(after.state),
            "unitune.run.attempt": after.attempt,
            "unitune.job.id": after.job_id,
            "unitune.training.method": after.method,
            "gen_ai.provider.name": after.backend,
            "gen_ai.request.model": after.base_model,
        }
        report_run(after.created, ended, failed=after.state is State.FAILED)
