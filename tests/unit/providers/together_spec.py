"""Together's published description, to hold both sides against.

Source: togethercomputer/openapi, openapi.yaml, 2026-04-28. It does not close its objects, so keys
are compared with the properties that it knows.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from unitune.testing.loopback import VendorRequest

DESCRIPTION = Path(__file__).parents[4] / "shared" / "specs" / "together-openapi.yaml"


def description() -> dict[str, Any]:
    """Return the description, as JSON Schema can read it."""
    with DESCRIPTION.open(encoding="utf-8") as file:
        return mended(yaml.load(file, yaml.CSafeLoader))


def mended(node: Any) -> Any:
    """Read what the description means where it does not say it in JSON Schema.

    `nullable` is OpenAPI 3.0's; `train_on_inputs` has ``type: boolean`` beside a choice whose
    other arm is a string; and the arguments of a cosine are those of a line too, as both are open.
    """
    if isinstance(node, list):
        return [mended(part) for part in node]
    if not isinstance(node, dict):
        return node
    node = {key: mended(part) for key, part in node.items()}
    if node.get("nullable") is True and isinstance(node.get("type"), str):
        node["type"] = [node["type"], "null"]
    if "oneOf" in node and node.get("type") == "boolean":
        del node["type"]
    if "lr_scheduler_args" in node:
        node["lr_scheduler_args"] = {"anyOf": node["lr_scheduler_args"]["oneOf"]}
    return node


def operation(described: dict[str, Any], asked: VendorRequest) -> dict[str, Any] | None:
    """Return the description's operation for a request; a path without brackets wins."""
    path = asked.path.removeprefix("/v1")
    for template in sorted(described["paths"], key=lambda text: text.count("{")):
        pattern = re.sub(r"\{[^}]+\}", "[^/]+", template)
        if re.fullmatch(pattern, path):
            found = described["paths"][template].get(asked.method.lower())
            if found:
                return found
    return None


def check(described: dict[str, Any], schema: Any, value: Any) -> None:
    whole = {**schema, "components": described["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


def unknown_keys(described: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """Return the keys that no branch of a schema knows, at any depth; it does not close objects."""
    if isinstance(value, list):
        items = schema.get("items", {})
        return [key for one in value for key in unknown_keys(described, items, one)]
    known = properties(described, schema)
    if not isinstance(value, dict) or not known:
        return []
    return [key for key in value if key not in known] + [
        f"{key}.{inner}"
        for key in value
        if key in known
        for inner in unknown_keys(described, known[key], value[key])
    ]


def properties(described: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of all branches of a schema."""
    if "$ref" in schema:
        schema = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    found = dict(schema.get("properties", {}))
    for branch in (one for kind in ("allOf", "anyOf", "oneOf") for one in schema.get(kind, ())):
        found |= properties(described, branch)
    return found
