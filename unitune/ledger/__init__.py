"""Where runs are written down, in a database that outlives every process."""

from unitune.ledger.ledger import Ledger
from unitune.ledger.records import (
    Artefact,
    DeploymentRecord,
    RecordedEvent,
    RunRecord,
    Standing,
    Transition,
)

__all__ = [
    "Artefact",
    "DeploymentRecord",
    "Ledger",
    "RecordedEvent",
    "RunRecord",
    "Standing",
    "Transition",
]
