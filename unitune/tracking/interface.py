"""What a tracker is given of a run, and what it does with it; which trackers there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from unitune.backends.protocol import State
from unitune.errors import MissingExtra
from unitune.findings import Finding, error
from unitune.security.spec import Closed
from unitune.workspace.install import install_command

if TYPE_CHECKING:
    from unitune.ledger.model_versions import ModelVersion

Value = str | int | float | bool
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

    id: str
    name: str
    project: str
    parameters: dict[str, Value]
    tags: dict[str, str]
    created: float
    home: Path


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


class _Source(NamedTuple):
    module: str
    """The package that the tracker needs, which is its extra's too."""
    tracker: str
    has_registry: bool = False
    """Whether it is a `HasRegistry`."""


SOURCES = {
    "mlflow": _Source("mlflow", "unitune.tracking.mlflow:MlflowTracker", has_registry=True),
    "wandb": _Source("wandb", "unitune.tracking.wandb:WandbTracker"),
    "tensorboard": _Source("tensorboard", "unitune.tracking.tensorboard:TensorBoardTracker"),
    "trackio": _Source("trackio", "unitune.tracking.trackio:TrackioTracker"),
}
"""By the names that a job has for them."""
WITH_REGISTRY = frozenset(name for name, source in SOURCES.items() if source.has_registry)


def missing_trackers(names: Iterable[str]) -> list[Finding]:
    """Return an error for the trackers of a job whose packages are not installed."""
    missing = [name for name in names if find_spec(SOURCES[name].module) is None]
    if not missing:
        return []
    return [
        error(
            "missing-extra",
            f"track names {', '.join(missing)}, and that is not installed.",
            f"Install it: {install_command(*missing)}",
        )
    ]


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """Return a tracker for a run.

    Raises:
        MissingExtra: Its package is not installed.
        Exception: Whatever its package raises where it cannot be reached.
    """
    for finding in missing_trackers([name]):
        raise MissingExtra(str(finding))
    module, _, tracker = SOURCES[name].tracker.partition(":")
    opened: Tracker = getattr(import_module(module), tracker)(run)
    return opened
