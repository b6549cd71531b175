"""What the worker of a training reads: its files, its settings and how they were at the launch."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from unitune.security.spec import Closed
from unitune_local.grading import Grading
from unitune_local.settings import Settings


class DevScorer(Closed):
    """By what answers to the validation rows are scored; see `unitune_local.training.dev_score`."""

    grading: Grading
    max_tokens: int


class DataFile(Closed):
    """A file of rows, and what it held when the run was submitted."""

    path: Path
    sha256: str


class StartFiles(DataFile):
    """The adapter that a training goes on from, likewise."""

    run: str | None
    """The run that left it behind, if one did."""


class SpeedBasis(Closed):
    """What a training's measured speed is compared with."""

    key: str = Field(pattern=r"^[a-z]+-[0-9a-f]{64}$")  # under which the speed is kept
    flops_per_token: float
    peak_bytes: int  # of one process


class Spec(Closed):
    """All that the worker reads."""

    base: str
    """Name of the base model, as the job has it."""
    base_path: Path
    base_fingerprint: str
    training: DataFile
    validation: DataFile | None
    data_fingerprint: str
    settings: Settings
    dev_scorer: DevScorer | None = None
    """None: nothing is decided by answers."""
    start: StartFiles | None = None
    """None: the training begins at the base model."""
    rewards: tuple[Grading, ...] = ()
    """Rewards of sampled answers."""
    basis: SpeedBasis | None = None
    """None: its speed is not kept."""
    callbacks: tuple[str, ...] = ()
    folder: Path = Path()
    """The job's, where the paths of callbacks start."""
