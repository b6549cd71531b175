"""Define job options at Together, build the body of a create call, and import settings.

Unset values are left out of the request, so that Together's defaults apply. Settings beyond the
published limits of a base model are refused before anything is sent. Settings that need a second
secret (Weights & Biases, uploads to the Hugging Face Hub) are not supported.

Source: together 3.1.1, ``fine_tuning.create``, ``endpoints.deployments.create`` and
``types/finetune_model_limits.py``; togethercomputer/openapi, 2026-04-28.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from unitune.backends.kit.hosted import explicit, without_none
from unitune.backends.protocol import Launch
from unitune.documents import Spec
from unitune.errors import JobError
from unitune.job.job import Job, Lora
from unitune.job.tuning import SIMPO_MARGIN, Tuning
from unitune.security.json_fields import Fields

Body = dict[str, JsonValue]
# A setting, its lowest and its highest value; None for no limit or an unpublished one
Bound = tuple[float | str | None, float | None, float | None]

ALPHA_OVER_RANK = 2  # Together's default: alpha is twice the rank
PATIENCE = 2  # Together's default, in evaluations
TUNING = {  # Together's names by ours
    "epochs": "n_epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "warmup": "warmup_ratio",
    "weight_decay": "weight_decay",
    "sequence_length": "max_seq_length",
    "seed": "random_seed",
}
LORA = {"rank": "lora_r", "alpha": "lora_alpha", "dropout": "lora_dropout"}
EARLY_STOPPING = {
    "patience": "early_stopping_patience",
    "min_delta": "early_stopping_min_delta",
}
SAME_NAME = (  # options with the same name there
    "packing",
    "gradient_accumulation_steps",
    "n_evals",
    "n_checkpoints",
    "max_grad_norm",
    "early_stopping_warmup_evals",
)
PRICED = (  # fields of the body that determine the price of a training
    "model",
    "from_checkpoint",
    "training_file",
    "validation_file",
    "n_epochs",
    "n_evals",
    "training_method",
    "training_type",
)
NOT_IMPORTED = {  # fields of a training that a job cannot represent, with a note
    "from_hf_model": "it began from the Hugging Face model",
    "wandb_project_name": "it reported to the Weights & Biases project",
}
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class TogetherOptions(Spec):
    """Job options under ``options: {together: …}``."""

    training: Literal["lora", "full"] | None = None
    """Trained weights; default a LoRA adapter."""
    packing: bool | None = None
    """Pack rows into sequences, which `tuning.batch_size` then counts; default true."""
    gradient_accumulation_steps: Count | None = None
    """Batches per optimiser step."""
    n_evals: Annotated[int, Field(ge=0)] | None = None
    """Number of evaluations on validation rows, charged by tokens; default 0."""
    n_checkpoints: Count | None = None
    """Number of models kept from the training; default 1."""
    min_lr_ratio: Share | None = None
    """Final learning rate as a share of the peak; needs `tuning.schedule`."""
    num_cycles: Annotated[float, Field(gt=0)] | None = None
    """Cycles of the cosine, default 0.5; needs ``tuning.schedule: cosine``."""
    max_grad_norm: NotNegative | None = None
    """Norm to which gradients are clipped, default 1; 0 disables it."""
    train_on_inputs: bool | Literal["auto"] | None = None
    """sft: whether user turns are trained on; default only answers."""
    early_stopping_warmup_evals: Annotated[int, Field(ge=0)] | None = None
    """With `tuning.early_stopping`: number of first evaluations that do not count; default 1."""
    dpo_normalize_logratios_by_length: bool | None = None
    """dpo: use log-ratios per token."""


class DeployOptions(Spec):
    """Settings of a dedicated endpoint."""

    config: str | None = None
    """Configuration that serves the model (``cr_…``), if it has several."""
    hardware: str | None = None
    """Hardware by which to choose the configuration, such as ``1xnvidia-h100-80gb``."""
    min_replicas: Count = 1
    """Number of copies that always run and are charged."""
    max_replicas: Count | None = None
    """Maximum number of copies under load; default `min_replicas`."""
    inactive_timeout: Annotated[int, Field(ge=30, le=1440)] | None = None
    """Minutes without a request after which it stops; default never."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self


def check_job(options: TogetherOptions, job: Job) -> None:
    """Refuse options that the job's method does not use, or that need a missing setting."""
    others = {"sft": ("dpo_",), "dpo": ("train_on_inputs",)}.get(job.method, ())
    for name in sorted(options.model_fields_set):
        if others and name.startswith(others):
            raise JobError(
                f"options.together.{name} does not apply to method {job.method}. Remove it or "
                "change the job's method."
            )
    schedule = job.tuning.schedule
    if schedule not in ("linear", "cosine") and options.min_lr_ratio is not None:
        raise JobError("options.together.min_lr_ratio needs tuning.schedule: linear or cosine.")
    if schedule != "cosine" and options.num_cycles is not None:
        raise JobError("options.together.num_cycles needs tuning.schedule: cosine.")
    stopping, warmup = job.tuning.early_stopping, options.early_stopping_warmup_evals
    if stopping is None:
        return
    # The first evaluation, those that do not count, and `patience` without improvement.
    patience = PATIENCE if stopping.patience == "auto" else stopping.patience
    least = patience + (1 if warmup is None else warmup) + 1
    if (options.n_evals or 0) < least:
        raise JobError(
            f"tuning.early_stopping needs options.together.n_evals of at least {least} here: the "
            "number of evaluations in the whole training, each charged."
        )


def create_body(launch: Launch, options: TogetherOptions, limits: Fields) -> Body:
    """Return the body of a create call; raise `JobError` for settings beyond the model's limits."""
    job = launch.job
    bounds = _bounds(job, options, limits).items()
    broken = [problem for setting, bound in bounds if (problem := _problem(setting, *bound))]
    broken += _unknown_targets(job.tuning.lora, limits)
    if broken:
        raise JobError("\n".join((*broken, "Nothing was sent. Change the job, or use auto.")))
    # Together accepts a base model or a checkpoint as start, not both.
    start = launch.start and launch.start.model.name
    return without_none(
        {
            "model": None if start else job.base_model,
            "from_checkpoint": start,
            "training_file": launch.training.ref,
            "validation_file": launch.validation and launch.validation.ref,
            "suffix": launch.key,
            **{there: explicit(getattr(job.tuning, ours)) for ours, there in TUNING.items()},
            "training_type": _training_type(job.tuning.lora, options, limits),
            "training_method": _training_method(job, options),
            "lr_scheduler": _scheduler(job.tuning.schedule, options),
            **_early_stopping(job.tuning),
            **{name: getattr(options, name) for name in SAME_NAME},
        }
    )


def _training_type(lora: Lora, options: TogetherOptions, limits: Fields) -> JsonValue:
    """Return LoRA or full; None for Together's default, LoRA."""
    is_set = any(value != "auto" for _, value in lora)
    if options.training == "full":
        if is_set:
            raise JobError(
                "options.together.training is 'full', but tuning.lora has settings. Remove one of "
                "them."
            )
        if limits.all.get("supports_full_training") is False:
            raise JobError(
                "options.together.training is 'full', which together does not offer for this base "
                "model. Remove it to train a LoRA adapter."
            )
        return {"type": "Full"}
    if not is_set and options.training is None:
        return None
    rank = _default_rank(limits) if lora.rank == "auto" else lora.rank
    alpha = rank * ALPHA_OVER_RANK if lora.alpha == "auto" else lora.alpha
    if alpha != int(alpha):
        raise JobError(f"tuning.lora.alpha is {alpha}; together accepts only whole numbers.")
    modules = None if lora.targets == "auto" else ",".join(lora.targets)
    adapter: Body = {
        "type": "Lora",
        "lora_r": rank,
        "lora_alpha": int(alpha),
        "lora_dropout": explicit(lora.dropout),
        "lora_trainable_modules": modules,
    }
    return without_none(adapter)


def _default_rank(limits: Fields) -> int:
    """Return Together's default rank, as it requires both rank and alpha or neither."""
    if (rank := limits.fields("lora_training").whole("default_rank")) is None:
        raise JobError(
            "together does not publish its default LoRA rank for this base model. Set "
            "tuning.lora.rank in addition to the other settings of tuning.lora."
        )
    return rank


def _training_method(job: Job, options: TogetherOptions) -> JsonValue:
    if job.method == "sft":
        inputs = "auto" if options.train_on_inputs is None else options.train_on_inputs
        return {"method": "sft", "train_on_inputs": inputs}
    preference = job.tuning.preference
    # At Together, a margin above 0 makes it SimPO, whose log-ratios are per token.
    simpo = preference.loss == "simpo"
    if preference.margin == 0:
        raise JobError("tuning.preference.margin is 0; for simpo, together needs a margin above 0.")
    # Without one, Together treats simpo as dpo.
    margin = SIMPO_MARGIN if preference.margin == "auto" else preference.margin
    return without_none(
        {
            "method": "dpo",
            "dpo_beta": explicit(preference.beta),
            "dpo_normalize_logratios_by_length": simpo or options.dpo_normalize_logratios_by_length,
            "dpo_reference_free": simpo or None,
            "rpo_alpha": explicit(preference.nll_weight),
            "simpo_gamma": margin if simpo else None,
        }
    )


def _scheduler(schedule: str, options: TogetherOptions) -> JsonValue:
    if schedule == "auto":
        return None
    if schedule == "constant":  # a linear decay to the same value
        return {"lr_scheduler_type": "linear", "lr_scheduler_args": {"min_lr_ratio": 1.0}}
    arguments: Body = {"min_lr_ratio": options.min_lr_ratio or 0.0}
    if schedule == "cosine":
        arguments["num_cycles"] = options.num_cycles or 0.5
    return {"lr_scheduler_type": schedule, "lr_scheduler_args": arguments}


def _early_stopping(tuning: Tuning) -> Body:
    if (given := tuning.early_stopping) is None:
        return {}
    own: Body = {theirs: explicit(getattr(given, ours)) for ours, theirs in EARLY_STOPPING.items()}
    return {"early_stopping_enabled": True, **own}


def _bounds(job: Job, options: TogetherOptions, limits: Fields) -> dict[str, Bound]:
    tuning, number, adapter = job.tuning, limits.number, limits.fields("lora_training")
    sizes = limits.fields("full_training") if options.training == "full" else adapter
    dpo = job.method == "dpo"
    longest = number("max_seq_length_dpo" if dpo else "max_seq_length_sft")
    largest = sizes.number("max_batch_size_dpo" if dpo else "max_batch_size")
    slowest, fastest = number("min_learning_rate"), number("max_learning_rate")
    checkpoints = number("max_num_checkpoints")
    return {
        "tuning.epochs": (tuning.epochs, None, number("max_num_epochs")),
        "tuning.learning_rate": (tuning.learning_rate, slowest, fastest),
        "tuning.sequence_length": (tuning.sequence_length, number("min_max_seq_length"), longest),
        "tuning.batch_size": (tuning.batch_size, sizes.number("min_batch_size"), largest),
        "tuning.lora.rank": (tuning.lora.rank, None, adapter.number("max_rank")),
        "options.together.n_evals": (options.n_evals, None, number("max_num_evals")),
        "options.together.n_checkpoints": (options.n_checkpoints, None, checkpoints),
    }


def _problem(
    setting: str, value: float | str | None, lowest: float | None, highest: float | None
) -> str | None:
    if not isinstance(value, int | float):
        return None
    if (lowest is None or value >= lowest) and (highest is None or value <= highest):
        return None
    ends = {"at least": lowest, "at most": highest}
    allowed = " and ".join(f"{end} {limit:g}" for end, limit in ends.items() if limit is not None)
    return f"{setting} is {value}; for this base model, together accepts {allowed}."


def _unknown_targets(lora: Lora, limits: Fields) -> list[str]:
    known = limits.fields("lora_training").values("target_modules")
    if lora.targets in ("auto", ("all-linear",)) or not known:
        return []
    return [
        f"tuning.lora.targets has {name!r}; for this base model, together supports all-linear, "
        f"{', '.join(map(str, known))}."
        for name in lora.targets
        if name not in known
    ]


def imported_tuning(training: Fields) -> Body:
    """Return the settings of a training in the form of `unitune.job.job.Tuning`."""
    tuning: Body = {
        ours: value
        for ours, there in TUNING.items()
        if (value := training.number(there)) is not None and (value or ours == "seed")
    }
    nested: Body = {
        "schedule": _imported_schedule(training.fields("lr_scheduler")),
        "early_stopping": _imported_early_stopping(training),
        "preference": _imported_preference(training.fields("training_method")),
        "lora": _imported_adapter(training.fields("training_type")),
    }
    return {**tuning, **{name: value for name, value in nested.items() if value}}


def _imported_schedule(scheduler: Fields) -> JsonValue:
    if scheduler.fields("lr_scheduler_args").number("min_lr_ratio") == 1:
        return "constant"
    return scheduler.text("lr_scheduler_type")


def _imported_early_stopping(training: Fields) -> JsonValue:
    if training.all.get("early_stopping_enabled") is not True:
        return None
    own: Body = {ours: training.number(theirs) for ours, theirs in EARLY_STOPPING.items()}
    return without_none(own) or True


def _imported_preference(method: Fields) -> Body:
    if method.text("method") != "dpo":
        return {}
    margin = method.number("simpo_gamma") or None  # 0 means unset
    return without_none(
        {
            "loss": "simpo" if margin else None,
            "margin": margin,
            "beta": method.number("dpo_beta") or None,
            "nll_weight": method.number("rpo_alpha") or None,
        }
    )


def _imported_adapter(kind: Fields) -> Body:
    if kind.text("type") != "Lora":
        return {}
    modules = kind.text("lora_trainable_modules")
    targets: JsonValue = [name.strip() for name in modules.split(",")] if modules else None
    adapter: Body = {ours: kind.number(there) for ours, there in LORA.items()}
    return without_none({**adapter, "targets": targets})


def imported_options(training: Fields) -> Body:
    """Return the settings of a training that are options; zeros mean unset."""
    method, scheduler = training.fields("training_method"), training.fields("lr_scheduler")
    schedule = scheduler.text("lr_scheduler_type")
    is_full = training.fields("training_type").text("type") == "Full"
    settings: Body = {
        **training.all,
        **method.all,
        **scheduler.fields("lr_scheduler_args").all,
        "training": "full" if is_full else None,
    }
    unused = {
        "train_on_inputs": method.text("method") == "dpo",
        "min_lr_ratio": not schedule or _imported_schedule(scheduler) == "constant",
        "early_stopping_warmup_evals": training.all.get("early_stopping_enabled") is not True,
        "num_cycles": schedule != "cosine",
    }
    names = [name for name in TogetherOptions.model_fields if not unused.get(name)]
    return {name: settings[name] for name in names if settings.get(name)}


def imported_notes(training: Fields) -> tuple[str, ...]:
    """Return notes on settings of a training that a job cannot represent."""
    notes = [
        f"{what} {text}" for name, what in NOT_IMPORTED.items() if (text := training.text(name))
    ]
    if training.fields("multimodal_params").all.get("train_vision"):
        notes.append("it trained the vision encoder too")
    return tuple(notes)
