"""Resolve the settings of a training, including what `auto` becomes on this machine.

Settings are resolved once, when a run is submitted, and stored with it. A resumed run keeps dtype,
threads and batches, because others would round differently and change the losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BaseModel, Field, field_validator

from unitune.backends.launched import rank_and_size
from unitune.backends.options import job_options
from unitune.backends.output_limit import TRAINING_ROOM, automatic_tokens
from unitune.documents import Closed, Frozen
from unitune.job.job import Job, Preference
from unitune.job.tuning import AUTO_GROUP_SIZE, SIMPO_MARGIN, Tuning
from unitune_local import machine
from unitune_local.options import ChatFormat, LocalOptions

Decided = TypeVar("Decided", bound=Closed)
Loss = Literal["dpo", "robust", "ipo", "simpo", "orpo", "kto"]
Quantization = Literal["4bit", "8bit"]
Overlength = Literal["refuse", "drop", "truncate"]
Schedule = Literal["cosine", "linear", "constant", "wsd"]
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "muon"]
Dtype = Literal["float32", "bfloat16", "float16"]

EPOCHS = 3
# Twice the updates of 16 for the same tokens. On 532 messages to a support desk, 3 epochs, seed 0:
# 59.0 % exact with batches of 8 at 1e-3, 28.3 % with batches of 16 at 5e-4.
BATCH_SIZE = 8
# Highest learning rate tried here (the example above, a model of width 576)
HIGHEST_RATE = 1e-3
# All linear layers at a modest rank beat attention alone at a high one (Schulman et al. 2025, "LoRA
# without regret"); rank costs next to nothing here.
RANK = 16
ALPHA_PER_RANK = 2
BETA = 0.1  # of all losses but simpo: TRL's default, and one that every vendor takes
SIMPO_BETA = 2.0  # Meng et al. 2024: 2.0 to 2.5 (section 4).
# Factors on the learning rate for answers; pairs and rewards need smaller steps
METHOD_RATES = {"sft": 1.0, "dpo": 0.1, "rft": 0.1, "cpt": 1.0}
# Factor on LoRA's learning rate; the source of `default_rate` uses its inverse
FULL_RATE = 0.1
# Default length of a raw text's pieces; longer pieces cost memory
RAW_TEXT_TOKENS = 2048
CLIP = 0.2  # TRL's default, and that of Schulman et al. 2017 (arXiv 1707.06347).
SEED = 0
WARMUP_SHARE, COOLDOWN_SHARE = 0.05, 0.1  # of all steps
# Bytes of optimiser state per weight; for muon, per weight of a matrix
STATE_BYTES = {"adamw": 8, "paged_adamw": 8, "adamw_8bit": 2, "paged_adamw_8bit": 2, "muon": 4}
PATIENCE = 3  # evaluations; a single worse one may be noise of few rows (Together waits for 2)
# A CPU is as efficient at 500 tokens as at 5,000; more would only cost memory
MICRO_BATCH_TOKENS = {"cpu": 1024, "mps": 4096, "cuda": 16384}
# Tokens. Kernels are then compiled for about twenty lengths instead of hundreds. On 2 cores this
# saved 3 to 6 % of the time and 9 % of the memory with the embedded model, and 20 % and a third
# with a model of 5 million weights.
LENGTH_MULTIPLE = 32


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Dimensions of a base model that the defaults depend on."""

    context: int
    hidden: int


class AdapterShape(Frozen):
    """Shape of an adapter, kept when a training continues from it; named as in peft's file."""

    r: int
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    target_modules: tuple[str, ...] = ()
    target_parameters: tuple[str, ...] | None = None
    """Expert weights and other parameters that are not selected by a module."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Ranks of the modules or parameters that differ from `r`."""
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    layers_to_transform: tuple[int, ...] | None = None
    modules_to_save: tuple[str, ...] | None = None
    ensure_weight_tying: bool = False

    @field_validator("target_modules", "target_parameters")
    @classmethod
    def _in_order(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names and tuple(sorted(names))

    @field_validator("modules_to_save")
    @classmethod
    def _last_parts(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return names and tuple(sorted({name.rpartition(".")[2] for name in names}))

    @property
    def target_names(self) -> tuple[str, ...]:
        """Last parts of the modules' names, in any layer."""
        return tuple(sorted({name.rpartition(".")[2] for name in self.target_modules}))

    @property
    def largest_rank(self) -> int:
        """Largest rank of its matrices."""
        return max([self.r, *self.rank_pattern.values()])


class PreferenceSettings(Closed):
    """Settings of a loss on pairs of answers; see `unitune_local.objectives.preference`."""

    loss: Loss
    beta: float
    label_smoothing: float = 0.0
    margin: float = 0.0
    nll_weight: float = 0.0

    @property
    def needs_reference(self) -> bool:
        """True if the loss compares with the base model."""
        return self.loss not in ("simpo", "orpo")


class SelectionSettings(Closed):
    """Settings for keeping a step and for ending early; see `unitune_local.training.selection`."""

    keep: Literal["best", "last"] = "last"
    best_by: Literal["loss", "score"] = "loss"
    patience: int | None = None
    """Evaluations without improvement after which the training ends; None: it does not end
    early."""
    min_delta: float = 0.0

    @property
    def needs_validation(self) -> bool:
        """True if the validation rows decide anything."""
        return self.keep == "best" or self.patience is not None


class RewardSettings(Closed):
    """Settings for sampling and rewarding answers; see `unitune_local.objectives.reward`."""

    group_size: int = AUTO_GROUP_SIZE
    temperature: float = 1.0
    max_tokens: int
    kl: float = 0.0
    loss: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
    scale: Literal["none", "group", "batch"] = "none"
    updates: int = 1
    max_turns: int | None = None
    """Largest number of answers in a dialogue with tools; None: a prompt has one answer."""
    clip: float = CLIP
    clip_high: float | None = None
    """Upper clipping bound; None: the same as `clip`."""


class Settings(Closed):
    """Settings of a training with every value decided."""

    epochs: int | float = EPOCHS
    max_steps: int | None = None
    batch_size: int = BATCH_SIZE
    learning_rate: float
    warmup: float = WARMUP_SHARE
    """Warmup steps or, below 1, their share of all steps."""
    schedule: Schedule = "cosine"
    min_lr_ratio: float = 0.0
    cooldown: float | None = None
    """Cooldown steps or, below 1, their share of all steps; None: `COOLDOWN_SHARE`."""
    optimizer: Optimizer = "adamw"
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    full: bool = False
    """True if every weight is trained instead of an adapter."""
    raw_text: bool = False
    """True if rows are texts without turns."""
    evaluate_every: float | None = None
    """Steps or, below 1, the share of an epoch between two evaluations; None: an epoch."""
    selection: SelectionSettings = SelectionSettings()
    rank: int = RANK
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    loraplus_lr_ratio: float | None = None
    init: Literal["kaiming", "gaussian"] = "kaiming"
    neftune_noise_alpha: float | None = None
    chat: Annotated[ChatFormat, Field(exclude_if=lambda form: form == ChatFormat())] = ChatFormat()
    targets: tuple[str, ...] | Literal["all"] = "all"
    target_parameters: tuple[str, ...] | None = None
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    layers: tuple[int, ...] | None = None
    """Layers that get adapters; None: all."""
    modules_to_save: tuple[str, ...] | None = None
    sequence_length: int
    overlength: Overlength = "refuse"
    seed: int = SEED
    preference: PreferenceSettings | None = None
    """Loss on pairs of answers; None: answers are learnt directly."""
    reward: RewardSettings | None = None
    """Rewards of sampled answers; None: no answers are sampled."""
    device: str
    dtype: Dtype
    quantization: Quantization | None = None
    threads: int
    """Threads of each process."""
    processes: int = 1
    shard: bool | None = False  # None: by memory
    deterministic: bool = False
    micro_batch_tokens: int
    share_prefix: bool
    gradient_checkpointing: bool | None = None  # None: by memory
    chunked_cross_entropy: bool | None = None
    checkpoint_seconds: float
    checkpoint_every_steps: int | None
    keep_checkpoints: int = 2
    """Older checkpoints are a fallback for a damaged newest one."""

    def steps(self, rows: int) -> int:
        """Return the optimiser steps of a training on so many rows, without early stopping."""
        steps = math.ceil(round(self.epoch_steps(rows) * self.epochs, 6))
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch_steps(self, rows: int) -> int:
        """Return the optimiser steps of one pass over so many rows."""
        return math.ceil(rows / self.batch_size)

    def evaluation_steps(self, rows: int) -> int:
        """Return the number of steps between two evaluations."""
        every, epoch = self.evaluate_every, self.epoch_steps(rows)
        if every is None:
            return epoch
        return round(every) if every >= 1 else max(1, round(every * epoch))

    def forwards(self, epochs: float) -> float:
        """Return the forward-only passes over the rows in a training of some epochs.

        The base model makes one for a preference loss. kto and a divergence take one per epoch.
        """
        if self.reward is not None:
            return epochs if self.reward.kl else 0
        if self.preference is None or not self.preference.needs_reference:
            return 0
        return 1 + (epochs if self.preference.loss == "kto" else 0)

    @property
    def processes_per_device(self) -> int:
        """Number of processes that share a device's memory; each GPU has its own process."""
        return 1 if self.device == "cuda" else self.processes

    @property
    def torch_dtype(self) -> torch.dtype:
        """Dtype that the model is loaded in; weights that are trained are float32."""
        return torch.float32 if self.full else getattr(torch, self.dtype)

    @property
    def autocast(self) -> torch.dtype | None:
        """Dtype that float32 weights are computed in; None: float32."""
        mixed = self.dtype != "float32" and (self.full or self.modules_to_save)
        return getattr(torch, self.dtype) if mixed else None

    @property
    def makes_kernels(self) -> bool:
        """True if kernels are compiled for each length: on a CPU in bfloat16."""
        return self.device == "cpu" and self.dtype == "bfloat16"

    @property
    def length_multiple(self) -> int:
        """Number of tokens that lengths of micro-batches are multiples of."""
        # On a GPU, fewer sizes fragment its memory less.
        return LENGTH_MULTIPLE if self.makes_kernels or self.device == "cuda" else 1


def resolve(
    job: Job, base: Dimensions, shape: AdapterShape | None = None, longest_answer: int = 0
) -> Settings:
    """Return a job's settings with every `auto` decided for this machine.

    The shape of an adapter to continue from is kept. Sampled answers get room for the longest
    answer of the rows, in tokens.

    Raises:
        JobError: The options of this backend are not valid.
    """
    options, tuning = job_options(job, "local", LocalOptions), job.tuning
    explicit = _explicit(tuning) | _explicit(tuning.lora) | _explicit(options)
    device = machine.chosen_device(options.device)
    batch_size: int = explicit.get("batch_size", BATCH_SIZE)  # each GPU has a row of each batch
    gpus = min(torch.cuda.device_count(), batch_size) if device.type == "cuda" else 1
    launched = rank_and_size()  # each of these processes has cores of its own
    processes: int = explicit.get("processes", launched[1] if launched else gpus)
    # rsLoRA scales by ALPHA_PER_RANK only at the default rank.
    scaled_by = math.sqrt(RANK) if explicit.get("rslora") else explicit.get("rank", RANK)
    values: dict[str, Any] = {
        "learning_rate": default_rate(base.hidden)
        * METHOD_RATES[job.method]
        * (FULL_RATE if tuning.full else 1),
        "alpha": ALPHA_PER_RANK * scaled_by,
        "sequence_length": min(base.context, RAW_TEXT_TOKENS)
        if job.method == "cpt"
        else base.context,
        "threads": max(1, machine.cores() // (1 if launched else processes)),
        "shard": None if processes > 1 and not options.quantization else False,
        "micro_batch_tokens": MICRO_BATCH_TOKENS[device.type],
        **explicit,
        "selection": _selection(tuning),
        "preference": _preference(tuning.preference) if job.method == "dpo" else None,
        "reward": _reward(job, longest_answer) if job.method == "rft" else None,
        "chat": ChatFormat.of(job),
        "raw_text": job.method == "cpt",
        "device": device.type,
        "processes": processes,
    }
    if explicit.get("targets") == "all-linear":
        values["targets"] = "all"
    if explicit.get("dropout") or explicit.get("neftune_noise_alpha"):
        values["share_prefix"] = False  # its rows would share dropout mask and noise
    if options.dtype == "auto":
        values["dtype"] = str(machine.best_dtype(device)).removeprefix("torch.")
    if shape:
        values |= {"rank": shape.r, "alpha": shape.lora_alpha, "targets": shape.target_modules}
        values |= {"rslora": shape.use_rslora, "dora": shape.use_dora}
        values |= {"layers": shape.layers_to_transform}
        values |= {"modules_to_save": shape.modules_to_save}
        values |= {"target_parameters": shape.target_parameters}
        values |= {"rank_pattern": shape.rank_pattern, "alpha_pattern": shape.alpha_pattern}
    return _decided(Settings, values)


def _explicit(part: BaseModel) -> dict[str, Any]:
    return {name: value for name, value in part if value != "auto"}


def _decided(kind: type[Decided], values: Mapping[str, Any]) -> Decided:
    return kind.model_validate({name: values[name] for name in kind.model_fields if name in values})


def default_rate(hidden: int) -> float:
    """Return the peak learning rate for LoRA on a model of this width, at most `HIGHEST_RATE`.

    Source:
        tinker-cookbook, hyperparam_utils.py, for Llama models: ten times the rate of full tuning,
        5e-5 · 10 · (2000 / hidden)^0.781. Schulman et al. 2025, "LoRA without regret".
    """
    return min(HIGHEST_RATE, 5e-4 * (2000 / hidden) ** 0.781)


def _preference(given: Preference) -> PreferenceSettings:
    values: dict[str, Any] = {"loss": "dpo", "beta": BETA}
    if given.loss == "simpo":
        values |= {"beta": SIMPO_BETA, "margin": SIMPO_MARGIN}
    return _decided(PreferenceSettings, values | _explicit(given))


def _selection(tuning: Tuning) -> SelectionSettings:
    stopping = tuning.early_stopping
    chooses = stopping is not None or tuning.best_by != "auto"
    values: dict[str, Any] = {"keep": "best" if chooses else "last", **_explicit(tuning)}
    if stopping is not None:
        values |= {"patience": PATIENCE, **_explicit(stopping)}
    return _decided(SelectionSettings, values)


def _reward(job: Job, longest_answer: int) -> RewardSettings:
    given = {"max_tokens": automatic_tokens(longest_answer, TRAINING_ROOM)}
    values = {**given, **_explicit(job.tuning.reward)}
    if job.evaluate.dialogue is not None:
        values["max_turns"] = job.evaluate.dialogue.max_turns
    return _decided(RewardSettings, values)
