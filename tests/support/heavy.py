"""Find the tests that `.ci/check` leaves out, by what they, their fixtures and helpers use."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

HERE = Path(__file__).parents[1]
FOLDERS = ("browser", "crash", "hostile", "stranger")
"""Folders of tests in a browser, of killed processes, and of odd input for every command."""
QUICK_CONTRACTS = ("test_fake_contract.py", "test_openai_contract.py")
"""Of the same checks for one vendor after another, those that are not heavy."""
FIXTURES = {
    *("default_model", "quickstart", "tiny_default", "tiny_model", "base_of"),  # models of torch
    "_warm_workers",  # trainings in processes of their own
    "runner",  # the action's steps in shells
}
"""Fixtures whose tests are heavy."""
USED = {
    "crash.postgres.new_database",
    "crash.postgres.the_server",
    "unitune_local.remote.training.run",
    "unitune_local.training.loop.train",
    "unitune_local.training.profile_run.calibrate",
    "unitune_local.training.run.run_training",
    "signal.SIGKILL",
}
SERVER = "postgresql"
"""Parameter with which `a_store` takes a PostgreSQL server; without it, it needs none."""


def is_heavy(item: pytest.Item) -> bool:
    """Return whether a test trains, kills processes, or needs a browser or a PostgreSQL server."""
    if all_heavy(item.path) or item.get_closest_marker("heavy"):
        return True
    if not isinstance(item, pytest.Function):
        return False
    if not FIXTURES.isdisjoint(item.fixturenames):
        return True
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    if SERVER in [each for each in parameters if isinstance(each, str)]:
        return True
    fixtures = (each for some in item._fixtureinfo.name2fixturedefs.values() for each in some)
    return not USED.isdisjoint(used([item.function, *(each.func for each in fixtures)]))


def all_heavy(path: Path) -> bool:
    """Return whether every test of a file is heavy, which its path alone tells."""
    folder = path.relative_to(HERE).parts[0]
    return folder in FOLDERS or (
        folder == "contract" and path.name.startswith("test_") and path.name not in QUICK_CONTRACTS
    )


def used(functions: list[Any]) -> set[str]:
    """Return the names of all that some functions use, also through helpers in `tests/`."""
    seen, names = set[FunctionType](), set[str]()
    todo = [inspect.unwrap(each) for each in functions]
    while todo:
        function = todo.pop()
        if isinstance(function, FunctionType) and function not in seen:
            seen.add(function)
            own, helpers = _named(function)
            names |= own
            todo += helpers
    return names


@cache
def _named(function: FunctionType) -> tuple[frozenset[str], tuple[Any, ...]]:
    """Return the names of what a function's code refers to, and the helpers among it."""
    codes, found = [function.__code__], list[Any]()
    for code in codes:
        codes += [each for each in code.co_consts if isinstance(each, CodeType)]
        own = [function.__globals__[each] for each in code.co_names if each in function.__globals__]
        parts = [vars(each) for each in own if inspect.ismodule(each)]
        found += own + [part[each] for part in parts for each in code.co_names if each in part]
    names = {name for each in found if (name := _name(each))}
    helpers = (
        each for each in found if _is_helper(each) and _name(each) != "crash.postgres.a_store"
    )
    return frozenset(names), tuple(helpers)


def _name(found: Any) -> str:
    if inspect.isroutine(found):
        return f"{found.__module__}.{found.__qualname__}"
    return f"signal.{found.name}" if type(found).__module__ == "signal" else ""


def _is_helper(found: Any) -> bool:
    code = getattr(inspect.unwrap(found), "__code__", None) if callable(found) else None
    return isinstance(code, CodeType) and Path(code.co_filename).is_relative_to(HERE)
