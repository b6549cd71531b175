"""Define the data section of a job: its files and how they are read."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, JsonValue, model_validator

from unitune.documents import Spec


class Columns(Spec):
    """Table columns that become messages."""

    user: str
    """Column with the user message."""
    assistant: str
    """Column with the expected answer."""
    system: str | None = None
    """Column with the system prompt, if any."""


class Template(Spec):
    """Jinja2 templates over the columns of a row, one per message."""

    user: str
    """Template of the user message, e.g. ``Subject: {{ subject }}\\n\\n{{ body }}``."""
    assistant: str
    """Template of the expected answer."""
    system: str | None = None
    """Template of the system prompt."""


Files: TypeAlias = str | Annotated[tuple[str, ...], Field(min_length=1)]
FilePurpose: TypeAlias = Literal["train", "test", "validation"]


class Data(Spec):
    """Files for training and evaluation."""

    train: Files | None = None
    """Training file, a list of files, a pattern such as ``train-*.parquet``, or a data set such as
    ``hf://owner/name``. A job without training files can only be compared."""
    test: Files | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Test cases: files, or the share of train to reserve for the test, which is the same on every
    machine and with every seed. Required by `compare`."""
    validation: Files | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validation files, or the share to hold out of the training rows that remain after the test;
    by default a seeded tenth, at least 30 rows."""
    format: str | None = None
    """Format of the rows, if their keys do not show it: alpaca, anthropic, chat, pair, preference,
    sharegpt, trl, or a format listed by `unitune data convert --list`."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Delimiter of table columns; by default it is detected."""
    columns: Columns | None = None
    """Table columns with the messages."""
    template: Template | None = None
    """Templates that build messages from table columns; alternative to `columns`."""
    labels: tuple[str, ...] = ()
    """Labels in their correct spelling. An answer that differs from a label only in case or white
    space is read as that label."""
    reasoning: Literal["train", "mask", "drop"] = "train"
    """Treatment of the `reasoning_content` of answers. mask: the model sees it but is not trained
    on it. drop: remove it from all rows."""
    chat_template: str | None = None
    """Chat template for local training that replaces the model's own: a Jinja file, or ``hermes``,
    which supports tools. The tuned model and its base answer with it too."""
    chat_template_kwargs: dict[str, JsonValue] = {}  # noqa: RUF012 - pydantic copies it
    """Variables of the chat template, such as ``{enable_thinking: false}``, for training and every
    request of a comparison."""
    unusable: Literal["refuse", "drop"] = "refuse"
    """Treatment of unusable rows, such as rows without an answer. drop: leave them out and count
    them."""
    secrets: Literal["refuse", "warn", "allow"] = "refuse"
    """Treatment of rows with apparent keys, tokens or passwords. allow: do not search."""
    personal_data: Literal["warn", "redact", "refuse", "allow"] = "warn"
    """Treatment of e-mail addresses, phone numbers, bank accounts, card numbers and IP addresses in
    rows. redact: use a copy with placeholders such as ``<EMAIL_1>``; the map stays on this machine.
    allow: do not search."""
    phone_region: Annotated[str, Field(pattern="^[A-Z]{2}$")] = "US"
    """Country (ISO code) whose phone numbers need no +."""

    @model_validator(mode="after")
    def _is_one_mapping_and_a_share_of_something(self) -> Self:
        given = [name for name in ("columns", "template", "format") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"give either {' or '.join(given)}, not both")
        if isinstance(self.test, float) and self.train is None:
            raise ValueError(f"test is {self.test:g}, a share of train, but train is not set")
        return self

    def files(self, purpose: FilePurpose) -> tuple[str, ...]:
        """Return the files named for a purpose, without shares."""
        named: Files | float | None = getattr(self, purpose)
        if isinstance(named, str):
            return (named,)
        return named if isinstance(named, tuple) else ()
