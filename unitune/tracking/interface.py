"""The interface of a tracker, the data that it is sent, and the list of trackers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from pydantic import JsonValue

from unitune.backends.protocol import State
from unitune.errors import MissingExtra
from unitune.findings import Finding, error
from unitune.security.spec import Closed
from unitune.workspace.install import install_command

if TYPE_CHECKING:
    from unitune.ledger.model_versions import ModelVersion

TRACKED = "run.tracked"  # key prefix of the event that a tracker has the end of a run


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """Description of a run, sent to a tracker at the start."""

    id: str  # the run's id; for a later attempt, whose steps begin anew, its launch key
    name: str  # name shown to people
    project: str  # name of the job, by which a tracker groups runs
    parameters: dict[str, JsonValue]  # settings of the job by dotted names, without dictionaries
    tags: dict[str, str]  # further fields to search by
    created: float  # seconds since 1970, UTC
    home: Path  # the project's folder of artifacts


class Point(NamedTuple):
    """Figures of one step: ``train/loss``, ``validation/loss``, …; `id` grows with each point."""

    id: int
    step: int
    time: float
    values: dict[str, float]


class Results(Closed):
    """Results and files of a comparison that evaluated a run."""

    comparison: str  # id of the comparison
    time: float  # seconds since 1970, UTC
    values: dict[str, float]
    tags: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    files: tuple[Path, ...] = ()


class Outcome(Closed):
    """Result of feeding one tracker: where to look at the run, or what went wrong."""

    tracker: str
    where: str = ""
    problem: str = ""


class Tracker(Protocol):
    """A tracker with one run open, new or continued by its id.

    Each process sends a run from the beginning, so a tracker skips what it holds already.
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
    """A tracker with a registry of models."""

    def mirror(self, versions: Sequence[ModelVersion], aliases: Mapping[str, int | None]) -> None:
        """Give a registered model there the versions and aliases that it has in the ledger.

        Args:
            versions: All that it has, the oldest first.
            aliases: The version that each points to; None: it was removed.
        """


SOURCES = {  # by the names used in a job, which are also those of the packages and extras
    "mlflow": "unitune.tracking.mlflow:MlflowTracker",
    "wandb": "unitune.tracking.wandb:WandbTracker",
    "tensorboard": "unitune.tracking.tensorboard:TensorBoardTracker",
    "trackio": "unitune.tracking.trackio:TrackioTracker",
}
WITH_REGISTRY = frozenset({"mlflow"})  # trackers that are a `HasRegistry`


def missing_trackers(names: Iterable[str]) -> list[Finding]:
    """Return an error for the trackers of a job whose packages are not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if not missing:
        return []
    message = f"track names {', '.join(missing)}, and that is not installed."
    return [error("missing-extra", message, f"Install it: {install_command(*missing)}")]


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """Return a tracker for a run.

    Raises:
        MissingExtra: Its package is not installed.
        Exception: Whatever its package raises where it cannot be reached.
    """
    for finding in missing_trackers([name]):
        raise MissingExtra(str(finding))
    opened: Tracker = resolve_name(SOURCES[name])(run)
    return opened
