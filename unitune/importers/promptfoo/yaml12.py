"""YAML as promptfoo reads it: version 1.2, where ``yes`` and dates are texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import yaml
from pydantic import JsonValue

from unitune.errors import DataError
from unitune.importers.foreign import plain_data, text_file


class Yaml12(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2.

    Source: YAML 1.2.2, section 10.3.2; js-yaml, which promptfoo 0.121.20 uses, follows it.
    """


Yaml12.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0].rpartition(":")[2] in ("null", "merge")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
CORE = {
    "bool": ("tTfF", r"true|True|TRUE|false|False|FALSE"),
    "int": ("-+0123456789", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": (
        "-+.0123456789",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf)|\.NaN",
    ),
}
"""Beginnings and form of plain values that are no text."""
for _tag, (_first, _form) in CORE.items():
    for _letter in _first:
        Yaml12.yaml_implicit_resolvers.setdefault(_letter, []).append(
            (f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_form})$"))
        )


def _integer(_: yaml.SafeLoader, node: yaml.Node) -> int:
    text = str(node.value)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text.removeprefix("0o").removeprefix("0x"), base)


Yaml12.add_constructor("tag:yaml.org,2002:int", _integer)


def read_yaml(path: Path, what: str) -> JsonValue:
    """Return a YAML file's value.

    Args:
        path: The file.
        what: What it should hold, for the message.

    Raises:
        DataError: It cannot be read, or is not YAML.
    """
    return parse_yaml(text_file(path, what), path)


def parse_yaml(text: str, path: Path) -> JsonValue:
    """Return YAML text's value; `path` is for messages."""
    try:
        return yaml_value(text)
    except yaml.MarkedYAMLError as failure:
        line = failure.problem_mark.line + 1 if failure.problem_mark else 1
        raise DataError(f"{path}:{line} is not YAML: {failure.problem}.") from failure
    except (yaml.YAMLError, ValueError) as failure:
        raise DataError(f"{path} is not YAML that promptfoo could read: {failure}.") from failure


def yaml_value(text: str) -> JsonValue:
    """Return YAML text's value, as JSON has it.

    Raises:
        yaml.YAMLError: It is not YAML.
        ValueError: It is, and is nested too deeply, too much once aliases are written out, or holds
            what JSON does not know.
    """
    try:
        return plain_data(yaml.load(text, Loader=Yaml12))  # noqa: S506 - a safe loader
    except RecursionError as failure:
        raise ValueError("it is nested too deeply") from failure


def lines_of(text: str, key: str) -> list[int]:
    """Return the lines on which the entries of a top-level list stand."""
    node = yaml.compose(text, Loader=Yaml12)
    if not isinstance(node, yaml.MappingNode):
        return []
    pairs = cast("list[tuple[yaml.Node, yaml.Node]]", node.value)
    listed = [value for name, value in pairs if name.value == key]
    if not listed or not isinstance(listed[0], yaml.SequenceNode):
        return []
    items = cast("list[yaml.Node]", listed[0].value)
    return [item.start_mark.line + 1 for item in items]
