"""Data flows one way, and files and functions are short.

No module imports one to its right, late imports included.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "unitune": ROOT / "unitune",
    "unitune_local": ROOT / "local" / "unitune_local",
    "unitune_providers": ROOT / "providers" / "unitune_providers",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
BACKENDS = PROJECT["entry-points"]["unitune.backends"]
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 80


class Import(NamedTuple):
    importer: str
    imported: str
    at_the_top: bool

    @property
    def pair(self) -> tuple[str, str]:
        return self.importer, self.imported


@cache
def modules() -> dict[str, Path]:
    """Each module of the three packages, by its full name."""
    return {
        ".".join((package, *file.relative_to(root).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): file
        for package, root in PACKAGES.items()
        for file in sorted(root.rglob("*.py"))
    }


@cache
def imports() -> list[Import]:
    """Every import of every module, those inside functions too; of our own, the module meant."""
    return [
        Import(module, name, node in tree.body)
        for module, file in modules().items()
        for tree in [ast.parse(file.read_text(encoding="utf-8"))]
        for node in ast.walk(tree)
        for name in imported(node)
    ]


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0 and node.module, "imports are absolute"  # noqa: PT018 - one rule
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in modules() else node.module


@cache
def order(package: str = "unitune") -> dict[str, int]:
    """The rank of each folder of a package, as CONTRIBUTING.md gives it."""
    first = {"unitune": "errors, findings", "unitune_local": "machine, options"}[package]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^{first}.* < .+(?:\n.+)*", text, re.MULTILINE)
    groups = line.replace("\n", " ").split(" < ")
    return {name: rank for rank, group in enumerate(groups) for name in group.split(", ")}


def folder(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def inside(package: str) -> list[Import]:
    return [one for one in imports() if one.importer.split(".")[0] == package]


ORDERED = ("unitune", "unitune_local")


@pytest.mark.parametrize("package", ORDERED)
def test_every_module_has_its_place_in_the_order(package: str) -> None:
    folders = {folder(module) for module in modules() if module.split(".")[0] == package}
    assert set(order(package)) == folders - ({"__init__"} if package == "unitune_local" else set())


@pytest.mark.parametrize("package", ORDERED)
def test_no_module_imports_one_to_its_right_not_even_inside_a_function(package: str) -> None:
    rank = order(package)
    against = {
        one.pair
        for one in inside(package)
        if one.imported.startswith(f"{package}.")
        and rank[folder(one.imported)] > rank[folder(one.importer)]
    }
    assert against == set()


def test_no_import_closes_a_circle_not_even_inside_a_function() -> None:
    # What `import unitune` offers is loaded when it is asked for, and the version needs nothing.
    graph = {module: set[str]() for module in modules() if module != "unitune"}
    for one in imports():
        if {one.importer, one.imported} <= set(graph):
            graph[one.importer].add(one.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imported in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("package", ["unitune_local", "unitune_providers"])
def test_backends_know_the_core_up_to_costs_and_not_each_other(package: str) -> None:
    others = [one for one in inside(package) if one.imported.startswith("unitune")]
    assert [
        one
        for one in others
        if one.imported.split(".")[0] != package
        and order().get(folder(one.imported), -1) > order()["cost"]
        and one.imported != "unitune"
    ] == []
    assert {"unitune", package} >= {one.imported.split(".")[0] for one in others}


@cache
def optional(*extras: str) -> set[str]:
    """Packages that only these extras install, as they are imported."""
    needed = {canonicalize_name(Requirement(one).name) for one in PROJECT["dependencies"]}
    wanted = {
        canonicalize_name(Requirement(one).name) for extra in extras for one in EXTRAS[extra]
    } - needed
    installed = packages_distributions()
    names = {
        name
        for name, owners in installed.items()
        if any(canonicalize_name(owner) in wanted for owner in owners)
    }
    # One that is not installed here goes by its own name.
    present = {canonicalize_name(owner) for owners in installed.values() for owner in owners}
    return names | {name.replace("-", "_") for name in wanted - present}


def test_the_core_knows_no_vendor_and_no_torch() -> None:
    foreign = {"unitune_local", "unitune_providers"} | optional(*(EXTRAS.keys() & BACKENDS.keys()))
    foreign -= optional("hub")  # which the core pushes models with
    assert foreign >= {"torch", "transformers", "peft", "boto3"}
    assert [one for one in inside("unitune") if one.imported.split(".")[0] in foreign] == []


def test_the_core_imports_what_is_optional_inside_functions_alone() -> None:
    extras = optional(*(EXTRAS.keys() - {"dev"}))
    assert extras >= {"sacrebleu", "rapidfuzz", "jsonschema", "psycopg", "pyarrow", "datasets"}
    assert [
        one for one in inside("unitune") if one.at_the_top and one.imported.split(".")[0] in extras
    ] == []


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_files_and_functions_are_short(package: Path) -> None:
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert text.count("\n") <= MOST_LINES, file
        for each in ast.walk(ast.parse(text)):
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.end_lineno:
                lines = each.end_lineno - each.lineno + 1
                assert lines <= MOST_LINES_OF_A_FUNCTION, f"{file}: {each.name} has {lines} lines"
