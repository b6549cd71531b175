"""What the Together on loopback refuses of a create call: kinds, ranges, and rows of the method.

Ranges are those that Together's SDK holds a request against before it sends it, with the limits
that the vendor itself tells of a base model; the names that it takes are those of its description
and of its SDK.

Sources: togethercomputer/openapi of 2026-04-28, POST /fine-tunes; together 3.1.1,
lib/resources/fine_tuning.py (ranges), lib/types/fine_tuning.py (`FinetuneRequest`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from unitune.testing.vendor_setup import Refused
from vendors.together.parts import Fields, field, needed

LIMITS: Fields = {
    "max_num_epochs": 20,
    "max_num_evals": 100,
    "max_num_checkpoints": 10,
    "max_learning_rate": 0.01,
    "min_learning_rate": 1e-8,
    "min_max_seq_length": 512,
    "max_seq_length_sft": 32768,
    "max_seq_length_dpo": 16384,
    "default_gradient_accumulation_steps": 1,
    "supports_full_training": True,
    "supports_vision": False,
    "supports_tools": True,
    "supports_reasoning": True,
    "merge_output_lora": True,
    "full_training": {"max_batch_size": 32, "max_batch_size_dpo": 16, "min_batch_size": 8},
    "lora_training": {
        "default_rank": 8,
        "max_rank": 64,
        "max_batch_size": 96,
        "max_batch_size_dpo": 48,
        "min_batch_size": 8,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    },
}
"""Of every base model here; figures of the size that the real ones have."""
MOST_SUFFIX = 40
TRAININGS = {"Lora": "lora_training", "Full": "full_training"}
"""By the word of ``training_type``: what LIMITS calls it."""
TAKEN = {
    "training_file",
    "validation_file",
    "packing",
    "model",
    "n_epochs",
    "learning_rate",
    "lr_scheduler",
    "warmup_ratio",
    "max_grad_norm",
    "weight_decay",
    "n_checkpoints",
    "n_evals",
    "max_seq_length",
    "batch_size",
    "gradient_accumulation_steps",
    "suffix",
    "wandb_api_key",
    "wandb_key",
    "wandb_base_url",
    "wandb_project_name",
    "wandb_name",
    "wandb_entity",
    "random_seed",
    "early_stopping_enabled",
    "early_stopping_patience",
    "early_stopping_min_delta",
    "early_stopping_warmup_evals",
    "train_on_inputs",
    "training_type",
    "training_method",
    "from_checkpoint",
    "multimodal_params",
    "from_hf_model",
    "hf_model_revision",
    "hf_api_token",
    "hf_output_repo_name",
}
SFT_ONLY = {"train_on_inputs"}
DPO_ONLY = {
    "dpo_beta",
    "dpo_normalize_logratios_by_length",
    "dpo_reference_free",
    "rpo_alpha",
    "simpo_gamma",
}
PAIRS = "preferred_output"
"""Key of the rows of preference training, and of no others."""


@dataclass(frozen=True, slots=True)
class _Range:
    """What a number may be; None: no end."""

    name: str
    kinds: tuple[type, ...]
    least: float | None = None
    most: float | None = None

    def check(self, fields: Fields) -> None:
        value = field(fields, self.name, *self.kinds)
        if value is None or isinstance(value, str):
            return
        if self.least is not None and value < self.least:
            raise Refused(400, f"{self.name} must be at least {self.least} (got {value})")
        if self.most is not None and value > self.most:
            raise Refused(400, f"{self.name} must be at most {self.most} (got {value})")


WHOLE, REAL = (int,), (int, float)


def check_create(body: Fields) -> None:
    """Refuse what the real one refuses of a body, its files aside."""
    if unknown := body.keys() - TAKEN:
        raise Refused(400, f"unknown field {min(unknown)}")
    if len(field(body, "suffix", str) or "") > MOST_SUFFIX:
        raise Refused(400, f"suffix must be at most {MOST_SUFFIX} characters")
    method = method_of(body)
    kind: Fields = field(body, "training_type", dict) or {"type": "Lora"}
    if kind.get("type") not in TRAININGS:
        raise Refused(400, f"training type {kind.get('type')} is not known")
    if kind["type"] == "Lora" and body.get("training_type") is not None:
        _check_adapter(kind)
    batch = field(body, "batch_size", int, str)
    if isinstance(batch, str) and batch != "max":
        raise Refused(422, "batch_size must be an integer or max")
    for part in _ranges(method, LIMITS[TRAININGS[kind["type"]]]):
        part.check(body)
    _check_scheduler(field(body, "lr_scheduler", dict))
    _check_stopping(body)


def method_of(body: Fields) -> str:
    """Return the method that a body asks for."""
    given: Fields = field(body, "training_method", dict) or {}
    method = given.get("method", "sft")
    if method not in ("sft", "dpo"):
        raise Refused(400, f"training method {method} is not known")
    if wrong := given.keys() & (SFT_ONLY if method == "dpo" else DPO_ONLY):
        raise Refused(400, f"{min(wrong)} is not supported for {method} training")
    for name in ("rpo_alpha", "simpo_gamma"):
        _Range(name, REAL, 0).check(given)
    return method


def check_rows(content: bytes, body: Fields, name: str) -> None:
    """Refuse a file whose rows are of another method."""
    method = method_of(body)
    row: object = json.loads(content.partition(b"\n")[0])
    if (PAIRS in cast("Mapping[str, Any]", row)) != (method == "dpo"):
        raise Refused(400, f"the format of {name} {body[name]} does not fit {method} training")


def _ranges(method: str, sizes: Mapping[str, int]) -> Iterator[_Range]:
    dpo = "_dpo" if method == "dpo" else ""
    yield _Range("n_epochs", WHOLE, 1, LIMITS["max_num_epochs"])
    yield _Range("n_evals", WHOLE, 0, LIMITS["max_num_evals"])
    yield _Range("n_checkpoints", WHOLE, 0, LIMITS["max_num_checkpoints"])
    yield _Range(
        "max_seq_length", WHOLE, LIMITS["min_max_seq_length"], LIMITS[f"max_seq_length_{method}"]
    )
    yield _Range("batch_size", (int, str), sizes["min_batch_size"], sizes[f"max_batch_size{dpo}"])
    yield _Range("gradient_accumulation_steps", WHOLE, 1)
    yield _Range("learning_rate", REAL, LIMITS["min_learning_rate"], LIMITS["max_learning_rate"])
    yield _Range("warmup_ratio", REAL, 0, 1)
    yield _Range("max_grad_norm", REAL, 0)
    yield _Range("weight_decay", REAL, 0)
    yield _Range("random_seed", WHOLE)


def _check_adapter(kind: Fields) -> None:
    limits = LIMITS["lora_training"]
    for name in ("lora_r", "lora_alpha"):
        needed(kind, name, int)
    _Range("lora_r", WHOLE, 1, limits["max_rank"]).check(kind)
    _Range("lora_alpha", WHOLE, 1).check(kind)
    _Range("lora_dropout", REAL, 0).check(kind)
    if kind.get("lora_dropout", 0) >= 1:
        raise Refused(400, "lora_dropout must be below 1")
    named = field(kind, "lora_trainable_modules", str) or "all-linear"
    for module in () if named == "all-linear" else named.split(","):
        if module not in limits["target_modules"]:
            raise Refused(400, f"lora_trainable_modules: {module} is not available")


def _check_scheduler(scheduler: Fields | None) -> None:
    if scheduler is None:
        return
    kind = scheduler.get("lr_scheduler_type")
    if kind not in ("linear", "cosine"):
        raise Refused(400, f"lr_scheduler_type {kind} is not known")
    given: Fields = field(scheduler, "lr_scheduler_args", dict) or {}
    _Range("min_lr_ratio", REAL, 0, 1).check(given)
    cycles = field(given, "num_cycles", int, float)
    if cycles is not None and cycles <= 0:
        raise Refused(400, f"num_cycles must be greater than 0 (got {cycles})")


def _check_stopping(body: Fields) -> None:
    if not field(body, "early_stopping_enabled", bool):
        return
    if not body.get("validation_file"):
        raise Refused(400, "early stopping requires a validation file")
    patience, warmup = body.get("early_stopping_patience"), body.get("early_stopping_warmup_evals")
    least = (2 if patience is None else patience) + (1 if warmup is None else warmup) + 1
    if (body.get("n_evals") or 0) < least:
        raise Refused(400, f"early stopping requires n_evals of at least {least}")
