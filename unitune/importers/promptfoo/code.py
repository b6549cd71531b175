"""Code of a suite, collected into the file ``assertions.py`` that is written beside the job."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import yaml
from pydantic import JsonValue

from unitune.errors import DataError
from unitune.importers.foreign import plain_json, text_file
from unitune.scorers.functions import PythonFunction
from unitune.workspace.yaml_file import parse_foreign

FILE = "assertions.py"
HEAD = '''"""Code of a suite of promptfoo's, written by `unitune import`; change it as you like."""

from pathlib import Path

from unitune.importers.promptfoo.functions import *

HERE = Path(__file__).parent

'''
RUNTIMES = {"javascript": "node", "python": "", "ruby": "ruby"}
"""Programs that run code, by its language; Python runs in this process."""
LANGUAGES = {
    **dict.fromkeys((".js", ".cjs", ".mjs", ".ts", ".cts", ".mts"), "javascript"),
    ".py": "python",
    ".rb": "ruby",
}
"""Languages of files, by how they end."""
COPIES = "suite"
"""Folder for copies of files, which keep their places to one another there."""
IMPORTED = re.compile(
    r"""(?:\bfrom|\bimport|\brequire(?:_relative)?)\s*\(?\s*['"]([^'"]+)['"]"""
    r"""|^[ \t]*(?:from|import)[ \t]+([\w.]+)""",
    re.MULTILINE,
)
"""What code imports: by a path in JavaScript and Ruby, by a name in Python."""
NOT_THERE = re.compile(
    r"\bcontext\??(?:\.|\[['\"]|\.get\(['\"])"
    r"(?P<key>logProbs|metadata|provider|providerResponse|trace)\b"
    r"(?P<default>['\"]\s*,\s*(?:['\"]|None\b))?"
)
"""What promptfoo hands to code and no row holds; Python may name a default in its place."""
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
        defaults: Keys of promptfoo's context in whose place code has a default, by the code.
    """

    folder: Path
    calls: dict[str, str] = field(default_factory=dict[str, str])
    copies: dict[str, str] = field(default_factory=dict[str, str])
    defaults: dict[str, str] = field(default_factory=dict[str, str])

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
            NoCode: Nothing here runs it, its file cannot be had, or it reads what no row holds.
        """
        path, _, name = value.removeprefix("file://").partition(":")
        in_file = value.startswith("file://")
        language = LANGUAGES.get(PurePosixPath(path).suffix, "") if in_file else kind
        if not language:
            raise NoCode(f"{path} is neither JavaScript, Python nor Ruby")
        code = self._text(path) if in_file else value
        for missing in NOT_THERE.finditer(code):
            if not missing["default"]:
                what = f"{missing['key']} of promptfoo's context"
                raise NoCode(f"it reads {what}, which no row holds")
            self.defaults.setdefault(f"{kind} {value}", missing["key"])
        for needed in (language, *(["javascript"] if options.get("transform") else [])):
            _require(needed)
        if in_file and path.endswith("ts"):
            _require_typescript(path)
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
        _require("javascript")
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
                return plain_json(parse_foreign(text))
        except (yaml.YAMLError, ValueError, RecursionError) as failure:
            raise NoCode(f"{path} cannot be read: {failure}") from failure
        if not path.endswith(".txt"):
            raise NoCode(f"{path} is no text, JSON or YAML")
        return text.strip()

    def _copied(self, path: str) -> str:
        """Return where the copy of a file goes; the files that it imports go along."""
        within = (self.folder / path).resolve().relative_to(self.folder.resolve())
        copy = f"{COPIES}/{within.as_posix()}"
        if copy in self.copies:
            return copy
        self.copies[copy] = text = self._text(path)
        for quoted, dotted in IMPORTED.findall(text):
            name = quoted or dotted.strip(".").replace(".", "/")
            for end in ("", *LANGUAGES, ".json"):
                near = PurePosixPath(path).parent / f"{name}{end}"
                if (self.folder / near).is_file():
                    self._copied(str(near))
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
        for name, other in self.calls.items():
            if other == call:
                return name
        name = " ".join(words.split())[:SHOWN]
        if name in self.calls:
            name = f"{name} ({len(self.calls) + 1})"
        self.calls[name] = call
        return name


def _require(language: str) -> None:
    program = RUNTIMES[language]
    if program and shutil.which(program) is None:
        name = {"javascript": "JavaScript", "ruby": "Ruby"}[language]
        raise NoCode(f"it is {name}, and there is no `{program}` to run it")


def _require_typescript(path: str) -> None:
    asked = ["node", "-p", "process.features.typescript"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    if done.stdout.strip() not in ("strip", "transform"):
        raise NoCode(f"{path} is TypeScript, which `node` reads from version 22.18 on")
