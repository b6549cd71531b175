"""What a model is trained on, how, and the most that it may cost."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from unitune.security.spec import Spec

Auto = Literal["auto"]


class Columns(Spec):
    """Which column of a table becomes which message."""

    user: str
    """Column with the user's message."""
    assistant: str
    """Column with the expected answer."""
    system: str | None = None
    """Column with the system prompt, if there is one."""


class Template(Spec):
    """Jinja2 templates over the columns of a row, one for each message."""

    user: str
    """Template of the user's message, e.g. ``Subject: {{ subject }}\\n\\n{{ body }}``."""
    assistant: str
    """Template of the expected answer."""
    system: str | None = None
    """Template of the system prompt."""


class Data(Spec):
    """The files that a job learns from and is judged on."""

    train: str | None = None
    """Training file: JSONL, CSV or TSV; a job without one is only compared, never trained."""
    test: str | None = None
    """Held-out cases; `compare` needs them, training never reads them for learning."""
    validation: str | Annotated[float, Field(gt=0, lt=1)] | None = None
    """A file, or the fraction of train to hold out; by default a seeded tenth, at least 30 rows."""
    columns: Columns | None = None
    """For tables: which columns hold the messages."""
    template: Template | None = None
    """For tables: how messages are made from the columns; instead of `columns`."""

    @model_validator(mode="after")
    def _refuse_both_mappings(self) -> Self:
        if self.columns and self.template:
            raise ValueError("give either columns or template, not both")
        return self


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
