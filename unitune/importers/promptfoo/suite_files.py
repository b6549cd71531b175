"""Read files of a promptfoo suite that hold the value of an assertion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import JsonValue

from unitune.errors import DataError
from unitune.importers.foreign import plain_json, text_file
from unitune.workspace.yaml_file import parse_foreign


class Unreadable(ValueError):
    """A file of the suite cannot be read as a value."""


@dataclass(frozen=True, slots=True)
class SuiteFiles:
    """Files of a suite in its folder."""

    folder: Path

    def content(self, reference: str) -> JsonValue:
        """Return the JSON, YAML or text of a ``file://`` path; raises `Unreadable`."""
        path = reference.removeprefix("file://")
        text = self._text(path)
        try:
            if path.endswith((".json", ".yaml", ".yml")):
                return plain_json(parse_foreign(text))
        except (yaml.YAMLError, ValueError, RecursionError) as failure:
            raise Unreadable(f"{path} cannot be read: {failure}") from failure
        if not path.endswith(".txt"):
            raise Unreadable(f"{path} is not text, JSON or YAML")
        return text.strip()

    def _text(self, path: str) -> str:
        place, folder = (self.folder / path).resolve(), self.folder.resolve()
        within = place.relative_to(folder).parts if place.is_relative_to(folder) else (".",)
        if any(part.startswith(".") for part in within):
            raise Unreadable(f"{path} is outside the suite's folder or hidden")
        try:
            return text_file(place, "a file of the suite")
        except DataError as failure:
            raise Unreadable(
                f"its file {path} is not next to the results; export them there"
            ) from failure
