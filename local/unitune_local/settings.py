"""Every choice of a training, resolved: what a job says, and what `auto` becomes here.

Chosen once, when a run is submitted, and written into it: a resumed run keeps dtype, threads and
batches, because other ones would round differently and give other losses.

How the defaults were chosen stands at each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict

from unitune.backends.options import job_options
from unitune.job.job import Job, Preference
from unitune_local import machine
from unitune_local.options import LocalOptions

T = TypeVar("T")
Loss = Literal["dpo", "robust", "ipo", "simpo", "orpo", "kto"]
Quantization = Literal["4bit", "8bit"]

EPOCHS = 3
BATCH_SIZE = 8
"""Twice the updates of 16 for the same tokens. On 532 messages to a support desk, 3 epochs, seed 0:
59.0 % exact with batches of 8 at 1e-3, 28.3 % with batches of 16 at 5e-4."""
HIGHEST_RATE = 1e-3
"""The highest learning rate that was tried here (the example above, a model of width 576)."""
RANK = 16
"""All linear layers at a modest rank beat attention alone at a high one (Schulman et al. 2025,
"LoRA without regret"); rank costs next to nothing here."""
ALPHA_PER_RANK = 2
BETA = 0.1
"""Of all losses but simpo: TRL's default, and one that every vendor takes."""
SIMPO_BETA, SIMPO_MARGIN = 2.0, 0.5
"""Meng et al. 2024: beta 2.0 to 2.5, margin 0.5 to 1.5 (section 4)."""
PREFERENCE_RATE = 0.1
"""Of the learning rate for answers: pairs want smaller steps."""
SEED = 0
WARMUP_SHARE = 0.05
"""Of all steps."""
MICRO_BATCH_TOKENS = {"cpu": 1024, "mps": 4096, "cuda": 16384}
"""A CPU multiplies 500 tokens as efficiently as 5,000; memory is what more would cost."""
LENGTH_MULTIPLE = 32
"""Tokens. Kernels are then made for some twenty lengths and not for hundreds. On 2 cores a training
of the embedded model took 3 to 6 % less time and 9 % less memory, one of 5 million weights 20 % and
a third less."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What the defaults depend on.

    Args:
        context: Tokens that the base model was made for.
        hidden: Width between its layers.
    """

    context: int
    hidden: int


class PreferenceSettings(BaseModel):
    """A loss on pairs of answers, with everything decided; see `unitune_local.preference`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    loss: Loss
    beta: float
    label_smoothing: float
    margin: float
    nll_weight: float

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with the base model."""
        return self.loss not in ("simpo", "orpo")


class Settings(BaseModel):
    """How a training runs, without anything left open."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    epochs: int
    batch_size: int
    learning_rate: float
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...] | Literal["all"]
    sequence_length: int
    seed: int
    preference: PreferenceSettings | None = None
    """None: answers are learnt as they are."""
    device: str
    dtype: Literal["float32", "bfloat16"]
    quantization: Quantization | None = None
    threads: int
    micro_batch_tokens: int
    share_prefix: bool
    checkpoint_seconds: float
    checkpoint_every_steps: int | None

    @property
    def forwards(self) -> int:
        """Passes over the rows without a backward pass: of the base model, and before each step."""
        if self.preference is None or not self.preference.needs_reference:
            return 0
        return 1 + (self.epochs if self.preference.loss == "kto" else 0)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the frozen weights."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    @property
    def makes_kernels(self) -> bool:
        """Whether kernels are made for each length anew: on a CPU, in bfloat16."""
        return self.device == "cpu" and self.dtype == "bfloat16"

    @property
    def length_multiple(self) -> int:
        """What lengths of micro-batches are to be multiples of, in tokens."""
        return LENGTH_MULTIPLE if self.makes_kernels else 1


class DataFile(BaseModel):
    """A file of rows, and what it held when the run was submitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path
    sha256: str


class Spec(BaseModel):
    """All that the worker reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base: str
    """Name of the base model, as the job has it."""
    base_path: Path
    base_fingerprint: str
    training: DataFile
    validation: DataFile | None
    data_fingerprint: str
    settings: Settings


def resolve(job: Job, base: Dimensions) -> Settings:
    """Return a job's settings with every `auto` decided for this machine.

    Raises:
        JobError: The options of this backend are not valid.
    """
    options, tuning, lora = job_options(job, "local", LocalOptions), job.tuning, job.tuning.lora
    device = _device(options)
    rank = _auto(lora.rank, RANK)
    dropout = _auto(lora.dropout, 0.0)
    return Settings(
        epochs=_auto(tuning.epochs, EPOCHS),
        batch_size=_auto(tuning.batch_size, BATCH_SIZE),
        learning_rate=_auto(
            tuning.learning_rate,
            default_rate(base.hidden) * (PREFERENCE_RATE if job.method == "dpo" else 1),
        ),
        rank=rank,
        alpha=_auto(lora.alpha, float(ALPHA_PER_RANK * rank)),
        dropout=dropout,
        targets="all" if lora.targets == "auto" else lora.targets,
        sequence_length=_auto(tuning.sequence_length, base.context),
        seed=_auto(tuning.seed, SEED),
        preference=_preference(tuning.preference) if job.method == "dpo" else None,
        device=device.type,
        dtype=_dtype(options, device),
        quantization=options.quantization,
        threads=machine.cores() if options.threads == "auto" else options.threads,
        micro_batch_tokens=_auto(options.micro_batch_tokens, MICRO_BATCH_TOKENS[device.type]),
        # With a shared prefix, the rows of a batch would share one dropout mask over the prefix.
        share_prefix=options.share_prefix and dropout == 0,
        checkpoint_seconds=options.checkpoint_seconds,
        checkpoint_every_steps=options.checkpoint_every_steps,
    )


def default_rate(hidden: int) -> float:
    """Return the peak learning rate for LoRA on a model of this width.

    Wider models want smaller steps; narrow ones are held at `HIGHEST_RATE`.

    Source:
        tinker-cookbook, hyperparam_utils.py, for Llama models: ten times the rate of full tuning,
        5e-5 · 10 · (2000 / hidden)^0.781. Schulman et al. 2025, "LoRA without regret".
    """
    return min(HIGHEST_RATE, 5e-4 * (2000 / hidden) ** 0.781)


def _preference(given: Preference) -> PreferenceSettings:
    loss: Loss = "dpo" if given.loss == "auto" else given.loss
    return PreferenceSettings(
        loss=loss,
        beta=_auto(given.beta, SIMPO_BETA if loss == "simpo" else BETA),
        label_smoothing=_auto(given.label_smoothing, 0.0),
        margin=_auto(given.margin, SIMPO_MARGIN if loss == "simpo" else 0.0),
        nll_weight=_auto(given.nll_weight, 0.0),
    )


def _auto(given: T | Literal["auto"], default: T) -> T:
    return default if given == "auto" else given


def _device(options: LocalOptions) -> torch.device:
    return machine.device() if options.device == "auto" else torch.device(options.device)


def _dtype(options: LocalOptions, device: torch.device) -> Literal["float32", "bfloat16"]:
    if options.dtype != "auto":
        return options.dtype
    return "bfloat16" if machine.best_dtype(device) is torch.bfloat16 else "float32"
