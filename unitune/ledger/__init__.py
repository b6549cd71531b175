"""Record runs in a database that outlives every process."""

from unitune.ledger.costs import Books
from unitune.ledger.ledger import Ledger
from unitune.ledger.records import (
    CostRecord,
    DeploymentRecord,
    RecordedEvent,
    RunRecord,
    Standing,
    Transition,
)

__all__ = [
    "Books",
    "CostRecord",
    "DeploymentRecord",
    "Ledger",
    "RecordedEvent",
    "RunRecord",
    "Standing",
    "Transition",
]
