"""How a model is trained, the most that it may cost, and how it will be used."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, field_validator, model_validator

from unitune.job.sweep import Swept
from unitune.scorers import RewardSpec
from unitune.scorers.functions import RecordedScore
from unitune.scorers.interface import Scorer
from unitune.scorers.user_function import REFERENCE, reference_to
from unitune.security.spec import Spec

Auto = Literal["auto"]
# Beside a share below 1; 1.0 is neither
Steps: TypeAlias = Annotated[int, Field(ge=0, strict=True)]


def _base_stays(value: Any) -> Any:
    if isinstance(value, str) and value.lower().startswith(("pissa", "olora", "corda", "loftq")):
        raise ValueError(
            "this initialisation changes the weights of the base model, so that the adapter would "
            "fit no one else's base; take kaiming or gaussian"
        )
    return value


class Lora(Swept):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Rank of each adapter."""
    alpha: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Scale; the update is multiplied by alpha / rank, or, with `rslora`, alpha / sqrt(rank)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """Dropout on the adapters' input."""
    targets: tuple[str, ...] | Literal["all-linear"] | Auto = "auto"
    """Names of the linear modules that get an adapter, such as ``[q_proj, v_proj]``; all-linear:
    every one but the output head."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | Auto = "auto"
    """Numbers of the layers that get adapters, counted from 0; `auto` is all layers."""
    modules_to_save: tuple[str, ...] | Auto = "auto"
    """Names of modules that are trained in full and saved beside the adapter, such as
    ``[embed_tokens, lm_head]``; `auto` is none."""
    rslora: bool | Auto = "auto"
    """Rank-stabilised scale, for high ranks (Kalajdzievski 2023, arXiv 2312.03732)."""
    dora: bool | Auto = "auto"
    """Learn the size of each output's weights apart from their direction (Liu et al. 2024, arXiv
    2402.09353); slower."""
    loraplus_lr_ratio: Annotated[float, Field(gt=0)] | Auto = "auto"
    """LoRA+: learning rate of B over that of A (Hayou et al. 2024, arXiv 2402.12354); `auto` is 1,
    16 is theirs."""
    init: Annotated[Literal["kaiming", "gaussian"] | Auto, BeforeValidator(_base_stays)] = "auto"
    """How A begins; B begins at zero, so that the model does not change at first."""


SIMPO_MARGIN = 0.5  # Of simpo, where a job names none. Meng et al. 2024: 0.5 to 1.5 (section 4).


class Preference(Swept):
    """What a training with ``method: dpo`` makes of a better and a worse answer to one prompt.

    The losses, by their papers: dpo (Rafailov et al. 2023, arXiv 2305.18290; with `label_smoothing`
    Mitchell's conservative DPO), robust (Chowdhury et al. 2024, arXiv 2403.00409), ipo (Azar et al.
    2023, arXiv 2310.12036), simpo (Meng et al. 2024, arXiv 2405.14734), orpo (Hong et al. 2024,
    arXiv 2403.07691), kto (Ethayarajh et al. 2024, arXiv 2402.01306).
    """

    loss: Literal["dpo", "robust", "ipo", "simpo", "orpo", "kto"] | Auto = "auto"
    """`auto` is dpo. kto learns from single answers that are rated: ``{"prompt": …, "completion":
    …, "label": true}``."""
    beta: Annotated[float, Field(gt=0)] | Auto = "auto"
    """How closely the model stays with its base; 0.1 is usual, 2 for simpo. A value below 0.5 is
    one that every vendor takes."""
    label_smoothing: Annotated[float, Field(gt=0, lt=0.5)] | Auto = "auto"
    """For dpo and robust: the share of pairs that are the wrong way round."""
    margin: Annotated[float, Field(ge=0)] | Auto = "auto"
    """For simpo: by how much the better answer is to win."""
    nll_weight: Annotated[float, Field(ge=0)] | Auto = "auto"
    """Weight of the better answer's own loss, added to the loss of the pair; `auto` is 0."""

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
    """Ends a training whose validation gains no more; see `Tuning.best_by`."""

    patience: Annotated[int, Field(ge=1)] | Auto = "auto"
    """So many evaluations in a row without a gain end it."""
    min_delta: Annotated[float, Field(ge=0)] | Auto = "auto"
    """A change up to this size is no gain; `auto` is 0."""


def _from_bool(value: Any) -> Any:
    """Return early stopping with nothing set for true, and none for false."""
    return ({} if value else None) if isinstance(value, bool) else value


def _as_list(value: Any) -> Any:
    """Return a single reward as a list of one."""
    return [value] if isinstance(value, str | dict | Scorer) else value


class Reward(Swept):
    """How a training with ``method: rft`` samples answers, and what they earn.

    Of each prompt a group of answers is sampled; those that earn more than the mean of their group
    become likelier, the others less likely (Shao et al. 2024, arXiv 2402.03300).
    """

    scorers: Annotated[
        tuple[RewardSpec, ...] | None,
        BeforeValidator(_as_list, json_schema_input_type=RewardSpec | list[RewardSpec] | None),
    ] = None
    """Reward of an answer, or a list of rewards that are added up: any scorer of
    `evaluate.scorers`, OpenAI's own grader as ``{type: grader, grader: …}``, a function that sees
    the whole group (``{type: reward_function, function: …}``), or an HTTP server (``{type: http,
    url: …}``); by default the scorer that decides the evaluation."""
    weights: dict[str, float] | None = None
    """Weight of each reward, by its name; a reward that is not listed has weight 1. A negative
    weight penalizes, and 0 only records."""
    group_size: Annotated[int, Field(ge=2)] | Auto = "auto"
    """Answers that are sampled for each prompt."""
    temperature: Annotated[float, Field(gt=0, le=2)] | Auto = "auto"
    """With which they are sampled; 1 is usual."""
    max_tokens: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Longest of them, in tokens; `auto` gives room by the longest expected answer."""
    kl: Annotated[float, Field(ge=0)] | Auto = "auto"
    """Weight of the KL divergence from the model that the training begins with, which keeps it near
    there; `auto` is 0: none."""
    loss: Literal["dapo", "grpo", "dr_grpo"] | Auto = "auto"
    """How the losses of tokens are averaged. dapo (`auto`): over all tokens of a step. grpo: over
    the tokens of each answer, then over answers. dr_grpo: over answers of `max_tokens` tokens."""
    scale: Literal["none", "group", "batch"] | Auto = "auto"
    """Standard deviation that advantages are divided by: none (`auto`), that of the rewards of the
    group, or that of all rewards of the step."""
    updates: Annotated[int, Field(ge=1, le=64)] | Auto = "auto"
    """Optimiser updates with the answers of one step; `auto` is 1."""
    clip: Annotated[float, Field(gt=0, lt=1)] | Auto = "auto"
    """With several updates: how far the probability of a token may fall below its old one before it
    is not pushed down further, as a share; `auto` is 0.2."""
    clip_high: Annotated[float, Field(gt=0)] | Auto = "auto"
    """The same for rising probabilities; `auto` is `clip`. DAPO uses 0.28."""

    @model_validator(mode="after")
    def _settings_that_apply(self) -> Self:
        names = [scorer.name for scorer in self.scorers or ()]
        if self.scorers == ():
            raise ValueError("scorers is empty; name a reward, or leave it out")
        if any(isinstance(scorer, RecordedScore) for scorer in self.scorers or ()):
            raise ValueError("recorded_score has no score for an answer that is sampled")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two rewards are named {twice}; give one of them another `name`")
        if unknown := sorted({*(self.weights or {})} - {*names}):
            there = ", ".join(names) or "none"
            raise ValueError(f"weights names {unknown[0]!r}; the names in scorers are: {there}")
        if self.updates in ("auto", 1) and (self.clip != "auto" or self.clip_high != "auto"):
            raise ValueError("clip applies only with updates above 1: the first changes nothing")
        return self


class Tuning(Swept):
    """How the model is trained; `auto` leaves a value to the backend.

    A setting with a list of values makes the job a sweep: one run for each combination of values,
    at most 64. The run that is best on the validation rows is judged on the test.
    """

    full: bool = False
    """Train every weight of the model instead of adapters (full fine-tuning)."""
    epochs: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0)] | Auto = "auto"
    """Passes over the training rows; may be a fraction, such as 0.5."""
    max_steps: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Optimiser steps at most, where the epochs have more; the schedule ends there, too."""
    batch_size: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Rows that make one optimiser step."""
    learning_rate: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Absolute peak learning rate, never a multiplier."""
    warmup: Steps | Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """Steps in which the learning rate rises to its peak, or, below 1, their share of all steps."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] | Auto = "auto"
    """How the learning rate falls after the warmup: over all remaining steps (cosine, linear), not
    at all (constant), or as a cosine over the last steps alone (wsd: warmup, stable, decay; Hu et
    al. 2024, arXiv 2404.06395)."""
    min_lr_ratio: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """Learning rate at the end of the schedule, as a share of the peak; `auto` is 0."""
    cooldown: (
        Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, lt=1)] | Auto
    ) = "auto"
    """For ``schedule: wsd``: the steps of the final decay, or, below 1, their share of all steps;
    `auto` is 0.1."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "muon"] | Auto = (
        "auto"
    )
    """`auto` is adamw. The 8-bit and paged forms need bitsandbytes (Dettmers et al. 2022, arXiv
    2110.02861). muon: orthogonalised momentum for matrices (Jordan 2024; learning rates as for
    AdamW: Liu et al. 2025, arXiv 2502.16982), AdamW for embeddings, output head and vectors."""
    beta1: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """AdamW's decay of the mean of gradients; `auto` is 0.9."""
    beta2: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """AdamW's decay of the mean of squared gradients; `auto` is 0.999."""
    weight_decay: Annotated[float, Field(ge=0)] | Auto = "auto"
    """By how much each step shrinks the weights, times the learning rate; with `full`, matrices
    alone."""
    max_grad_norm: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Gradients are scaled down to this norm; `auto` is 1."""
    evaluate_every: (
        Annotated[int, Field(ge=1, strict=True)] | Annotated[float, Field(gt=0, lt=1)] | Auto
    ) = "auto"
    """Steps from one look at the validation rows to the next, or, below 1, a share of an epoch;
    `auto` is an epoch. The last step is always looked at."""
    early_stopping: Annotated[
        EarlyStopping | None,
        BeforeValidator(_from_bool, json_schema_input_type=EarlyStopping | bool | None),
    ] = None
    """Whether a training ends once it gains no more: true, or ``{patience: 3, min_delta: 0.1}``."""
    keep: Literal["best", "last"] | Auto = "auto"
    """Which step's adapter is the model: that of the best evaluation, or the last. `auto` is best
    where `early_stopping` or `best_by` is set, else last."""
    best_by: Literal["loss", "score"] | Auto = "auto"
    """What is best: `auto` is the lowest loss on the validation rows; score is the highest score of
    the answers to them, by the primary scorer of `evaluate`, which takes longer."""
    neftune_noise_alpha: Annotated[float, Field(ge=0)] | Auto = "auto"
    """For ``method: sft``: noise on the embeddings of training rows, of size alpha / sqrt(tokens of
    the row times width) (NEFTune: Jain et al. 2023, arXiv 2310.05914). `auto` is none, 5 is
    usual."""
    lora: Lora = Lora()
    """Adapter settings."""
    preference: Preference = Preference()
    """For ``method: dpo``."""
    reward: Reward = Reward()
    """For ``method: rft``."""
    sequence_length: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Longest row in tokens; `overlength` decides about longer ones."""
    overlength: Literal["refuse", "drop", "truncate"] | Auto = "auto"
    """What to do about rows longer than `sequence_length`: refuse the training, leave them out, or
    cut them at their end, where a prompt leaves space for an answer. The plan counts them. `auto`
    is refuse."""
    seed: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Seed of everything random."""
    callbacks: tuple[
        Annotated[str, BeforeValidator(reference_to), Field(pattern=REFERENCE)], ...
    ] = ()
    """Functions of yours that the training calls at each event: ``callbacks.py:log``, a file from
    the job's folder, or ``package.module:log``. Each is called as ``log(event, model)``; `event`
    has `kind` (step, validation, checkpoint, message or warning) and `data`."""

    @field_validator("epochs")
    @classmethod
    def _whole_epochs_are_whole(cls, epochs: float | Auto) -> float | Auto:
        return int(epochs) if isinstance(epochs, float) and epochs.is_integer() else epochs

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        if self.full and self.lora != Lora():
            raise ValueError("lora describes adapters, and with full: true there are none")
        if self.cooldown != "auto" and self.schedule != "wsd":
            raise ValueError(f"cooldown is for schedule wsd, not for {self.schedule}")
        if self.min_lr_ratio != "auto" and self.schedule == "constant":
            raise ValueError("min_lr_ratio is for a schedule that falls; constant does not")
        return self

    @model_validator(mode="after")
    def _last_is_not_best(self) -> Self:
        if self.keep == "last" and self.best_by != "auto" and not self.early_stopping:
            raise ValueError("best_by decides nothing with keep: last and no early_stopping")
        return self


class Budget(Spec):
    """The most that a job may cost."""

    usd: Annotated[Decimal, Field(ge=0)]
    """US dollars."""


class TrainingBudget(Budget):
    """The most that a training may cost, and take."""

    hours: Annotated[Decimal, Field(gt=0)] | None = None
    """Hours; needed to say what a training costs that is charged by the hour."""


MOST_REQUESTS = 10**10
# Of a request. Both are more than any model gets, and can be computed with and printed.
MOST_TOKENS = 10**7


class Alternative(Spec):
    """An untuned model that could answer instead, with the best prompt."""

    model: str
    """Its name at the vendor."""
    backend: str | None = None
    """Who answers; by default the job's backend."""


class Usage(Spec):
    """How many requests the model gets, how long, and with what: for `unitune cost`.

    `auto` is measured in the job's newest comparison where there is one, else counted from
    its data.
    """

    requests_month: Annotated[int, Field(ge=1, le=MOST_REQUESTS)] = 10_000
    """Requests a month."""
    months: Annotated[int, Field(ge=1, le=120)] = 12
    """How long it is to be used; less where the model is switched off before."""
    prompted_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Auto = "auto"
    """Tokens of a request's prompt to the prompted model, instructions and shots included."""
    tuned_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Auto = "auto"
    """Tokens of a request's prompt to the tuned model."""
    shared_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | Auto = "auto"
    """Tokens at the beginning of the prompted model's prompts that are always the same, which a
    vendor's cache can hold."""
    answer_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Auto = "auto"
    """Tokens of an answer that is seen."""
    cache_hit_rate: Annotated[Decimal, Field(ge=0, le=1)] | Auto = "auto"
    """Share of requests whose beginning is in the cache; `auto` is one half."""
    reasoning_factor: Annotated[Decimal, Field(ge=1, le=100)] | Auto = "auto"
    """By how much hidden reasoning lengthens the answers of models that reason; `auto`
    is 1 to 1.6."""
    hosting_hours_day: Annotated[Decimal, Field(ge=0, le=24)] = Decimal(24)
    """Hours a day that the tuned model's deployment stands, where it needs one."""
    runs: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Trainings over the whole time, failed and repeated ones included."""
    preparation_usd: Annotated[Decimal, Field(ge=0, le=10**12)] = Decimal(0)
    """What collecting and labelling the rows costs, in US dollars."""
    alternative: Alternative | None = None
    """Newest untuned model; by default the model that the backend's offer names."""
