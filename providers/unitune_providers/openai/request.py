"""What is asked for when a job is created: pure functions from a launch to the request's parts.

OpenAI's form has a `method` with its hyperparameters; Nebius takes them at the top level, under
names of its own. What is `auto` is left out, so that the vendor chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from unitune.errors import JobError
from unitune.job.job import Job, Tuning
from unitune_providers.openai.options import (
    MantleOptions,
    NebiusOptions,
    OwnHyperparameters,
    WireOptions,
)

METHODS = {"sft": "supervised", "dpo": "dpo", "rft": "reinforcement"}
"""OpenAI's words by ours."""
OWN_HYPERPARAMETERS = (
    "learning_rate_multiplier",
    "beta",
    "l2_multiplier",
    "reasoning_effort",
    "compute_multiplier",
    "eval_interval",
    "eval_samples",
)
"""Options that travel as hyperparameters under the same name."""
NEBIUS_TUNING = {
    "epochs": "n_epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "sequence_length": "context_length",
    "lora.rank": "lora_r",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
}
"""Nebius' words by ours.

Source: docs.tokenfactory.nebius.com/api-reference/fine-tuning/create-a-fine-tuning-job, a copy.
"""
OUR_TUNING = {theirs: ours for ours, theirs in NEBIUS_TUNING.items()}
"""Our words by the wire's, for reading a job back."""


@dataclass(frozen=True, slots=True)
class CreateCall:
    """What a create call says beside model and files.

    Args:
        params: In OpenAI's form, as `openai.types.fine_tuning.JobCreateParams` has it.
        extra: What the vendor takes beyond that form.
    """

    params: Mapping[str, object]
    extra: Mapping[str, JsonValue] | None = None


def method_part(job: Job, options: OwnHyperparameters | MantleOptions) -> dict[str, object]:
    """Return `method` and `seed` in OpenAI's form.

    Args:
        job: What to tune and how.
        options: Its options for the backend.

    Raises:
        JobError: Reinforcement without a grader.
    """
    kind = METHODS[job.method]
    inner: dict[str, object] = {}
    hyperparameters = _hyperparameters(job.tuning, options)
    if kind == "reinforcement":
        inner["grader"] = _grader(job, options)
    if hyperparameters:
        inner["hyperparameters"] = hyperparameters
    method = {"type": kind, **({kind: inner} if inner else {})}
    return {"method": method, **_seed(job.tuning)}


def nebius_part(job: Job, options: NebiusOptions) -> dict[str, object]:
    """Return `hyperparameters` and `seed` in Nebius' form.

    Args:
        job: What to tune and how.
        options: Its options for Nebius.

    Raises:
        JobError: Adapter settings for a training of all weights.
    """
    given = {ours: _setting(job.tuning, ours) for ours in NEBIUS_TUNING}
    explicit = {ours: value for ours, value in given.items() if value != "auto"}
    adapters = sorted(f"tuning.{name}" for name in explicit if name.startswith("lora."))
    if adapters and options.lora is False:
        raise JobError(
            f"options.nebius.lora is false, so {', '.join(adapters)} has no meaning. Leave one out."
        )
    hyperparameters = {NEBIUS_TUNING[name]: value for name, value in explicit.items()}
    if options.lora != "auto" or adapters:
        hyperparameters["lora"] = options.lora is not False
    own = options.model_dump(mode="json", exclude_none=True, exclude={"lora"})
    both = {**hyperparameters, **own}
    return {**({"hyperparameters": both} if both else {}), **_seed(job.tuning)}


def integrations_part(options: OwnHyperparameters) -> dict[str, object]:
    """Return `integrations`, if there is one.

    Args:
        options: A job's options for the backend.
    """
    if options.wandb is None:
        return {}
    wandb = options.wandb.model_dump(mode="json", exclude_none=True)
    return {"integrations": [{"type": "wandb", "wandb": wandb}]}


def _hyperparameters(tuning: Tuning, options: WireOptions) -> dict[str, object]:
    both = {
        "n_epochs": tuning.epochs,
        "batch_size": tuning.batch_size,
        **{name: getattr(options, name, None) for name in OWN_HYPERPARAMETERS},
    }
    return {name: value for name, value in both.items() if value not in ("auto", None)}


def _grader(job: Job, options: OwnHyperparameters | MantleOptions) -> dict[str, JsonValue]:
    if options.grader is None:
        raise JobError(
            "method rft needs a grader, which says how good an answer is. Give it as "
            f"options.{job.backend}.grader, in the vendor's own form."
        )
    return options.grader


def _seed(tuning: Tuning) -> dict[str, object]:
    return {} if tuning.seed == "auto" else {"seed": tuning.seed}


def _setting(tuning: Tuning, dotted: str) -> JsonValue:
    value: object = tuning
    for name in dotted.split("."):
        value = getattr(value, name)
    return cast("JsonValue", value)
