"""The files of a job, and how the rows of a table become messages."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from unitune.security.spec import Spec


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
    def _one_mapping(self) -> Self:
        if self.columns and self.template:
            raise ValueError("give either columns or template, not both")
        return self
