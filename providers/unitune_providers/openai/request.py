"""The settings in a create call: pure functions from a job to the fields of the request.

OpenAI's form has a `method` with its hyperparameters; Nebius takes them at the top level, under
names of its own. `auto` is left out, so that the vendor chooses.
"""

from __future__ import annotations

from functools import reduce
from typing import cast

from pydantic import JsonValue

from unitune.backends.kit.hosted import explicit, without_none
from unitune.errors import JobError
from unitune.job.job import Job, Tuning
from unitune_providers.openai.options import MantleOptions, NebiusOptions, OwnHyperparameters

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
"""Options that are sent as hyperparameters under the same name."""
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
Body = dict[str, JsonValue]


def openai_form(job: Job, options: OwnHyperparameters | MantleOptions) -> Body:
    """Return `method`, `seed` and `integrations` in OpenAI's form.

    Raises:
        JobError: Reinforcement without a grader.
    """
    kind = METHODS[job.method]
    own = {name: explicit(getattr(options, name, None)) for name in OWN_HYPERPARAMETERS}
    epochs, batch_size = explicit(job.tuning.epochs), explicit(job.tuning.batch_size)
    hyperparameters = without_none({"n_epochs": epochs, "batch_size": batch_size, **own})
    inner: Body = {"hyperparameters": hyperparameters} if hyperparameters else {}
    if kind == "reinforcement":
        inner["grader"] = _grader(job, options)
    body: Body = {"method": {"type": kind, **({kind: inner} if inner else {})}}
    if isinstance(options, OwnHyperparameters) and options.wandb is not None:
        wandb = options.wandb.model_dump(mode="json", exclude_none=True)
        body["integrations"] = [{"type": "wandb", "wandb": wandb}]
    return without_none({**body, "seed": explicit(job.tuning.seed)})


def nebius_form(job: Job, options: NebiusOptions) -> Body:
    """Return `hyperparameters` and `seed` in Nebius' form.

    Raises:
        JobError: Adapter settings for a training of all weights.
    """
    tuning = without_none({ours: explicit(_setting(job.tuning, ours)) for ours in NEBIUS_TUNING})
    adapters = sorted(f"tuning.{name}" for name in tuning if name.startswith("lora."))
    if adapters and options.lora is False:
        raise JobError(
            f"options.nebius.lora is false, so {', '.join(adapters)} has no meaning. Leave one out."
        )
    hyperparameters: Body = {NEBIUS_TUNING[name]: value for name, value in tuning.items()}
    if options.lora != "auto" or adapters:
        hyperparameters["lora"] = options.lora is not False
    hyperparameters |= options.model_dump(mode="json", exclude_none=True, exclude={"lora"})
    return without_none(
        {"hyperparameters": hyperparameters or None, "seed": explicit(job.tuning.seed)}
    )


def _grader(job: Job, options: OwnHyperparameters | MantleOptions) -> Body:
    if options.grader is None:
        raise JobError(
            "method rft needs a grader, which says how good an answer is. Give it as "
            f"options.{job.backend}.grader, in the vendor's own form."
        )
    return options.grader


def _setting(tuning: Tuning, dotted: str) -> JsonValue:
    value: object = reduce(getattr, dotted.split("."), tuning)
    return cast("JsonValue", value)
