"""What Together alone understands: ``options: {together: {…}}`` of a job, and those of a deploy.

What is not set is left out of the request, so that Together's own default holds. Unknown keys are
refused with the nearest right one. Left out on purpose: what needs a second secret in the request
(Weights & Biases, uploads to the Hugging Face Hub), and starting from another job's checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from unitune.backends.options import job_options, validated
from unitune.errors import JobError
from unitune.job.job import Job
from unitune.security.spec import Spec

Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class TogetherOptions(Spec):
    """Settings of a training at Together.

    Source: together 3.1.1, ``fine_tuning.create``; togethercomputer/openapi, 2026-04-28.
    """

    training: Literal["lora", "full"] | None = None
    """What is trained; Together trains LoRA adapters when not told."""
    packing: bool | None = None
    """Several rows in one sequence: on by default. Then `tuning.batch_size` counts sequences."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] | None = None
    """Batches that make one optimiser step."""
    n_evals: Annotated[int, Field(ge=0)] | None = None
    """How often the validation rows are looked at, at the price of their tokens; by default
    never."""
    n_checkpoints: Annotated[int, Field(ge=1)] | None = None
    """Models kept from the training; by default one."""
    lr_scheduler: Literal["linear", "cosine"] | None = None
    """How the learning rate falls; by default along a cosine."""
    min_lr_ratio: Share | None = None
    """Last learning rate over the peak; needs `lr_scheduler`."""
    num_cycles: Annotated[float, Field(gt=0)] | None = None
    """Cycles of the cosine, half a one by default; needs ``lr_scheduler: cosine``."""
    warmup_ratio: Share | None = None
    """Share of the steps over which the learning rate rises; by default none."""
    max_grad_norm: NotNegative | None = None
    """Gradients are clipped to it; 0 turns that off; 1 by default."""
    weight_decay: NotNegative | None = None
    """0 by default."""
    train_on_inputs: bool | Literal["auto"] | None = None
    """sft: whether user turns carry loss. By default only answers do."""
    early_stopping_enabled: bool | None = None
    """Stop when the validation loss no longer falls; needs `n_evals`."""
    early_stopping_patience: Annotated[int, Field(ge=1)] | None = None
    """Looks without a gain that are let pass; 2 by default."""
    early_stopping_min_delta: NotNegative | None = None
    """Smallest fall that is a gain; 0 by default."""
    early_stopping_warmup_evals: Annotated[int, Field(ge=0)] | None = None
    """First looks that do not count; 1 by default."""
    dpo_beta: Annotated[float, Field(gt=0)] | None = None
    """dpo: how strongly the model is held to its reference; 0.1 by default."""
    dpo_normalize_logratios_by_length: bool | None = None
    """dpo: log-ratios per token."""
    rpo_alpha: NotNegative | None = None
    """dpo: weight of the likelihood of the preferred answer in the loss (RPO)."""
    simpo_gamma: NotNegative | None = None
    """dpo: margin of SimPO; above 0 there is no reference model, and log-ratios are per token."""

    @model_validator(mode="after")
    def _scheduled(self) -> Self:
        if self.lr_scheduler is None and self.min_lr_ratio is not None:
            raise ValueError("min_lr_ratio needs lr_scheduler: linear or cosine")
        if self.lr_scheduler != "cosine" and self.num_cycles is not None:
            raise ValueError("num_cycles needs lr_scheduler: cosine")
        return self

    @model_validator(mode="after")
    def _enough_evals(self) -> Self:
        # A first look, those that do not count, and then `patience` without a gain.
        patience, warmup = self.early_stopping_patience, self.early_stopping_warmup_evals
        least = (2 if patience is None else patience) + (1 if warmup is None else warmup) + 1
        if self.early_stopping_enabled and (self.n_evals or 0) < least:
            raise ValueError(f"early_stopping_enabled needs n_evals of at least {least} here")
        return self


class DeployOptions(Spec):
    """Settings of a dedicated endpoint.

    Source: together 3.1.1, ``endpoints.deployments.create``.
    """

    config: str | None = None
    """Which of the model's configurations serves it (``cr_…``), where it has several."""
    hardware: str | None = None
    """Choose the configuration by its hardware instead, such as ``1xnvidia-h100-80gb``."""
    min_replicas: Annotated[int, Field(ge=1)] = 1
    """Copies that always stand, and cost."""
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    """Most copies under load; by default as many as `min_replicas`."""
    inactive_timeout: Annotated[int, Field(ge=30, le=1440)] | None = None
    """Minutes without a request after which it stops by itself; by default never."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self


def together_options(job: Job) -> TogetherOptions:
    """Return a job's options for this backend.

    Raises:
        JobError: A key is unknown, a value not allowed, or not for the job's method.
    """
    options = job_options(job, "together", TogetherOptions)
    _for_method(options, str(job.method))
    return options


def deploy_options(given: Mapping[str, JsonValue]) -> DeployOptions:
    """Return the options of a deploy.

    Raises:
        JobError: A key is unknown or a value not allowed.
    """
    return validated(DeployOptions, given, "deploy option")


def _for_method(options: TogetherOptions, method: str) -> None:
    """Refuse options that mean nothing for a method; they must not be trained without."""
    others = {"sft": ("dpo_", "rpo_", "simpo_"), "dpo": ("train_on_inputs",)}.get(method, ())
    misplaced = [name for name in options.model_fields_set if name.startswith(others)]
    if others and misplaced:
        raise JobError(
            f"options.together.{misplaced[0]} is not for method {method}. Take it out, or change "
            "the job's method."
        )
