"""How a model is trained, and the most that it may cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from unitune.security.spec import Spec

Auto = Literal["auto"]


class Lora(Spec):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    rank: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Rank of each adapter."""
    alpha: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Scale; the update is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | Auto = "auto"
    """Dropout on the adapters' input."""
    targets: tuple[str, ...] | Auto = "auto"
    """Names of the linear modules that get an adapter."""


class Tuning(Spec):
    """How the model is trained; `auto` leaves a value to the backend."""

    epochs: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Passes over the training rows."""
    batch_size: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Rows that make one optimiser step."""
    learning_rate: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Absolute peak learning rate, never a multiplier."""
    lora: Lora = Lora()
    """Adapter settings."""
    sequence_length: Annotated[int, Field(ge=16)] | Auto = "auto"
    """Longest row in tokens; a longer row is a finding, never cut silently."""
    seed: Annotated[int, Field(ge=0)] | Auto = "auto"
    """Seed of everything random."""


class Budget(Spec):
    """The most that a job may cost."""

    usd: Annotated[Decimal, Field(ge=0)]
    """US dollars."""


class TrainingBudget(Budget):
    """The most that a training may cost, and take."""

    hours: Annotated[Decimal, Field(gt=0)] | None = None
    """Hours; needed to say what a training costs that is charged by the hour."""
