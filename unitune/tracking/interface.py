"""Define the interface of trackers, the data sent to them, and the list of trackers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from pydantic import JsonValue

from unitune.backends.protocol import State
from unitune.documents import Closed
from unitune.errors import MissingExtra
from unitune.findings import Finding, error
from unitune.workspace.install import install_command

if TYPE_CHECKING:
    from unitune.ledger.model_versions import ModelVersion

TRACKED = "run.tracked"  # key prefix of the event that a tracker has received a run's end


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """Description of a run, sent to a tracker at the start."""

    id: str  # run's id; launch key for later attempts, whose steps restart
    name: str  # display name
    project: str  # name of the job, used to group runs
    parameters: dict[str, JsonValue]  # settings of the job by dotted name, without dictionaries
    tags: dict[str, str]  # further searchable fields
    created: float  # seconds since 1970, UTC
    home: Path  # project's folder of artifacts


class Point(NamedTuple):
    """Figures of one step: ``train/loss``, ``validation/loss``, …; `id` grows with each point."""

    id: int
    step: int
    time: float
    values: dict[str, float]


class Results(Closed):
    """Results and files of the comparison that evaluated a run."""

    comparison: str  # id of the comparison
    time: float  # seconds since 1970, UTC
    values: dict[str, float]
    tags: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    files: tuple[Path, ...] = ()


class Outcome(Closed):
    """Result of feeding one tracker: the address of the run, or the error."""

    tracker: str
    where: str = ""
    problem: str = ""


class Tracker(Protocol):
    """Tracker with one open run, which is new or resumed by its id.

    Each process sends a run from its first event, so a tracker skips points that it already has.
    """

    where: str  # address or folder of the run at the tracker

    def __init__(self, run: TrackedRun) -> None: ...

    def log(self, points: Sequence[Point]) -> None:
        """Send figures, in the order of their ids."""

    def add(self, results: Results) -> None:
        """Send the results of a comparison."""

    def close(self, state: State) -> None:
        """Send the rest and the state of the run."""


@runtime_checkable
class HasRegistry(Protocol):
    """Tracker with a model registry."""

    def mirror(self, versions: Sequence[ModelVersion], aliases: Mapping[str, int | None]) -> None:
        """Copy the versions and aliases of a registered model from the ledger to the registry.

        Args:
            versions: All versions, the oldest first.
            aliases: Version number by alias; None for a removed alias.
        """


SOURCES = {  # by name in a job, which is also the name of the package and extra
    "mlflow": "unitune.tracking.trackers:MlflowTracker",
    "wandb": "unitune.tracking.trackers:WandbTracker",
    "tensorboard": "unitune.tracking.trackers:TensorBoardTracker",
    "trackio": "unitune.tracking.trackers:TrackioTracker",
}
WITH_REGISTRY = frozenset({"mlflow"})  # trackers that implement `HasRegistry`


def missing_trackers(names: Iterable[str]) -> list[Finding]:
    """Return an error for the job's trackers whose packages are not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if not missing:
        return []
    message = f"track names {', '.join(missing)}, and that is not installed."
    return [error("missing-extra", message, f"Install it: {install_command(*missing)}")]


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """Return a tracker for a run.

    Raises:
        MissingExtra: The tracker's package is not installed.
        Exception: Any exception of the package, e.g. if its server is unreachable.
    """
    for finding in missing_trackers([name]):
        raise MissingExtra(str(finding))
    opened: Tracker = resolve_name(SOURCES[name])(run)
    return opened
