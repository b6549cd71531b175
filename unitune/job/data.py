"""Define the data section of a job: its files and how they are read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias, TypeVar

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
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=60)]


class Source(Spec):
    """One source of a mixture of training rows."""

    files: Files
    """File, list of files, pattern, or data set."""
    name: Name | None = None
    """Name in plans and reports; by default that of the first file."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Weight of the source in the mixture; its share is the weight divided by the sum of all. No
    row is repeated: the source that is too small for its share limits the others."""
    max_rows: Annotated[int, Field(ge=1)] | None = None
    """Most rows to train on."""

    @property
    def label(self) -> str:
        """The name."""
        return self.name or Path(_listed(self.files)[0]).name.partition(".")[0]


FilePurpose: TypeAlias = Literal["train", "test", "validation"]


class Data(Spec):
    """Files for training and evaluation."""

    train: Files | Annotated[tuple[Source, ...], Field(min_length=1)] | None = None
    """Training file, a list of files, a pattern such as ``train-*.parquet``, a data set such as
    ``hf://owner/name``, or a list of sources with weights. A job without training files can only be
    compared."""
    test: (
        Files
        | Annotated[float, Field(gt=0, lt=1)]
        | Annotated[dict[Name, Files], Field(min_length=1)]
        | None
    ) = None
    """Test cases: files, or the share of train to reserve for the test, which is the same on every
    machine and with every seed; or several test sets by name, which are also evaluated one by
    one. Required by `compare`."""
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
        names = [source.label for source in self.mixture]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"two sources of train are named {repeated[0]!r}; name them differently"
            )
        if len({source.weight is None for source in self.mixture}) > 1:
            raise ValueError("give every source of train a weight, or none")
        return self

    @property
    def mixture(self) -> tuple[Source, ...]:
        """The sources of the training rows; empty if they are only files."""
        listed = self.train if isinstance(self.train, tuple) else ()
        return tuple(each for each in listed if isinstance(each, Source))

    @property
    def named_tests(self) -> bool:
        """Whether each test case is of a named set or source."""
        is_part = isinstance(self.test, float) and bool(self.mixture)
        return is_part or isinstance(self.test, dict)

    def files(self, purpose: FilePurpose) -> tuple[str, ...]:
        """Return the files named for a purpose, without shares."""
        return tuple(file for _, file in self.named_files(purpose))

    def named_files(self, purpose: FilePurpose) -> Iterator[tuple[str | None, str]]:
        """Yield the files of a purpose, each with the name of its source or test set, if any."""
        given: Files | tuple[Source, ...] | dict[Name, Files] | float | None
        given = getattr(self, purpose)
        if given is None or isinstance(given, float | int):
            return
        if isinstance(given, dict):
            for name, files in given.items():
                yield from ((name, file) for file in _listed(files))
            return
        for each in _listed(given):
            if isinstance(each, Source):
                yield from ((each.label, file) for file in _listed(each.files))
            else:
                yield None, each


_T = TypeVar("_T")


def _listed(files: str | tuple[_T, ...]) -> tuple[str | _T, ...]:
    return (files,) if isinstance(files, str) else files
