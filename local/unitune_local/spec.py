"""Define the specification that the worker of a training reads."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from pydantic import Field

from unitune.documents import Closed
from unitune.job.dialogue import Dialogue
from unitune.job.job import TokenPrice
from unitune_local.grading import Grading
from unitune_local.settings import Settings


class DevScorer(Closed):
    """Scorer of answers to the validation rows; see `unitune_local.training.selection`."""

    grading: Grading
    max_tokens: int


class DataFile(Closed):
    """A file of rows with its hash when the run was submitted."""

    path: Path
    sha256: str


class StartFiles(DataFile):
    """The adapter that a training continues from, with its hash when the run was submitted."""

    run: str | None
    """Run that produced the adapter, if any."""


class SpeedBasis(Closed):
    """Figures that a training's measured speed is compared with."""

    key: str = Field(pattern=r"^[a-z]+-[0-9a-f]{64}$")  # key that the speed is stored under
    flops_per_token: float
    peak_bytes: int  # of one process


class Spec(Closed):
    """Everything that the worker reads."""

    base: str
    """Name of the base model, as in the job."""
    base_path: Path
    base_fingerprint: str
    training: DataFile
    validation: DataFile | None
    data_fingerprint: str
    settings: Settings
    dev_scorer: DevScorer | None = None
    """Scorer of validation answers; None: answers decide nothing."""
    start: StartFiles | None = None
    """Adapter to continue from; None: the training begins at the base model."""
    rewards: tuple[Grading, ...] = ()
    """Rewards of sampled answers."""
    dialogue: Dialogue | None = None
    """Tools of sampled dialogues; None: a prompt has one answer."""
    tools: str = ""
    """Fingerprint of the tools when the run was submitted."""
    judge_prices: dict[str, TokenPrice] = {}  # noqa: RUF012 - pydantic copies it
    """Known prices of judges among the rewards, by name."""
    budget_usd: Decimal | None = None
    """Maximum cost of their requests."""
    basis: SpeedBasis | None = None
    """Figures for the measured speed; None: the speed is not stored."""
    callbacks: tuple[str, ...] = ()
    folder: Path = Path()
    """Folder of the job, which paths of callbacks are relative to."""
