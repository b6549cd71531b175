"""What a tracker is given of a run, and what it does with it; which trackers there are."""

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

TRACKED = "run.tracked"
"""How the key begins of the event that a tracker knows how the run has ended."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run as a tracker is told of it when it begins.

    Args:
        id: The run's own; of a later attempt its launch key, since its steps begin anew.
        name: For people.
        project: What a tracker groups runs by: the job's name.
        parameters: The job's settings by dotted names.
        tags: What else it can be searched by.
        created: Seconds since 1970, UTC.
        home: The ledger's folder.
    """

    id: str  # its own; of a later attempt its launch key, since its steps begin anew
    name: str  # for people
    project: str  # by which a tracker groups runs: the job's name
    parameters: dict[str, JsonValue]  # the job's settings by dotted names: no dictionaries
    tags: dict[str, str]  # by which it can be searched, too
    created: float  # seconds since 1970, UTC
    home: Path  # the ledger's folder


class Point(NamedTuple):
    """Figures of one step: ``train/loss``, ``validation/loss``, …; `id` grows with each point."""

    id: int
    step: int
    time: float
    values: dict[str, float]


class Results(Closed):
    """What a comparison has measured of a run, and its files."""

    comparison: str
    """Its id."""
    time: float
    """Seconds since 1970, UTC."""
    values: dict[str, float]
    tags: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    files: tuple[Path, ...] = ()


class Outcome(Closed):
    """What came of one tracker: where to look at it, or why not."""

    tracker: str
    where: str = ""
    problem: str = ""


class Tracker(Protocol):
    """A tracker with one run opened: a new one, or that of the same id, which goes on.

    What it holds already is not sent again: whoever was killed is followed by one who sends all.
    """

    where: str
    """Where to look at it."""

    def __init__(self, run: TrackedRun) -> None: ...

    def log(self, points: Sequence[Point]) -> None:
        """Send figures, in the order of their ids."""
        ...

    def add(self, results: Results) -> None:
        """Send what a comparison has measured."""
        ...

    def close(self, state: State) -> None:
        """Send what is left, and say where the run stands."""
        ...


@runtime_checkable
class HasRegistry(Protocol):
    """A tracker that has a registry of models, too."""

    def mirror(self, versions: Sequence[ModelVersion], aliases: Mapping[str, int | None]) -> None:
        """Give a registered model there the versions and aliases that it has in the ledger.

        Args:
            versions: All that it has, the oldest first.
            aliases: The version that each points to; None: it was removed.
        """
        ...


SOURCES = {
    "mlflow": "unitune.tracking.mlflow:MlflowTracker",
    "wandb": "unitune.tracking.wandb:WandbTracker",
    "tensorboard": "unitune.tracking.tensorboard:TensorBoardTracker",
    "trackio": "unitune.tracking.trackio:TrackioTracker",
}
"""By the names that a job has for them, which are their packages' and extras', too."""
WITH_REGISTRY = frozenset({"mlflow"})
"""Those that are a `HasRegistry`."""


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
