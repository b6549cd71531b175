"""The body of a create call, made of a launch: only what was set, and nothing beyond the limits.

The SDK's own `create` puts figures where nothing was said, drops a LoRA rank unless it is told
``lora=True``, and turns a missing learning rate into 1e-5. So the body is made here, and sent as it
is: `auto` is left out, and Together's default holds. What Together takes at most for the base model
it says itself (`ModelLimits`); an explicit setting beyond it is refused before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue
from together.types import FinetuneModelLimits
from together.types.finetune_model_limits import LoraTraining

from unitune.backends.protocol import Launch
from unitune.errors import JobError
from unitune.job.job import Job, Lora
from unitune_providers.together.options import TogetherOptions

Body = dict[str, JsonValue]

MOST_SUFFIX = 40
"""Longest suffix of a model's name, in characters (together 3.1.1)."""
ALPHA_OVER_RANK = 2
"""Together's default: alpha is twice the rank (together 3.1.1)."""
PLAIN = (
    "packing",
    "gradient_accumulation_steps",
    "n_evals",
    "n_checkpoints",
    "warmup_ratio",
    "max_grad_norm",
    "weight_decay",
    "early_stopping_enabled",
    "early_stopping_patience",
    "early_stopping_min_delta",
    "early_stopping_warmup_evals",
)
"""Options that have the same name on the wire."""


def create_body(launch: Launch, options: TogetherOptions, limits: FinetuneModelLimits) -> Body:
    """Return the body that creates a training.

    Args:
        launch: What to train; its key becomes the suffix of the model's name.
        options: Of the launch's job.
        limits: Of its base model.

    Raises:
        JobError: A setting is beyond the limits.
    """
    job = launch.job
    _within_limits(job, options, limits)
    tuning = job.tuning
    body: Body = {
        "model": job.base_model,
        "training_file": launch.training.ref,
        "validation_file": launch.validation.ref if launch.validation else None,
        "suffix": launch.key,
        "n_epochs": _set(tuning.epochs),
        "batch_size": _set(tuning.batch_size),
        "learning_rate": _set(tuning.learning_rate),
        "max_seq_length": _set(tuning.sequence_length),
        "random_seed": _set(tuning.seed),
        "training_type": _training_type(tuning.lora, options, limits),
        "training_method": _method(str(job.method), options),
        "lr_scheduler": _scheduler(options),
        **{name: getattr(options, name) for name in PLAIN},
    }
    return {name: value for name, value in body.items() if value is not None}


def price_body(body: Body) -> Body:
    """Return the body that asks what a training would cost, from the one that creates it."""
    names = (
        "model",
        "training_file",
        "validation_file",
        "n_epochs",
        "n_evals",
        "training_method",
        "training_type",
    )
    return {name: body[name] for name in names if name in body}


def _set(value: float | str) -> JsonValue:
    return None if value == "auto" else value


def _training_type(lora: Lora, options: TogetherOptions, limits: FinetuneModelLimits) -> JsonValue:
    """Return LoRA or full; None leaves it to Together, whose default is LoRA."""
    explicit = any(value != "auto" for _, value in lora)
    if options.training == "full":
        _no_adapter(limits, explicit=explicit)
        return {"type": "Full"}
    if not explicit and options.training is None:
        return None
    rank = _default_rank(limits) if lora.rank == "auto" else lora.rank
    alpha = rank * ALPHA_OVER_RANK if lora.alpha == "auto" else lora.alpha
    if alpha != int(alpha):
        raise JobError(f"tuning.lora.alpha is {alpha}; together takes whole numbers only.")
    chosen: Body = {"type": "Lora", "lora_r": rank, "lora_alpha": int(alpha)}
    if lora.dropout != "auto":
        chosen["lora_dropout"] = lora.dropout
    if lora.targets != "auto":
        chosen["lora_trainable_modules"] = ",".join(lora.targets)
    return chosen


def _default_rank(limits: FinetuneModelLimits) -> int:
    """Return Together's own rank: it takes rank and alpha together, or neither."""
    adapters = _adapters(limits)
    rank = cast("int | None", adapters.default_rank) if adapters else None
    if rank is None:
        raise JobError(
            "together does not say which LoRA rank it would take for this base model. Set "
            "tuning.lora.rank beside the other settings of tuning.lora."
        )
    return rank


def _adapters(limits: FinetuneModelLimits) -> LoraTraining | None:
    """Return the limits of LoRA, which the published description does not require."""
    return cast("LoraTraining | None", limits.lora_training)


def _no_adapter(limits: FinetuneModelLimits, *, explicit: bool) -> None:
    if explicit:
        raise JobError(
            "options.together.training is 'full', and tuning.lora has settings. Take one of them "
            "out."
        )
    if not limits.supports_full_training:
        raise JobError(
            "options.together.training is 'full', which together does not offer for this base "
            "model. Take it out to train a LoRA adapter."
        )


def _method(method: str, options: TogetherOptions) -> JsonValue:
    if method == "sft":
        inputs = "auto" if options.train_on_inputs is None else options.train_on_inputs
        return {"method": "sft", "train_on_inputs": inputs}
    simpo = bool(options.simpo_gamma)
    chosen: Body = {
        "method": "dpo",
        "dpo_beta": options.dpo_beta,
        "dpo_normalize_logratios_by_length": simpo or options.dpo_normalize_logratios_by_length,
        "dpo_reference_free": simpo or None,
        "rpo_alpha": options.rpo_alpha,
        "simpo_gamma": options.simpo_gamma,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _scheduler(options: TogetherOptions) -> JsonValue:
    if options.lr_scheduler is None:
        return None
    arguments: Body = {"min_lr_ratio": options.min_lr_ratio or 0.0}
    if options.lr_scheduler == "cosine":
        arguments["num_cycles"] = options.num_cycles or 0.5
    return {"lr_scheduler_type": options.lr_scheduler, "lr_scheduler_args": arguments}


@dataclass(frozen=True, slots=True)
class _Bound:
    """What a setting may be; None is no limit, or one that Together did not say."""

    setting: str
    value: float | str | None
    least: float | None = None
    most: float | None = None

    @property
    def broken(self) -> bool:
        if self.value is None or isinstance(self.value, str):
            return False
        low = self.least is not None and self.value < self.least
        return low or (self.most is not None and self.value > self.most)

    def __str__(self) -> str:
        least = None if self.least is None else f"at least {self.least:g}"
        most = None if self.most is None else f"at most {self.most:g}"
        allowed = " and ".join(part for part in (least, most) if part)
        return f"{self.setting} is {self.value}; together takes {allowed} for this base model."


def _within_limits(job: Job, options: TogetherOptions, limits: FinetuneModelLimits) -> None:
    broken = [str(bound) for bound in _bounds(job, options, limits) if bound.broken]
    broken += _unknown_targets(job.tuning.lora, limits)
    if broken:
        raise JobError("\n".join((*broken, "Nothing was sent. Change the job, or use auto.")))


def _bounds(job: Job, options: TogetherOptions, limits: FinetuneModelLimits) -> Iterator[_Bound]:
    tuning, dpo = job.tuning, str(job.method) == "dpo"
    length_most = limits.max_seq_length_dpo if dpo else limits.max_seq_length_sft
    rate_least, rate_most = limits.min_learning_rate, limits.max_learning_rate
    yield _Bound("tuning.epochs", tuning.epochs, most=limits.max_num_epochs)
    yield _Bound("tuning.learning_rate", tuning.learning_rate, rate_least, rate_most)
    yield _Bound(
        "tuning.sequence_length", tuning.sequence_length, limits.min_max_seq_length, length_most
    )
    adapters = _adapters(limits)
    kind = limits.full_training if options.training == "full" else adapters
    if kind:
        batch_most = kind.max_batch_size_dpo if dpo else kind.max_batch_size
        yield _Bound("tuning.batch_size", tuning.batch_size, kind.min_batch_size, batch_most)
    if adapters:
        yield _Bound("tuning.lora.rank", tuning.lora.rank, most=adapters.max_rank)
    yield _Bound("options.together.n_evals", options.n_evals, most=limits.max_num_evals)
    yield _Bound(
        "options.together.n_checkpoints", options.n_checkpoints, most=limits.max_num_checkpoints
    )


def _unknown_targets(lora: Lora, limits: FinetuneModelLimits) -> list[str]:
    adapters = _adapters(limits)
    known = adapters.target_modules if adapters else []
    if lora.targets in ("auto", ("all-linear",)) or not known:
        return []
    return [
        f"tuning.lora.targets has {name!r}; for this base model together knows all-linear, "
        f"{', '.join(known)}."
        for name in lora.targets
        if name not in known
    ]
