"""Define the options of the backends with OpenAI's API, and build the settings of a create call.

Bounds are those of OpenAI's published description (API 2.3.0, 2026-08-21). OpenAI's create call has
a `method` with its hyperparameters; Nebius has them at the top level under other names. `auto` is
left out, so that the vendor chooses.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, JsonValue

from unitune.backends.kit.hosted import explicit, without_none
from unitune.documents import Spec
from unitune.errors import JobError
from unitune.job.job import Auto, Job
from unitune.scorers.graders import OpenAIGrader
from unitune.security.addresses import Address

METHODS = {"sft": "supervised", "dpo": "dpo", "rft": "reinforcement"}  # OpenAI's names by ours
OWN_HYPERPARAMETERS = (  # options sent as hyperparameters under the same name
    "learning_rate_multiplier",
    "l2_multiplier",
    "reasoning_effort",
    "compute_multiplier",
    "eval_interval",
    "eval_samples",
)
# Nebius' names by ours. Source: docs.tokenfactory.nebius.com/api-reference/fine-tuning/create-a-
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
    """Settings of the Weights & Biases integration."""

    project: str
    """Project of the run."""
    name: str | None = None
    """Display name; default the job's id."""
    entity: str | None = None
    """Team or user."""
    tags: tuple[str, ...] | None = None


class GraderTokens(Spec):
    """Tokens of a model that grades, in a whole training."""

    input: Annotated[int, Field(ge=0)]
    """Tokens that it reads."""
    output: Annotated[int, Field(ge=0)]
    """Tokens that it writes."""


class WireOptions(Spec):
    """Base of the options of vendors with this API."""

    only_for: ClassVar[dict[str, str]] = {}
    """Method of each key that applies to a single method."""


Options = TypeVar("Options", bound=WireOptions)


class OwnHyperparameters(WireOptions):
    """OpenAI's own hyperparameters, also supported by Azure."""

    only_for: ClassVar[dict[str, str]] = {
        "grader": "rft",
        "grader_tokens": "rft",
        "reasoning_effort": "rft",
        "compute_multiplier": "rft",
        "eval_interval": "rft",
        "eval_samples": "rft",
    }

    wandb: Wandb | None = None
    """Weights & Biases integration, set up at the vendor."""
    learning_rate_multiplier: Positive | Auto = "auto"
    """Factor for the learning rate chosen by OpenAI."""
    grader: dict[str, JsonValue] | None = None
    """RFT: OpenAI's grader object, unchanged."""
    grader_tokens: GraderTokens | None = None
    """RFT: expected tokens of a grader that calls a model, for the estimate; they are billed
    besides the hours of training."""
    reasoning_effort: Literal["default", "low", "medium", "high"] | None = None
    """RFT: reasoning effort of the model."""
    compute_multiplier: Annotated[float, Field(gt=1e-5, le=10)] | Auto = "auto"
    """RFT: factor for the exploration."""
    eval_interval: Count | Auto = "auto"
    """RFT: steps between two evaluations."""
    eval_samples: Count | Auto = "auto"
    """RFT: samples in each evaluation."""


class OpenAIOptions(OwnHyperparameters):
    """Options of OpenAI or of another server with its API."""

    base_url: Address | None = None
    """Another OpenAI-compatible server, for this job only; its key must be allowed with `unitune
    keys allow`."""


# Azure's words for `training_type`. Source: MicrosoftDocs/azure-ai-docs, fine-tuning-rest.md and
# fine-tuning-oai-sdk.md; open models have another spelling (microsoft/azure-skills, a copy).
TRAINING_TYPES = {"standard": "Standard", "global": "GlobalStandard", "developer": "developerTier"}
OPEN_MODELS_TYPES = {"global": "globalStandard", "developer": "developerTier"}
TrainingType = Literal[
    "standard",
    "global",
    "developer",
    "Standard",
    "GlobalStandard",
    "globalStandard",
    "developerTier",
]
Sku = Literal[
    "Standard", "GlobalStandard", "DataZoneStandard", "DeveloperTier", "ProvisionedManaged"
]


class AzureOptions(OwnHyperparameters):
    """Options of OpenAI, and Azure's tiers of trainings and deployments."""

    only_for: ClassVar[dict[str, str]] = {**OwnHyperparameters.only_for, "l2_multiplier": "dpo"}

    training_type: TrainingType | None = None
    """Where it trains: `standard` in the resource's region, `global` anywhere and cheaper,
    `developer` on idle capacity at half the price of global; or Azure's word for it. Default:
    `standard`; open models need `global`."""
    sku: Sku | None = None
    """Type of the deployment that serves the tuned model; default that of the training."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9]+$")] | None = None
    """Region of the resource, such as swedencentral, for its prices and its models."""
    residency: Literal["region", "data-zone"] | None = None
    """Where rows and model must stay; tiers that may move them are refused."""
    l2_multiplier: Annotated[float, Field(ge=0)] | None = None
    """DPO: weight of the L2 penalty."""


class AzureDeployOptions(Spec):
    """Settings of a deployment on Azure."""

    sku: Sku | None = None
    """Type of the deployment; default options.azure.sku of the job, or that of its training."""
    capacity: Annotated[int, Field(ge=1)] = 100
    """Thousands of tokens per minute, or provisioned units; 1 is too few to evaluate."""
    version: str = "1"
    """Version of the tuned model."""


class MantleOptions(WireOptions):
    """Options of Bedrock's reinforcement, graded by a Lambda function."""

    only_for: ClassVar[dict[str, str]] = {"grader": "rft"}

    grader: dict[str, JsonValue] | None = None
    """Grader: ``{type: lambda, lambda: {function: ARN}}``."""
    learning_rate_multiplier: Positive | Auto = "auto"
    """Factor for the learning rate chosen by Bedrock."""


class NebiusOptions(WireOptions):
    """Nebius Token Factory's own hyperparameters."""

    lora: bool | Auto = "auto"
    """True: adapters. False: all weights. `auto`: adapters if tuning.lora has settings, else
    Nebius' default (all weights)."""
    max_grad_norm: Positive | None = None
    """Norm to which gradients are clipped."""
    packing: bool | None = None
    """Whether several short rows share a sequence."""


def openai_form(job: Job, options: OwnHyperparameters | MantleOptions) -> Body:
    """Return `method`, `seed` and `integrations` for OpenAI, or raise `JobError`."""
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
    own = f"options.{job.backend}.grader"
    if options.grader is not None:
        if job.tuning.reward.scorers is not None:
            raise JobError(
                f"{own} and tuning.reward.scorers both define the reward. Remove one of them."
            )
        return options.grader
    scorer, form = job.reward_scorer, ""
    if isinstance(options, OwnHyperparameters):
        if isinstance(scorer, OpenAIGrader):
            return scorer.wire(job.folder)
        form = "tuning.reward.scorers: {type: grader, grader: …}, also for other backends, or "
    raise JobError(
        f"method rft needs a grader for the answers, and {job.backend} cannot compute the scorer "
        f"{scorer.name!r}. Set a grader as {form}{own}, in the vendor's own format."
    )


def nebius_form(job: Job, options: NebiusOptions) -> Body:
    """Return `hyperparameters` and `seed` for Nebius, or raise `JobError`."""
    lora = {f"lora.{name}": value for name, value in job.tuning.lora}
    tuning: Body = {**dict(job.tuning), **lora}
    settings = without_none({ours: explicit(tuning[ours]) for ours in NEBIUS_TUNING})
    adapters = sorted(f"tuning.{name}" for name in settings if name in lora)
    if adapters and options.lora is False:
        raise JobError(
            f"options.nebius.lora is false, so {', '.join(adapters)} has no effect. Remove one."
        )
    hyperparameters: Body = {NEBIUS_TUNING[name]: value for name, value in settings.items()}
    if options.lora != "auto" or adapters:
        hyperparameters["lora"] = options.lora is not False
    hyperparameters |= options.model_dump(mode="json", exclude_none=True, exclude={"lora"})
    return without_none(
        {"hyperparameters": hyperparameters or None, "seed": explicit(job.tuning.seed)}
    )
