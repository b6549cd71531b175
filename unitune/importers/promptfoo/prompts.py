"""Prompts of promptfoo as messages: the one that cases are written with, filled in for a test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import yaml
from pydantic import JsonValue, ValidationError

from unitune.data.example import MESSAGES, Message
from unitune.findings import clip
from unitune.importers.foreign import plain_data, text_file
from unitune.importers.promptfoo.scorers import Test
from unitune.importers.promptfoo.templates import render
from unitune.importers.promptfoo.tests import refusal
from unitune.importers.promptfoo.yaml12 import yaml_value

Config: TypeAlias = Mapping[str, JsonValue]
TEXTS = (".txt", ".json", ".md", ".j2")
FILES = (*TEXTS, ".jsonl", ".csv", ".yaml", ".yml", ".py", ".js", ".ts", ".mjs", ".cjs", ".sh")
DELIMITER = "---"
"""On a line of its own it ends one prompt of a text file and begins the next."""


class NotText(ValueError):
    """A prompt that is no list of messages with texts."""


def prompts_of(config: Config, path: Path) -> list[str]:
    """Return the templates of a config's prompts.

    Raises:
        DataError: A file cannot be read, or a prompt is made by code.
    """
    listed = config.get("prompts", "{{prompt}}")
    entries = listed if isinstance(listed, list) else [listed]
    found = [text for entry in entries for text in _texts(entry, path)]
    if not found:
        raise refusal(path, "it has no prompt")
    return found


def _texts(entry: JsonValue, config: Path) -> Iterator[str]:
    if isinstance(entry, dict):
        entry = entry.get("raw") or entry.get("id")
    if not isinstance(entry, str):
        raise refusal(config, f"a prompt is {clip(entry)}")
    name = entry.removeprefix("file://")
    is_file = entry.startswith("file://") or ("\n" not in name and name.endswith(FILES))
    if not is_file:
        yield entry
        return
    file = config.parent / name
    if file.suffix not in TEXTS or "*" in name:
        raise refusal(config, f"a prompt comes from {entry!r}")
    text = text_file(file, "a prompt")
    yield from _parts(text) if file.suffix == ".txt" else [text]


def _parts(text: str) -> Iterator[str]:
    part: list[str] = []
    for line in [*text.replace("\r\n", "\n").split("\n"), DELIMITER]:
        if line.strip() != DELIMITER:
            part.append(line)
        elif whole := "\n".join(part).strip():
            yield whole
            part = []


def asked(prompt: str, test: Test) -> tuple[Message, ...]:
    """Return what a test asks with a prompt.

    Raises:
        NotPlain: The template is more than plain.
        NotText: It is no list of messages with texts.
    """
    around = [str(test.options.get(key) or "") for key in ("prefix", "suffix")]
    template = f"{around[0]}{prompt}{around[1]}"
    try:
        parsed = plain_data(json.loads(template))
    except (ValueError, RecursionError):
        return messages_of(render(template, test.values))
    return messages_of(json.dumps(_filled(parsed, test.values)))


def _filled(value: JsonValue, values: Mapping[str, JsonValue]) -> JsonValue:
    """Return JSON with every text in it filled in, so that quotes in values break nothing."""
    match value:
        case str():
            return render(value, values)
        case list():
            return [_filled(item, values) for item in value]
        case dict():
            return {key: _filled(item, values) for key, item in value.items()}
        case _:
            return value


def messages_of(rendered: str) -> tuple[Message, ...]:
    """Return a prompt that is filled in as messages: a list of them, or one of the user.

    Raises:
        NotText: A message holds more than text, or the text is empty.
    """
    parsed = _list(rendered)
    if parsed is None:
        if not rendered.strip():
            raise NotText("the prompt is empty")
        return (Message(role="user", content=rendered),)
    try:
        return MESSAGES.validate_python(parsed)
    except ValidationError as failure:
        first = failure.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:3])
        raise NotText(f"the prompt's message {where} is no text: {first['msg']}") from failure


def _list(rendered: str) -> list[JsonValue] | None:
    """Return a prompt's list of messages; None when it is text."""
    try:
        value = (
            yaml_value(rendered)
            if rendered.strip().startswith("- role:")
            else plain_data(json.loads(rendered))
        )
    except (ValueError, RecursionError, yaml.YAMLError):
        return None
    if not isinstance(value, list):
        return None
    chat = value and all(isinstance(one, dict) and "role" in one for one in value)
    return value if chat else None
