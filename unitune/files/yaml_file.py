"""Read YAML files safely, with errors that name the line, and write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from unitune.errors import JobError
from unitune.files.filesystem import content_of
from unitune.files.validation import Location, by_location, dotted_keys, part_at, sentence

MAX_BYTES = 1 << 24  # our longest file, an offer, has 12 KB
Model = TypeVar("Model", bound=BaseModel)


if TYPE_CHECKING:
    SafeLoader = yaml.SafeLoader
else:
    # Ten times as fast; the other one reads a kilobyte of nested brackets per second.
    SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Document:
    """Parsed YAML mapping with the line of each value and the text of each scalar."""

    path: Path
    value: dict[str, Any]
    lines: dict[Location, int]
    written: dict[Location, str]


def load(path: Path, model: type[Model], *, kind: str = "a job", floats: bool = True) -> Model:
    """Read a YAML file into a model; JobError names file, line and what is allowed."""
    document = read(path, kind=kind, floats=floats)
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        raise JobError(explain(document, error, model)) from error


def read(path: Path, *, kind: str = "a job", floats: bool = True) -> Document:
    """Parse a YAML file whose top level is a mapping.

    Args:
        path: The file.
        kind: Name of its content, for messages.
        floats: Whether to read a number with a point as a float, not as text.

    Raises:
        JobError: It cannot be read, is not YAML, repeats a key, or is not a mapping.
    """
    try:
        text = content_of(path, MAX_BYTES).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise JobError(
            f"{path}: no such file. To write an example, run `unitune init`; for a job with your "
            "rows, run `unitune init --data FILE`."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise JobError(f"{path}: cannot be read as UTF-8 text: {why}.") from error
    try:
        _refuse_references(path, kind, yaml.parse(text, Loader=SafeLoader))
        node = yaml.compose(text, Loader=SafeLoader)
        value = parse(text, floats=floats)
    except yaml.MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        advice = " Indent with spaces." if "tab" in str(error.problem) else ""
        raise JobError(f"{where}: not valid YAML: {error.problem}.{advice}") from error
    except JobError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as an invalid date
        raise JobError(f"{path}: not valid YAML: {error}.") from error
    if not isinstance(node, yaml.MappingNode):
        raise JobError(f"{path}:1: {kind} must be a mapping of keys to values.")
    document = Document(path, value, {}, {})
    _note_lines(document, node, ())
    return document


def _refuse_references(path: Path, kind: str, events: Iterable[yaml.Event]) -> None:
    """Raise JobError for tags, and for aliases, which can expand beyond all memory."""
    for event in events:
        reference = ""
        if isinstance(event, yaml.AliasEvent):
            reference = f"*{event.anchor} is a YAML alias"
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
            reference = f"{event.tag.replace('tag:yaml.org,2002:', '!!')} is a YAML tag"
        if reference and event.start_mark is not None:
            line = event.start_mark.line + 1
            raise JobError(f"{path}:{line}: {reference}, which {kind} must not have. Write it out.")


class _AsWritten(SafeLoader):
    """Loader that reads a number with a point as text, so that no price becomes a float."""


_AsWritten.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str, *, floats: bool = False) -> Any:
    """Return the value of a YAML text, by default with ``3.30`` as text; raises yaml.YAMLError."""
    return yaml.load(text, Loader=SafeLoader if floats else _AsWritten)  # noqa: S506 - both are


def parse_foreign(text: str) -> Any:
    """Return the value of a YAML text of others; raises yaml.YAMLError also for aliases."""
    for event in yaml.parse(text, Loader=SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"*{event.anchor} is a YAML alias. Write it out")
    return parse(text, floats=True)


def _note_lines(document: Document, node: yaml.Node, at: Location) -> None:
    lines = document.lines
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        document.written[at] = node.value
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _note_lines(document, item, (*at, index))
    if isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            key_path = (*at, str(key.value))
            if key_path in lines:
                raise JobError(
                    f"{document.path}:{key.start_mark.line + 1}: {key.value!r} is a duplicate of "
                    f"line {lines[key_path]}. Keep one."
                )
            lines[key_path] = key.start_mark.line + 1
            _note_lines(document, item, key_path)


class _Dumper(yaml.SafeDumper):
    """Dumper that writes text so that it reads back unchanged."""


def _quote_odd_line_breaks(_: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Escape line breaks that YAML folds into spaces in a plain scalar."""
    style = '"' if any(mark in text for mark in "\r\x85\u2028\u2029") else None
    return yaml.ScalarNode("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quote_odd_line_breaks)


def dump(content: dict[str, Any], *, flow: bool = False) -> str:
    """Return a mapping of plain values as YAML; `flow` puts innermost collections in brackets."""
    style = None if flow else False
    return yaml.dump(
        content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=style
    )


def problem(document: Document, at: Location, text: str) -> str:
    """Return an error about a value: ``file:line: key text``."""
    nearest_line = next(
        (at[:end] for end in range(len(at), 0, -1) if at[:end] in document.lines), ()
    )
    dotted = ".".join(map(str, at)) or "the file"
    if not dotted.isprintable():  # a line break could imitate our messages
        dotted = repr(dotted)
    return f"{document.path}:{document.lines.get(nearest_line, 1)}: {dotted} {text}"


def explain(
    document: Document,
    error: ValidationError,
    model: type[BaseModel],
    synonyms: Mapping[str, str] = {},
) -> str:
    """Return pydantic's errors as sentences, one per line.

    `synonyms` has dotted keys by the keys of other tools.
    """
    elsewhere = {**dotted_keys(model), **synonyms}
    lines: list[str] = []
    for at, details in by_location(document.value, error).items():
        text = _unquoted_text(document, at, details) or sentence(
            details, part_at(model, document.value, at), elsewhere
        )
        lines.append(problem(document, at, text))
    return "\n".join(lines)


def _unquoted_text(document: Document, at: Location, details: list[ErrorDetails]) -> str | None:
    """Return a sentence if YAML read another type than the required text."""
    given, written = details[0]["input"], document.written.get(at)
    if written is None or all(detail["type"] != "string_type" for detail in details):
        return None
    if isinstance(given, bool):
        what = f"{str(given).lower()} (it has yes, no, on and off for true and false)"
    elif isinstance(given, int | float):
        what = "a number"
    elif isinstance(given, date):
        what = "a date"
    else:
        return None
    return f'is {written}, which YAML reads as {what}. For a text, quote it: "{written}".'


def check_regex(pattern: str) -> None:
    """Raise ValueError if a pattern is not a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"not a regular expression: {error}") from error
