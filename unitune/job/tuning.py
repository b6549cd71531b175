"""Define the training settings, budgets and expected use of a model."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from unitune.documents import Spec
from unitune.job.sweep import Swept
from unitune.scorers import RewardSpec
from unitune.scorers.functions import REFERENCE, RecordedScore, reference_to
from unitune.scorers.interface import Scorer

Auto = Literal["auto"]
# Steps as opposed to a share below 1; 1.0 is neither
Steps: TypeAlias = Annotated[int, Field(ge=0, strict=True)]


def _base_stays(value: Any) -> Any:
    if isinstance(value, str) and value.lower().startswith(("pissa", "olora", "corda", "loftq")):
        raise ValueError(
            "this initialisation changes the weights of the base model, so the adapter would "
            "not fit the published base; use kaiming or gaussian"
        )
    return value


class Lora(Swept):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Rank of each adapter."""
    alpha: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Scale: the update is multiplied by alpha / rank or, with `rslora`, alpha / sqrt(rank)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """Dropout on the adapters' input."""
    targets: tuple[str, ...] | Literal["all-linear"] | Auto = "auto"
    """Names of linear modules with an adapter, such as ``[q_proj, v_proj]``; all-linear: every one
    except the output head."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | Auto = "auto"
    """Numbers of the layers with adapters, from 0; `auto` is all."""
    modules_to_save: tuple[str, ...] | Auto = "auto"
    """Names of modules that are fully trained and saved with the adapter, such as ``[embed_tokens,
    lm_head]``; `auto` is an empty list."""
    rslora: bool | Auto = "auto"
    """Rank-stabilised scale for high ranks (Kalajdzievski 2023, arXiv 2312.03732)."""
    dora: bool | Auto = "auto"
    """Train magnitude and direction of the weights separately (Liu et al. 2024, arXiv 2402.09353);
    slower."""
    loraplus_lr_ratio: Annotated[float, Field(gt=0)] | Auto = "auto"
    """LoRA+: learning rate of B divided by that of A (Hayou et al. 2024, arXiv 2402.12354); `auto`
    is 1, the paper uses 16."""
    init: Annotated[Literal["kaiming", "gaussian"] | Auto, BeforeValidator(_base_stays)] = "auto"
    """Initialisation of A; B starts at zero, so the model is unchanged at first."""


SIMPO_MARGIN = 0.5  # Default of simpo. Meng et al. 2024: 0.5 to 1.5 (section 4).


class Preference(Swept):
    """Preference loss of a training with ``method: dpo``.

    The losses: dpo (Rafailov et al. 2023, arXiv 2305.18290; with `label_smoothing` Mitchell's
    conservative DPO), robust (Chowdhury et al. 2024, arXiv 2403.00409), ipo (Azar et al. 2023,
    arXiv 2310.12036), simpo (Meng et al. 2024, arXiv 2405.14734), orpo (Hong et al. 2024, arXiv
    2403.07691), kto (Ethayarajh et al. 2024, arXiv 2402.01306).
    """

    loss: Literal["dpo", "robust", "ipo", "simpo", "orpo", "kto"] | Auto = "auto"
    """Loss function; `auto` is dpo. kto learns from single rated answers: ``{"prompt": …,
    "completion": …, "label": true}``."""
    beta: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Strength of the tie to the base model; usually 0.1, or 2 for simpo. Every vendor supports
    values below 0.5."""
    label_smoothing: Annotated[float, Field(gt=0, lt=0.5)] | Auto = "auto"
    """Share of mislabelled pairs, for dpo and robust."""
    margin: Annotated[float, Field(ge=0)] | Auto = "auto"
    """Target margin of the better answer, for simpo."""
    nll_weight: Annotated[float, Field(ge=0)] | Auto = "auto"
    """Weight of the better answer's own loss, added to the pair's loss; `auto` is 0."""

    @model_validator(mode="after")
    def _settings_of_the_loss(self) -> Self:
        for setting, losses in {
            "label_smoothing": ("auto", "dpo", "robust"),
            "margin": ("simpo",),
            "nll_weight": ("auto", "dpo", "robust", "ipo", "simpo", "orpo"),
        }.items():
            if getattr(self, setting) != "auto" and self.loss not in losses:
                named = ", ".join(loss for loss in losses if loss != "auto")
                raise ValueError(f"{setting} is for loss {named}; not for {self.loss}")
        return self


class EarlyStopping(Swept):
    """Early end of a training whose validation no longer improves; see `Tuning.best_by`."""

    patience: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Number of evaluations in a row without improvement."""
    min_delta: Annotated[float, Field(ge=0)] | Auto = "auto"
    """Smallest change that counts as improvement; `auto` is 0."""


def _from_bool(value: Any) -> Any:
    return ({} if value else None) if isinstance(value, bool) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | dict | Scorer) else value


# Default of `Reward.group_size` on this machine, and TRL's. If one answer in eight is right, two
# groups of three have a right one.
AUTO_GROUP_SIZE = 8


class Reward(Swept):
    """Sampling and rewards of a training with ``method: rft``.

    A group of answers is sampled per prompt. Answers with more than the group's mean reward become
    likelier, the others less likely (Shao et al. 2024, arXiv 2402.03300).
    """

    scorers: Annotated[
        tuple[RewardSpec, ...] | None,
        BeforeValidator(_as_list, json_schema_input_type=RewardSpec | list[RewardSpec] | None),
    ] = None
    """Reward of an answer, or a list of rewards that are added: any scorer of `evaluate.scorers`,
    a judge with a rubric, OpenAI's grader (``{type: grader, grader: …}``), a function that sees the
    group (``{type: reward_function, function: …}``), or an HTTP server (``{type: http, url: …}``).
    By default the scorer that decides the evaluation."""
    weights: dict[str, float] | None = None
    """Weight of each reward by name, by default 1. A negative weight penalizes, and 0 only
    records."""
    group_size: Annotated[int, Field(ge=2)] | Auto = "auto"
    """Number of sampled answers per prompt."""
    temperature: Annotated[float, Field(gt=0, le=2)] | Auto = "auto"
    """Sampling temperature; usually 1."""
    max_tokens: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Longest sampled answer in tokens; `auto` follows the longest expected answer."""
    kl: Annotated[float, Field(ge=0)] | Auto = "auto"
    """Weight of the KL divergence from the starting model; `auto` is 0, none."""
    loss: Literal["dapo", "grpo", "dr_grpo"] | Auto = "auto"
    """Averaging of token losses. dapo (`auto`): over all tokens of a step. grpo: over the tokens of
    each answer, then over answers. dr_grpo: over answers of `max_tokens` tokens."""
    scale: Literal["none", "group", "batch"] | Auto = "auto"
    """Standard deviation that advantages are divided by: none (`auto`), that of the group's
    rewards, or that of all rewards of the step."""
    updates: Annotated[int, Field(ge=1, le=64)] | Auto = "auto"
    """Optimiser updates per step; `auto` is 1."""
    clip: Annotated[float, Field(gt=0, lt=1)] | Auto = "auto"
    """Relative change below the old probability of a token at which it is no longer pushed down,
    with several updates; `auto` is 0.2."""
    clip_high: Annotated[float, Field(gt=0)] | Auto = "auto"
    """The same for rising probabilities; `auto` is `clip`. DAPO uses 0.28."""

    @model_validator(mode="after")
    def _settings_that_apply(self) -> Self:
        names = [scorer.name for scorer in self.scorers or ()]
        if self.scorers == ():
            raise ValueError("scorers is empty; name a reward, or remove it")
        if any(isinstance(scorer, RecordedScore) for scorer in self.scorers or ()):
            raise ValueError("recorded_score has no score for a sampled answer")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two rewards are named {twice}; give one another `name`")
        if unknown := sorted({*(self.weights or {})} - {*names}):
            there = ", ".join(names) or "none"
            raise ValueError(f"weights names {unknown[0]!r}, but the names in scorers are: {there}")
        if self.updates in ("auto", 1) and (self.clip != "auto" or self.clip_high != "auto"):
            raise ValueError("clip needs updates above 1, because it has no effect on the first")
        return self


class Tuning(Swept):
    """Training settings; `auto` leaves a value to the backend.

    A setting with a list of values makes the job a sweep: one run per combination of values, at
    most 64. The run that is best on the validation rows is evaluated on the test.
    """

    full: bool = False
    """Train all weights of the model instead of adapters (full fine-tuning)."""
    epochs: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0)] | Auto = "auto"
    """Passes over the training rows, possibly a fraction such as 0.5."""
    max_steps: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Maximum number of optimiser steps; the schedule ends there too."""
    batch_size: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Rows per optimiser step."""
    learning_rate: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Absolute peak learning rate, not a multiplier."""
    warmup: Steps | Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """Steps until the learning rate reaches its peak or, below 1, their share of all steps."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] | Auto = "auto"
    """Decay of the learning rate after the warmup: over all remaining steps (cosine, linear), none
    (constant), or as a cosine over only the last steps (wsd: warmup, stable, decay; Hu et al. 2024,
    arXiv 2404.06395)."""
    min_lr_ratio: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """Final learning rate as a share of the peak; `auto` is 0."""
    cooldown: (
        Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, lt=1)] | Auto
    ) = "auto"
    """Steps of the final decay for ``schedule: wsd`` or, below 1, their share of all steps; `auto`
    is 0.1."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "muon"] | Auto = (
        "auto"
    )
    """Optimiser; `auto` is adamw. The 8-bit and paged forms need bitsandbytes (Dettmers et al.
    2022, arXiv 2110.02861). muon: orthogonalised momentum for matrices (Jordan 2024; learning rates
    as for AdamW: Liu et al. 2025, arXiv 2502.16982), AdamW for embeddings, output head and
    vectors."""
    beta1: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """AdamW's decay of the mean of gradients; `auto` is 0.9."""
    beta2: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """AdamW's decay of the mean of squared gradients; `auto` is 0.999."""
    weight_decay: Annotated[float, Field(ge=0)] | Auto = "auto"
    """Weight decay per step, times the learning rate; with `full`, only of matrices."""
    max_grad_norm: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Maximum gradient norm; `auto` is 1."""
    evaluate_every: (
        Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, lt=1)] | Auto
    ) = "auto"
    """Steps between evaluations on the validation rows or, below 1, a share of an epoch; `auto` is
    one epoch. The last step is always evaluated."""
    early_stopping: Annotated[
        EarlyStopping | None,
        BeforeValidator(_from_bool, json_schema_input_type=EarlyStopping | bool | None),
    ] = None
    """Early stopping: true, or settings such as ``{patience: 3, min_delta: 0.1}``."""
    keep: Literal["best", "last"] | Auto = "auto"
    """Step to keep as the model: that of the best evaluation, or the last. `auto` is best if
    `early_stopping` or `best_by` is set, otherwise last."""
    best_by: Literal["loss", "score"] | Auto = "auto"
    """Criterion of the best step: the lowest validation loss (`auto`), or the highest score of
    answers to the validation rows by the primary scorer, which takes longer."""
    neftune_noise_alpha: Annotated[float, Field(ge=0)] | Auto = "auto"
    """Noise on the embeddings of training rows for ``method: sft``, of size alpha / sqrt(row tokens
    times width) (NEFTune: Jain et al. 2023, arXiv 2310.05914). `auto` turns it off; 5 is usual."""
    lora: Lora = Lora()
    """Adapter settings."""
    preference: Preference = Preference()
    """Settings of ``method: dpo``."""
    reward: Reward = Reward()
    """Settings of ``method: rft``."""
    sequence_length: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Longest row in tokens; `overlength` applies to longer ones."""
    overlength: Literal["refuse", "drop", "truncate"] | Auto = "auto"
    """Treatment of rows longer than `sequence_length`: refuse the training (`auto`), drop them, or
    truncate them at their end if the prompt leaves space for an answer. The plan counts them."""
    seed: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Random seed."""
    callbacks: tuple[
        Annotated[str, BeforeValidator(reference_to), Field(pattern=REFERENCE)], ...
    ] = ()
    """Custom functions called at each event: ``callbacks.py:log``, relative to the job's folder, or
    ``package.module:log``. Each is called as ``log(event, model)``; `event` has `kind` (step,
    validation, checkpoint, message or warning) and `data`."""

    @field_validator("epochs")
    @classmethod
    def _whole_epochs_are_whole(cls, epochs: float | Auto) -> float | Auto:
        return int(epochs) if isinstance(epochs, float) and epochs.is_integer() else epochs

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        if self.full and self.lora != Lora():
            raise ValueError("lora configures adapters, but full: true trains none")
        if self.cooldown != "auto" and self.schedule != "wsd":
            raise ValueError(f"cooldown is for schedule wsd, not for {self.schedule}")
        if self.min_lr_ratio != "auto" and self.schedule == "constant":
            raise ValueError("min_lr_ratio needs a schedule that decays; constant does not")
        return self

    @model_validator(mode="after")
    def _last_is_not_best(self) -> Self:
        if self.keep == "last" and self.best_by != "auto" and not self.early_stopping:
            raise ValueError("best_by has no effect with keep: last and without early_stopping")
        return self


class Budget(Spec):
    """Maximum cost of a job."""

    usd: Annotated[Decimal, Field(ge=0)]
    """Maximum in US dollars."""


class TrainingBudget(Budget):
    """Maximum cost and duration of a training."""

    hours: Annotated[Decimal, Field(gt=0)] | None = None
    """Hours; required to estimate a training that is billed by the hour."""


MOST_REQUESTS = 10**10
# Upper bounds of a request, beyond any model, so that results can be computed and printed.
MOST_TOKENS = 10**7


class Alternative(Spec):
    """Untuned model that could answer instead, with the best prompt."""

    model: str
    """Name of the model at the vendor."""
    backend: str | None = None
    """Backend that answers; by default the job's."""


class Usage(Spec):
    """Expected use of the model, for `unitune cost`.

    `auto` values are taken from the job's newest comparison or, without one, from its data.
    """

    requests_month: Annotated[int, Field(ge=1, le=MOST_REQUESTS)] = 10_000
    """Requests per month."""
    months: Annotated[int, Field(ge=1, le=120)] = 12
    """Months of use; fewer if the model is retired before."""
    prompted_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Auto = "auto"
    """Prompt tokens per request to the prompted model, with instructions and shots."""
    tuned_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Auto = "auto"
    """Prompt tokens per request to the tuned model."""
    shared_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | Auto = "auto"
    """Tokens at the beginning of the prompted model's prompts that never change, so that a vendor
    can cache them."""
    answer_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Auto = "auto"
    """Visible tokens per answer."""
    cache_hit_rate: Annotated[Decimal, Field(ge=0, le=1)] | Auto = "auto"
    """Share of requests with a cached beginning; `auto` is one half."""
    reasoning_factor: Annotated[Decimal, Field(ge=1, le=100)] | Auto = "auto"
    """Length of a reasoning model's answer with its hidden reasoning, as a multiple of the visible
    answer; `auto` is 1 to 1.6."""
    hosting_hours_day: Annotated[Decimal, Field(ge=0, le=24)] = Decimal(24)
    """Hours per day that the tuned model's deployment runs, if it needs one."""
    runs: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Number of trainings over the whole time, failed and repeated ones included."""
    preparation_usd: Annotated[Decimal, Field(ge=0, le=10**12)] = Decimal(0)
    """Cost of collecting and labelling the rows, in US dollars."""
    alternative: Alternative | None = None
    """Newest untuned model; by default the one in the backend's offer."""
