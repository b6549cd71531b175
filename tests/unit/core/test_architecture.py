"""Data flows one way: no module of the core imports one to its right at its top level."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import unitune

ROOT = Path(unitune.__file__).parent
ORDER = [
    ["errors", "findings"],
    ["security"],
    ["workspace"],
    ["job"],
    ["data"],
    ["models"],
    ["backends"],
    ["cost"],
    ["ledger"],
    ["planning"],
    ["runs"],
    ["evaluate"],
    ["tco"],
    ["importers"],
    ["pytest_plugin"],
    ["report"],
    ["testing"],
    ["cli"],
    ["__init__", "__main__"],
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
FOREIGN = ["unitune_local", "unitune_providers", "torch", "transformers", "peft", "openai", "boto3"]


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports when it is imported."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module == "unitune":
            yield from (f"unitune.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(ROOT.rglob("*.py"))


def test_every_module_has_its_place_in_the_order() -> None:
    assert set() == {room(file) for file in FILES} - set(RANK)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_imports_one_to_its_right(file: Path) -> None:
    modules = [module for module in imported(file) if module.startswith("unitune.")]
    own = [module.split(".")[1] for module in modules if module != "unitune.__version__"]

    assert [] == [module for module in own if RANK[module] > RANK[room(file)]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_core_knows_no_vendor_and_no_torch(file: Path) -> None:
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]

    assert [] == [module for module in modules if module.split(".")[0] in FOREIGN]
