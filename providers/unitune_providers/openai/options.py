"""What a job may say under ``options`` for the backends that speak OpenAI's wire, and what is sent.

One frozen model for each vendor; bounds are those of OpenAI's published description (API 2.3.0,
2026-08-21). OpenAI's create call has a `method` with its hyperparameters; Nebius takes them at the
top level, under names of its own. `auto` is left out, so that the vendor chooses.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, JsonValue

from unitune.backends.kit.hosted import explicit, without_none
from unitune.errors import JobError
from unitune.job.job import Auto, Job
from unitune.scorers.graders import OpenAIGrader
from unitune.security.addresses import Address
from unitune.security.spec import Spec

METHODS = {"sft": "supervised", "dpo": "dpo", "rft": "reinforcement"}  # OpenAI's words by ours
OWN_HYPERPARAMETERS = (  # options that are sent as hyperparameters under the same name
    "learning_rate_multiplier",
    "l2_multiplier",
    "reasoning_effort",
    "compute_multiplier",
    "eval_interval",
    "eval_samples",
)
# Nebius' words by ours. Source: docs.tokenfactory.nebius.com/api-reference/fine-tuning/create-a-
# fine-tuning-job, a copy.
NEBIUS_TUNING = {
    "epochs": "n_epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "warmup": "warmup_ratio",
    "weight_decay": "weight_decay",
    "sequence_length": "context_length",
    "lora.rank": "lora_r",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
}
Body = dict[str, JsonValue]
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
    max_grad_norm: Positive | None = None
    """Gradients are clipped to this norm."""
    packing: bool | None = None
    """Several short rows in one sequence."""


def openai_form(job: Job, options: OwnHyperparameters | MantleOptions) -> Body:
    """Return `method`, `seed` and `integrations` in OpenAI's form.

    Raises:
        JobError: Reinforcement without a grader that the vendor takes.
    """
    kind = METHODS[job.method]
    own = {name: explicit(getattr(options, name, None)) for name in OWN_HYPERPARAMETERS}
    epochs, batch_size = explicit(job.tuning.epochs), explicit(job.tuning.batch_size)
    beta = explicit(job.tuning.preference.beta)
    settings: Body = {"n_epochs": epochs, "batch_size": batch_size, "beta": beta}
    hyperparameters = without_none({**settings, **own})
    inner: Body = {"hyperparameters": hyperparameters} if hyperparameters else {}
    if kind == "reinforcement":
        inner["grader"] = _grader(job, options)
    body: Body = {"method": {"type": kind, **({kind: inner} if inner else {})}}
    if isinstance(options, OwnHyperparameters) and options.wandb is not None:
        wandb = options.wandb.model_dump(mode="json", exclude_none=True)
        body["integrations"] = [{"type": "wandb", "wandb": wandb}]
    return without_none({**body, "seed": explicit(job.tuning.seed)})


def _grader(job: Job, options: OwnHyperparameters | MantleOptions) -> Body:
    """Return what says how good an answer is: the vendor's own grader, or the job's, if it is one.

    Raises:
        JobError: There is none that the vendor takes, or there are two.
    """
    own = f"options.{job.backend}.grader"
    if options.grader is not None:
        if job.tuning.reward.scorers is not None:
            raise JobError(
                f"{own} and tuning.reward.scorers both say what answers earn. Leave one out."
            )
        return options.grader
    scorer, form = job.reward_scorer, ""
    if isinstance(options, OwnHyperparameters):
        if isinstance(scorer, OpenAIGrader):
            return scorer.wire(job.folder)
        form = (
            "tuning.reward.scorers: {type: grader, grader: …}, which other backends take, too, or "
        )
    raise JobError(
        f"method rft needs a grader, which says how good an answer is, and {job.backend} does not "
        f"compute the scorer {scorer.name!r}. Give a grader as {form}{own}, in the vendor's own "
        "form."
    )


def nebius_form(job: Job, options: NebiusOptions) -> Body:
    """Return `hyperparameters` and `seed` in Nebius' form.

    Raises:
        JobError: Adapter settings for a training of all weights.
    """
    lora = {f"lora.{name}": value for name, value in job.tuning.lora}
    tuning: Body = {**dict(job.tuning), **lora}
    settings = without_none({ours: explicit(tuning[ours]) for ours in NEBIUS_TUNING})
    adapters = sorted(f"tuning.{name}" for name in settings if name in lora)
    if adapters and options.lora is False:
        raise JobError(
            f"options.nebius.lora is false, so {', '.join(adapters)} has no meaning. Leave one out."
        )
    hyperparameters: Body = {NEBIUS_TUNING[name]: value for name, value in settings.items()}
    if options.lora != "auto" or adapters:
        hyperparameters["lora"] = options.lora is not False
    hyperparameters |= options.model_dump(mode="json", exclude_none=True, exclude={"lora"})
    return without_none(
        {"hyperparameters": hyperparameters or None, "seed": explicit(job.tuning.seed)}
    )
