"""The files that a job learns from and is judged on, and how they are read."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, JsonValue, model_validator

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


Files: TypeAlias = str | Annotated[tuple[str, ...], Field(min_length=1)]
FilePurpose: TypeAlias = Literal["train", "test", "validation"]


class Data(Spec):
    """The files that a job learns from and is judged on."""

    train: Files | None = None
    """Training file, a list of them, a pattern such as ``train-*.parquet``, or a data set such as
    ``hf://owner/name``; a job without one is only compared, never trained."""
    test: Files | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Cases to be judged on: files, or the share of train that is kept from training for it, the
    same rows on every machine and with every seed. `compare` needs them."""
    validation: Files | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Files, or the share to hold out of the training rows that the test leaves; by default a
    seeded tenth of them, at least 30 rows."""
    format: str | None = None
    """What the rows are, where their keys do not show it: alpaca, anthropic, chat, pair,
    preference, sharegpt, trl, or a format of `unitune convert --list`."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What separates the columns of tables; by default it is seen from header and rows."""
    columns: Columns | None = None
    """For tables: which columns hold the messages."""
    template: Template | None = None
    """For tables: how messages are made from the columns; instead of `columns`."""
    labels: tuple[str, ...] = ()
    """Labels, each in one spelling. An answer that differs from a label only in case or white
    space is read as that label; any other answer stays as it is."""
    reasoning: Literal["train", "mask", "drop"] = "train"
    """What to do with the `reasoning_content` of answers. mask: the model sees it and is not
    trained on it. drop: leave it out of all rows."""
    chat_template: str | None = None
    """For a backend that trains here: the chat template in place of the model's own, a file in
    Jinja or ``hermes``, which has tools. The tuned model and its base answer with it, too."""
    chat_template_kwargs: dict[str, JsonValue] = {}  # noqa: RUF012 - pydantic copies it
    """Variables of the chat template, such as ``{enable_thinking: false}``, in training and in
    each request of a comparison."""
    unusable: Literal["refuse", "drop"] = "refuse"
    """What to do about rows that cannot be used, such as one without an answer. drop: leave them
    out and count them."""
    secrets: Literal["refuse", "warn", "allow"] = "refuse"
    """What to do about rows that hold what looks like a key, a token or a password. allow: do not
    look."""
    personal_data: Literal["warn", "redact", "refuse", "allow"] = "warn"
    """What to do about e-mail addresses, phone numbers, bank accounts, card numbers and IP
    addresses in rows. redact: train and judge on a copy with ``<EMAIL_1>`` in their place; the map
    between the two stays on this machine. allow: do not look."""
    phone_region: Annotated[str, Field(pattern="^[A-Z]{2}$")] = "US"
    """Country, by its ISO code, whose phone numbers are known without +."""

    @model_validator(mode="after")
    def _is_one_mapping_and_a_share_of_something(self) -> Self:
        given = [name for name in ("columns", "template", "format") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"give either {' or '.join(given)}, not both")
        if isinstance(self.test, float) and self.train is None:
            raise ValueError(f"test is {self.test:g}, a share of train, and there is no train")
        return self

    def files(self, purpose: FilePurpose) -> tuple[str, ...]:
        """Return the files that are named for something; none where it is a share of others."""
        named: Files | float | None = getattr(self, purpose)
        if isinstance(named, str):
            return (named,)
        return named if isinstance(named, tuple) else ()
