"""The scorer `python`: a function of the user's, from a file or an installed module.

    def polite(answer: str, case: unitune.Example) -> float | bool | dict

It is given the answer's text and the case, whose `answer` is what was expected and whose own keys
are in `model_extra`. It returns True or False, a number from 0 to 1, or a dictionary with such a
`score` and, where wished, a `reason`. What it raises, or returns otherwise, is recorded as the
failure of that one case. It runs in this process, and it should give the same score for the same
answer whenever it is asked, or rescoring means nothing.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import SupportsFloat, TypeAlias, cast

from unitune.data.example import Example
from unitune.errors import JobError
from unitune.evaluate.scorers.interface import (
    Attempt,
    Kind,
    Score,
    Scorer,
    Setting,
    Unscorable,
    guarded,
    share,
)
from unitune.job.scorers import PythonFunction

Function: TypeAlias = Callable[[str, Example], object]


def read_score(returned: object) -> Score:
    """Return what a user's function returned as a score.

    Raises:
        Unscorable: It is none.
    """
    reason = ""
    if isinstance(returned, Mapping):
        content = cast("Mapping[str, object]", returned)
        if "score" not in content:
            raise Unscorable(f"it returned {dict(content)!r}, which has no `score`"[:300])
        returned, reason = content["score"], str(content.get("reason") or "")
    try:
        value = float(cast("SupportsFloat", returned))
    except (TypeError, ValueError) as error:
        raise Unscorable(f"it returned {returned!r}, which is no number"[:300]) from error
    return Score(share(value, "it returned"), reason)


def load_function(spec: PythonFunction, folder: Path) -> Function:
    """Return a scorer's function.

    Raises:
        JobError: The module cannot be found or imported, or has no such function.
    """
    place, _, name = spec.function.rpartition(":")
    found = module_spec(place, folder)
    if found is None:
        raise _no_module(spec, folder)
    try:
        module = _from_file(found) if place.endswith(".py") else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise JobError(
            f"the scorer {spec.name!r} cannot import {place}: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise _no_function(spec)
    return cast("Function", function)


def check_function(spec: PythonFunction, folder: Path) -> None:
    """Refuse a function that is not there, by its file alone: none of its code runs.

    A module of a package is not looked for, because finding it would run the package.

    Raises:
        JobError: The file is missing or no Python, or has nothing of that name.
    """
    place, _, name = spec.function.rpartition(":")
    if not place.endswith(".py"):
        if module_spec(place.partition(".")[0], folder) is None:
            raise _no_module(spec, folder)
        return
    if not (folder / place).is_file():
        raise _no_module(spec, folder)
    try:
        tree = ast.parse((folder / place).read_bytes())
    except (SyntaxError, ValueError) as error:
        raise JobError(
            f"the scorer {spec.name!r} cannot import {place}: {type(error).__name__}: {error}"
        ) from error
    if name not in _names(tree) and "*" not in _names(tree):
        raise _no_function(spec)


def _names(tree: ast.Module) -> set[str]:
    """Return all names that a module may have; ``*`` where it imports what is not known here."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Import() | ast.ImportFrom():
                found.update(alias.asname or alias.name for alias in node.names)
            case ast.Name(ctx=ast.Store()):
                found.add(node.id)
            case _:
                pass
    return found


def _no_module(spec: PythonFunction, folder: Path) -> JobError:
    return JobError(
        f"the scorer {spec.name!r} names {spec.function.rpartition(':')[0]!r}, which is neither a "
        f"Python file in {folder} nor an installed module."
    )


def _no_function(spec: PythonFunction) -> JobError:
    place, _, name = spec.function.rpartition(":")
    return JobError(f"the scorer {spec.name!r}: {place} has no function {name!r}.")


def module_spec(place: str, folder: Path) -> ModuleSpec | None:
    """Return where a file or an installed module is loaded from; None where there is none."""
    if place.endswith(".py"):
        path = folder / place
        name = f"unitune_scorer_{path.stem}"
        return importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    try:
        return importlib.util.find_spec(place)
    except (ModuleNotFoundError, ValueError):
        return None


def _from_file(found: ModuleSpec) -> ModuleType:
    assert found.loader is not None, "a file has a loader"
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses look their module up there
    found.loader.exec_module(module)
    return module


def make_python(spec: PythonFunction, setting: Setting) -> Scorer:
    """Return a scorer that calls the user's function; what it leaves out is the user's to say."""
    function = load_function(spec, setting.folder)

    def judge(attempt: Attempt) -> Score:
        return read_score(guarded(lambda: function(attempt.text, attempt.case)))

    return Scorer(spec, Kind.GRADED, judge)
