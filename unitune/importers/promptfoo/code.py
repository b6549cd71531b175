"""Code of a suite, collected into the file ``assertions.py`` that is written beside the job."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import cast

import yaml
from pydantic import JsonValue

from unitune.errors import DataError
from unitune.importers.foreign import plain_json, text_file
from unitune.scorers.functions import PythonFunction

FILE = "assertions.py"
HEAD = '''"""Code of a suite of promptfoo's, written by `unitune import`; change it as you like."""

from pathlib import Path

from unitune.importers.promptfoo.functions import *

HERE = Path(__file__).parent

'''
JAVASCRIPT = (".js", ".cjs", ".mjs")
SHOWN = 60
"""Characters of code that name a function in a report."""
_PREFIX = "function_"


class NoCode(ValueError):
    """Code that cannot run here."""


@dataclass(frozen=True, slots=True)
class CodeFile:
    """The functions of a suite.

    Args:
        folder: What paths in the suite are relative to.
        calls: What makes each function, by what it is called in rows and reports.
        copies: Files of the suite that functions need, by their path beside the job.
    """

    folder: Path
    calls: dict[str, str] = field(default_factory=dict[str, str])
    copies: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def scorers(self) -> tuple[PythonFunction, ...]:
        """The functions as scorers of the job."""
        return tuple(
            PythonFunction(name=name, function=f"{FILE}:{_PREFIX}{number}")
            for number, name in enumerate(self.calls, start=1)
        )

    @property
    def files(self) -> dict[str, str]:
        """Texts to write beside the job, by their paths."""
        if not self.calls:
            return {}
        calls = enumerate(self.calls.values(), start=1)
        lines = (f"{_PREFIX}{number} = {call}\n" for number, call in calls)
        return {FILE: HEAD + "".join(lines), **self.copies}

    def assertion(self, kind: str, value: str, options: Mapping[str, JsonValue]) -> str:
        """Return the name of a function for an assertion in code.

        Raises:
            NoCode: It is JavaScript and there is no node, or its file cannot be had.
        """
        path, _, name = value.removeprefix("file://").partition(":")
        in_file = value.startswith("file://")
        language = "javascript" if in_file and path.endswith(JAVASCRIPT) else kind
        if in_file and not path.endswith((*JAVASCRIPT, ".py")):
            raise NoCode(f"{path} is neither Python nor JavaScript that node reads")
        if in_file and path.endswith(".py"):
            language = "python"
        if "javascript" in (language, "javascript" if options.get("transform") else ""):
            _require_node()
        first = repr(value)
        if in_file:
            first = f"HERE / {self._copied(path)!r}" + (f", {name!r}" if name else "")
            language += "_file"
        given = "".join(f", {key}={option!r}" for key, option in options.items())
        return self._name(f"{kind} {value}", f"{language}({first}{given})")

    def transform(self, code: str) -> str:
        """Return the name of a function that changes an answer by JavaScript.

        Raises:
            NoCode: There is no node.
        """
        _require_node()
        return self._name(f"transform {code}", f"transform({code!r})")

    def content(self, reference: str) -> JsonValue:
        """Return what stands in a file that is a value: JSON or YAML, or a text.

        Raises:
            NoCode: It cannot be had.
        """
        path = reference.removeprefix("file://")
        text = self._text(path)
        try:
            if path.endswith((".json", ".yaml", ".yml")):
                return plain_json(cast("object", yaml.safe_load(text)))
        except (yaml.YAMLError, ValueError, RecursionError) as failure:
            raise NoCode(f"{path} cannot be read: {failure}") from failure
        if not path.endswith(".txt"):
            raise NoCode(f"{path} is no text, JSON or YAML")
        return text.strip()

    def _copied(self, path: str) -> str:
        copy = f"suite-{'-'.join(PurePosixPath(path).parts)}"
        self.copies[copy] = self._text(path)
        return copy

    def _text(self, path: str) -> str:
        place, folder = (self.folder / path).resolve(), self.folder.resolve()
        within = place.relative_to(folder).parts if place.is_relative_to(folder) else (".",)
        if any(part.startswith(".") for part in within):
            raise NoCode(f"{path} stands outside of the suite's folder, or is hidden")
        try:
            return text_file(place, "a file of the suite")
        except DataError as failure:
            raise NoCode(
                f"its file {path} is not beside the results; export them there"
            ) from failure

    def _name(self, words: str, call: str) -> str:
        """Return what a function is called, which is made where there is none like it."""
        for name, other in self.calls.items():
            if other == call:
                return name
        name = " ".join(words.split())[:SHOWN]
        if name in self.calls:
            name = f"{name} ({len(self.calls) + 1})"
        self.calls[name] = call
        return name


def _require_node() -> None:
    if shutil.which("node") is None:
        raise NoCode("it is JavaScript, and there is no `node` to run it; install Node.js")
