"""What a job may say under ``options`` for the backends that speak OpenAI's wire.

One frozen model for each vendor. Bounds are those of OpenAI's published description (API 2.3.0,
2026-08-21).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, JsonValue

from unitune.job.job import Auto
from unitune.security.addresses import Address
from unitune.security.spec import Spec

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Wandb(Spec):
    """Where Weights & Biases shall show the training."""

    project: str
    """Project that the run is created under."""
    name: str | None = None
    """Display name; the job's id by default."""
    entity: str | None = None
    """Team or user."""
    tags: tuple[str, ...] | None = None


class WireOptions(Spec):
    """Base of every vendor's options on this wire."""

    only_for: ClassVar[dict[str, str]] = {}
    """The method, by key, of keys that a single method uses."""


Options = TypeVar("Options", bound=WireOptions)


class OwnHyperparameters(WireOptions):
    """OpenAI's own hyperparameters, which Azure takes too."""

    only_for: ClassVar[dict[str, str]] = {
        "beta": "dpo",
        "grader": "rft",
        "reasoning_effort": "rft",
        "compute_multiplier": "rft",
        "eval_interval": "rft",
        "eval_samples": "rft",
    }

    wandb: Wandb | None = None
    """Weights & Biases integration, set up at the vendor."""
    learning_rate_multiplier: Positive | Auto = "auto"
    """Factor on the learning rate that OpenAI chooses."""
    beta: Annotated[float, Field(gt=0, le=2)] | Auto = "auto"
    """DPO: weight of the penalty for leaving the base model."""
    grader: dict[str, JsonValue] | None = None
    """RFT: OpenAI's grader object, as it is."""
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = None
    """RFT: how much the model thinks."""
    compute_multiplier: Annotated[float, Field(gt=1e-5, le=10)] | Auto = "auto"
    """RFT: factor on the exploration."""
    eval_interval: Count | Auto = "auto"
    """RFT: steps between two evaluations."""
    eval_samples: Count | Auto = "auto"
    """RFT: samples in each evaluation."""


class OpenAIOptions(OwnHyperparameters):
    """OpenAI's, or those of another server that speaks its wire."""

    base_url: Address | None = None
    """Another OpenAI-compatible server, for this job alone; its key is the one that the user has
    allowed for it (`unitune keys allow`)."""


class AzureOptions(OwnHyperparameters):
    """OpenAI's, and where Azure trains."""

    only_for: ClassVar[dict[str, str]] = {**OwnHyperparameters.only_for, "l2_multiplier": "dpo"}

    training_type: (
        Literal["Standard", "GlobalStandard", "globalStandard", "developerTier"] | None
    ) = None
    """Azure's trainingType; open models need globalStandard."""
    l2_multiplier: Annotated[float, Field(ge=0)] | None = None
    """DPO: weight of the L2 penalty."""


class AzureDeployOptions(Spec):
    """Settings of a deployment on Azure."""

    sku: str | None = None
    """Standard, GlobalStandard, …; by the base model when absent."""
    capacity: Annotated[int, Field(ge=1)] = 100
    """Thousands of tokens a minute: 1 is about one request a minute, too few to evaluate."""
    version: str = "1"
    """Of the tuned model."""


class MantleOptions(WireOptions):
    """Bedrock's: reinforcement, graded by a Lambda function."""

    only_for: ClassVar[dict[str, str]] = {"grader": "rft"}

    grader: dict[str, JsonValue] | None = None
    """``{type: lambda, lambda: {function: ARN}}``."""
    learning_rate_multiplier: Positive | Auto = "auto"
    """Factor on the learning rate that Bedrock chooses."""


class NebiusOptions(WireOptions):
    """Nebius Token Factory's own hyperparameters."""

    lora: bool | Auto = "auto"
    """True: adapters. False: all weights. `auto`: adapters when tuning.lora says anything, else
    what Nebius does (all weights)."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    max_grad_norm: Positive | None = None
    """Gradients are clipped to this norm."""
    packing: bool | None = None
    """Several short rows in one sequence."""
