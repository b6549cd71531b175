"""Every choice of a training, resolved: what a job says, and what `auto` becomes here.

Chosen once, when a run is submitted, and written into it: a resumed run keeps dtype, threads and
batches, because other ones would round differently and give other losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import field_validator

from unitune.backends.options import job_options
from unitune.backends.output_limit import TRAINING_ROOM, automatic_tokens
from unitune.job.job import Job, Preference, Reward
from unitune.job.tuning import SIMPO_MARGIN, Tuning
from unitune.security.spec import Closed, Frozen
from unitune_local import machine
from unitune_local.grading import Grading
from unitune_local.options import LocalOptions

T = TypeVar("T")
Loss = Literal["dpo", "robust", "ipo", "simpo", "orpo", "kto"]
Quantization = Literal["4bit", "8bit"]
Schedule = Literal["cosine", "linear", "constant"]

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
SIMPO_BETA = 2.0
"""Meng et al. 2024: 2.0 to 2.5 (section 4)."""
PREFERENCE_RATE = 0.1
"""Of the learning rate for answers: pairs want smaller steps."""
GROUP_SIZE = 8
"""TRL's default, too. Of answers that are right one time in eight, two groups of three tell."""
REWARD_RATE = 0.1
"""Of the learning rate for answers, likewise."""
SEED = 0
WARMUP_SHARE = 0.05
"""Of all steps."""
PATIENCE = 3
"""Evaluations: one that is no better may be noise of few rows. Together waits for 2."""
MICRO_BATCH_TOKENS = {"cpu": 1024, "mps": 4096, "cuda": 16384}
"""A CPU multiplies 500 tokens as efficiently as 5,000; memory is what more would cost."""
LENGTH_MULTIPLE = 32
"""Tokens. Kernels are then made for some twenty lengths and not for hundreds. On 2 cores a training
of the embedded model took 3 to 6 % less time and 9 % less memory, one of 5 million weights 20 % and
a third less."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What the defaults depend on."""

    context: int
    hidden: int


class AdapterShape(Frozen):
    """What stays of an adapter when a training goes on from it; named as in peft's file."""

    r: int
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    target_modules: tuple[str, ...]
    """Last parts of the modules' names, in any layer."""

    @field_validator("target_modules")
    @classmethod
    def _last_parts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({name.rpartition(".")[2] for name in names}))


class PreferenceSettings(Closed):
    """A loss on pairs of answers, decided; see `unitune_local.objectives.preference`."""

    loss: Loss
    beta: float
    label_smoothing: float
    margin: float
    nll_weight: float

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with the base model."""
        return self.loss not in ("simpo", "orpo")


class SelectionSettings(Closed):
    """Which step is kept, when a training ends early; see `unitune_local.training.selection`."""

    keep: Literal["best", "last"] = "last"
    best_by: Literal["loss", "score"] = "loss"
    patience: int | None = None
    """None: it does not end early."""
    min_delta: float = 0.0

    @property
    def needs_validation(self) -> bool:
        """Whether it decides anything by the validation rows."""
        return self.keep == "best" or self.patience is not None


class RewardSettings(Closed):
    """How answers are sampled, with everything decided; see `unitune_local.objectives.reward`."""

    group_size: int
    temperature: float
    max_tokens: int
    kl: float


class Settings(Closed):
    """How a training runs, without anything left open."""

    epochs: int
    max_steps: int | None = None
    batch_size: int
    learning_rate: float
    warmup: float = WARMUP_SHARE
    """Steps, or, below 1, their share of all."""
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0
    evaluate_every: float | None = None
    """Steps, or, below 1, a share of an epoch; None: an epoch."""
    selection: SelectionSettings = SelectionSettings()
    rank: int
    alpha: float
    dropout: float
    rslora: bool = False
    dora: bool = False
    loraplus_lr_ratio: float | None = None
    init: Literal["kaiming", "gaussian"] = "kaiming"
    neftune_noise_alpha: float | None = None
    targets: tuple[str, ...] | Literal["all"]
    sequence_length: int
    seed: int
    preference: PreferenceSettings | None = None
    """None: answers are learnt as they are."""
    reward: RewardSettings | None = None
    """None: no answers are sampled."""
    device: str
    dtype: Literal["float32", "bfloat16"]
    quantization: Quantization | None = None
    threads: int
    """Of each process."""
    processes: int = 1
    shard: bool | None = False  # None: by memory
    micro_batch_tokens: int
    share_prefix: bool
    gradient_checkpointing: bool | None = None  # None: by memory
    chunked_cross_entropy: bool | None = None
    checkpoint_seconds: float
    checkpoint_every_steps: int | None

    def steps(self, rows: int) -> int:
        """Return the optimiser steps of a training on so many rows that does not end early."""
        steps = self.epoch_steps(rows) * self.epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch_steps(self, rows: int) -> int:
        """Return the optimiser steps of a pass over so many rows."""
        return math.ceil(rows / self.batch_size)

    def evaluation_steps(self, rows: int) -> int:
        """Return how many steps lie between two evaluations."""
        every, epoch = self.evaluate_every, self.epoch_steps(rows)
        if every is None:
            return epoch
        return round(every) if every >= 1 else max(1, round(every * epoch))

    def forwards(self, epochs: float) -> float:
        """Return the passes over the rows without a backward pass, in a training of some epochs.

        The base model makes one, and kto one before each step, as a divergence does.
        """
        if self.reward is not None:
            return epochs if self.reward.kl else 0
        if self.preference is None or not self.preference.needs_reference:
            return 0
        return 1 + (epochs if self.preference.loss == "kto" else 0)

    @property
    def processes_per_device(self) -> int:
        """How many processes share a device's memory; of GPUs, each has one."""
        return 1 if self.device == "cuda" else self.processes

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


class DevScorer(Closed):
    """By what answers to the validation rows are scored; see `unitune_local.training.dev_score`."""

    grading: Grading
    max_tokens: int


class DataFile(Closed):
    """A file of rows, and what it held when the run was submitted."""

    path: Path
    sha256: str


class StartFiles(Closed):
    """The adapter that a training goes on from, and what it held when the run was submitted."""

    path: Path
    sha256: str
    run: str | None
    """The run that left it behind, if one did."""


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
    grading: Grading | None = None
    """Of sampled answers."""


METHOD_RATES = {"sft": 1.0, "dpo": PREFERENCE_RATE, "rft": REWARD_RATE}


def resolve(
    job: Job, base: Dimensions, shape: AdapterShape | None = None, longest_answer: int = 0
) -> Settings:
    """Return a job's settings with every `auto` decided for this machine.

    Args:
        job: Whose settings they are.
        base: Its base model.
        shape: Of the adapter that the training goes on from, which stays.
        longest_answer: Of the rows, in tokens, for the room that sampled answers get.

    Raises:
        JobError: The options of this backend are not valid.
    """
    options, tuning, lora = job_options(job, "local", LocalOptions), job.tuning, job.tuning.lora
    device, batch_size = _device(options), _auto(tuning.batch_size, BATCH_SIZE)
    processes = _auto(options.processes, _gpus(device, batch_size))
    rank = shape.r if shape else _auto(lora.rank, RANK)
    rslora = shape.use_rslora if shape else lora.rslora is True
    dropout, noise = _auto(lora.dropout, 0.0), _auto(tuning.neftune_noise_alpha, None)
    rate = default_rate(base.hidden) * METHOD_RATES[job.method]
    return Settings(
        epochs=_auto(tuning.epochs, EPOCHS),
        max_steps=_auto(tuning.max_steps, None),
        batch_size=batch_size,
        learning_rate=_auto(tuning.learning_rate, rate),
        warmup=_auto(tuning.warmup, WARMUP_SHARE),
        schedule=_auto(tuning.schedule, "cosine"),
        weight_decay=_auto(tuning.weight_decay, 0.0),
        evaluate_every=_auto(tuning.evaluate_every, None),
        selection=_selection(tuning),
        rank=rank,
        alpha=shape.lora_alpha if shape else _auto(lora.alpha, _default_alpha(rank, rslora=rslora)),
        dropout=dropout,
        rslora=rslora,
        dora=shape.use_dora if shape else lora.dora is True,
        loraplus_lr_ratio=_auto(lora.loraplus_lr_ratio, None),
        init=_auto(lora.init, "kaiming"),
        neftune_noise_alpha=noise,
        targets=shape.target_modules if shape else _auto(lora.targets, "all"),
        sequence_length=_auto(tuning.sequence_length, base.context),
        seed=_auto(tuning.seed, SEED),
        preference=_preference(tuning.preference) if job.method == "dpo" else None,
        reward=_reward(tuning.reward, longest_answer) if job.method == "rft" else None,
        device=device.type,
        dtype=_dtype(options, device),
        quantization=options.quantization,
        threads=_auto(options.threads, max(1, machine.cores() // processes)),
        processes=processes,
        shard=_auto(options.shard, None if processes > 1 and not options.quantization else False),
        micro_batch_tokens=_auto(options.micro_batch_tokens, MICRO_BATCH_TOKENS[device.type]),
        # With a shared prefix, the rows of a batch would share its dropout mask and its noise.
        share_prefix=options.share_prefix and dropout == 0 and not noise,
        gradient_checkpointing=_auto(options.gradient_checkpointing, None),
        chunked_cross_entropy=_auto(options.chunked_cross_entropy, None),
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


def _default_alpha(rank: int, *, rslora: bool) -> float:
    """Return the alpha that scales by `ALPHA_PER_RANK`; by rsLoRA it does so at `RANK`."""
    return ALPHA_PER_RANK * (math.sqrt(RANK) if rslora else float(rank))


def _preference(given: Preference) -> PreferenceSettings:
    loss: Loss = "dpo" if given.loss == "auto" else given.loss
    return PreferenceSettings(
        loss=loss,
        beta=_auto(given.beta, SIMPO_BETA if loss == "simpo" else BETA),
        label_smoothing=_auto(given.label_smoothing, 0.0),
        margin=_auto(given.margin, SIMPO_MARGIN if loss == "simpo" else 0.0),
        nll_weight=_auto(given.nll_weight, 0.0),
    )


def _selection(tuning: Tuning) -> SelectionSettings:
    stopping = tuning.early_stopping
    chooses = stopping is not None or tuning.best_by != "auto"
    return SelectionSettings(
        keep=_auto(tuning.keep, "best" if chooses else "last"),
        best_by=_auto(tuning.best_by, "loss"),
        patience=_auto(stopping.patience, PATIENCE) if stopping else None,
        min_delta=_auto(stopping.min_delta, 0.0) if stopping else 0.0,
    )


def _reward(given: Reward, longest_answer: int) -> RewardSettings:
    return RewardSettings(
        group_size=_auto(given.group_size, GROUP_SIZE),
        temperature=_auto(given.temperature, 1.0),
        max_tokens=_auto(given.max_tokens, automatic_tokens(longest_answer, TRAINING_ROOM)),
        kl=_auto(given.kl, 0.0),
    )


def _auto(given: T | Literal["auto"], default: T) -> T:
    return default if given == "auto" else given


def _device(options: LocalOptions) -> torch.device:
    return machine.device() if options.device == "auto" else torch.device(options.device)


def _gpus(device: torch.device, batch_size: int) -> int:
    """Return the GPUs that have a row of each batch; 1 on another device."""
    return min(torch.cuda.device_count(), batch_size) if device.type == "cuda" else 1


def _dtype(options: LocalOptions, device: torch.device) -> Literal["float32", "bfloat16"]:
    if options.dtype != "auto":
        return options.dtype
    return "bfloat16" if machine.best_dtype(device) is torch.bfloat16 else "float32"
