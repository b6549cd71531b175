"""The package's surface: complete, lazy, fast to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from inspect import isfunction, ismodule
from pathlib import Path
from types import ModuleType

import pytest

import unitune
from unitune import client, scorers

HEAVY = [
    "torch",
    "transformers",
    "scipy",
    "numpy",
    "rich",
    "sqlalchemy",
    "alembic",
    "typer",
    "jinja2",
    "tiktoken",
]


NAMESPACES = {"errors", "registry", "scorers", "types"}
MAX_NAMES = 60


@pytest.mark.parametrize("package", [unitune, unitune.registry, unitune.types])
def test_every_public_name_is_listed_sorted_and_there(package: ModuleType) -> None:
    assert sorted(package.__all__) == package.__all__
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_the_root_has_few_names() -> None:
    assert len(unitune.__all__) <= MAX_NAMES
    assert {name for name in unitune.__all__ if ismodule(getattr(unitune, name))} == NAMESPACES


def test_every_scorer_of_a_job_is_in_its_namespace() -> None:
    tree = ast.parse(Path(f"{scorers.__file__}i").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    declared = {name.name for node in imports for name in node.names}
    specs = {"ENTRIES", "RewardSpec", "ScorerSpec"}
    assert {*scorers.__all__} == declared | specs
    assert {each.__name__ for each in scorers.ENTRIES.values()} <= declared


def test_a_client_declares_each_function() -> None:
    """Type checkers and editors read the declarations, which run-time lookup does not use."""
    tree = ast.parse(Path(client.__file__).read_text(encoding="utf-8"))
    declared = {
        node.name: {
            ast.unparse(each.value)
            for each in ast.walk(node)
            if isinstance(each, ast.Assign) and "staticmethod" in ast.unparse(each.value)
        }
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    for name, package in (("Client", unitune), ("_Registry", unitune.registry)):
        functions = client.functions_of(package)
        path = package.__name__
        assert declared[name] == {f"staticmethod({path}.{each})" for each in functions}
        assert {each for each in package.__all__ if isfunction(getattr(package, each))} == {
            *functions
        }


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = unitune.nothing  # pyright: ignore[reportAttributeAccessIssue]


def loaded_after(code: str, names: list[str] = HEAVY) -> list[str]:
    script = f"import sys\n{code}\nprint(*(name for name in {names} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_importing_unitune_loads_nothing_heavy() -> None:
    assert loaded_after("import unitune") == []


def test_a_job_is_read_without_anything_heavy() -> None:
    assert loaded_after("from unitune import Job, Example, Request") == []


def test_a_command_line_is_there_before_data_models_and_http() -> None:
    """Help and completion wait for what each command needs by itself."""
    code = "import unitune.main\nunitune.main.command_line()"
    assert loaded_after(code, ["pydantic", "http.client", "yaml", "numpy", "sqlalchemy"]) == []


def test_a_list_of_runs_is_printed_without_loading_jobs() -> None:
    code = """
import contextlib, io
from unitune.cli.runs import runs
with contextlib.redirect_stdout(io.StringIO()):
    runs()
"""
    slow = ["unitune.job.job", "unitune.scorers", "unitune.planning", "yaml", "numpy"]
    assert loaded_after(code, slow) == []


def test_offers_are_read_without_their_backend() -> None:
    assert loaded_after("from unitune.backends import registry\nregistry.offer('local')") == []


def test_no_module_takes_the_place_of_a_public_function() -> None:
    """A submodule's import sets its name on the package, over a function of the same name."""
    code = (
        "import unitune, unitune.run.run, unitune.registry.verification\n"
        f"names = {{*unitune.__all__}} - {NAMESPACES}\n"
        "assert all(callable(getattr(unitune, name)) for name in names)\n"
        "names = unitune.registry.__all__\n"
        "assert all(callable(getattr(unitune.registry, name)) for name in names)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
