"""Settings that Together alone has: ``options: {together: {…}}`` of a job, and those of a deploy.

What is not set is left out of the request, so that Together's own default holds. Left out on
purpose: what needs a second secret in the request (Weights & Biases, uploads to the Hugging Face
Hub), and starting from the checkpoint of another job.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unitune.errors import JobError
from unitune.security.spec import Spec

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]


class TogetherOptions(Spec):
    """Settings of a training at Together.

    Source: together 3.1.1, ``fine_tuning.create``; togethercomputer/openapi, 2026-04-28.
    """

    training: Literal["lora", "full"] | None = None
    """What is trained; a LoRA adapter by default."""
    packing: bool | None = None
    """Several rows in one sequence, on by default; `tuning.batch_size` then counts sequences."""
    gradient_accumulation_steps: Count | None = None
    """Batches that make one optimiser step."""
    n_evals: Annotated[int, Field(ge=0)] | None = None
    """Evaluations on the validation rows, at the price of their tokens; none by default."""
    n_checkpoints: Count | None = None
    """Models kept from the training; one by default."""
    lr_scheduler: Literal["linear", "cosine"] | None = None
    """How the learning rate falls; along a cosine by default."""
    min_lr_ratio: Share | None = None
    """Last learning rate over the peak; needs `lr_scheduler`."""
    num_cycles: Annotated[float, Field(gt=0)] | None = None
    """Cycles of the cosine, 0.5 by default; needs ``lr_scheduler: cosine``."""
    warmup_ratio: Share | None = None
    """Share of the steps over which the learning rate rises; 0 by default."""
    max_grad_norm: NotNegative | None = None
    """Gradients are clipped to it; 0 turns that off; 1 by default."""
    weight_decay: NotNegative | None = None
    """0 by default."""
    train_on_inputs: bool | Literal["auto"] | None = None
    """sft: whether user turns carry loss; only answers do by default."""
    early_stopping_enabled: bool | None = None
    """Stop when the validation loss no longer falls; needs `n_evals`."""
    early_stopping_patience: Count | None = None
    """Evaluations in a row without a gain; 2 by default."""
    early_stopping_min_delta: NotNegative | None = None
    """Smallest fall that is a gain; 0 by default."""
    early_stopping_warmup_evals: Annotated[int, Field(ge=0)] | None = None
    """First evaluations that do not count; 1 by default."""
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
        # The first evaluation, those that do not count, and then `patience` without a gain.
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
    min_replicas: Count = 1
    """Copies that always stand and are charged."""
    max_replicas: Count | None = None
    """Most copies under load; `min_replicas` by default."""
    inactive_timeout: Annotated[int, Field(ge=30, le=1440)] | None = None
    """Minutes without a request after which it stops by itself; never by default."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self


def check_method(options: TogetherOptions, method: str) -> None:
    """Refuse options that mean nothing for a method.

    Raises:
        JobError: An option is for another method.
    """
    others = {"sft": ("dpo_", "rpo_", "simpo_"), "dpo": ("train_on_inputs",)}.get(method, ())
    for name in sorted(options.model_fields_set):
        if others and name.startswith(others):
            raise JobError(
                f"options.together.{name} is not for method {method}. Take it out, or change the "
                "job's method."
            )
