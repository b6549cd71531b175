"""The package's surface: complete, lazy, fast to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import unitune

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


def test_every_public_name_is_listed_sorted_and_there() -> None:
    assert sorted(unitune.__all__) == unitune.__all__
    for name in unitune.__all__:
        assert getattr(unitune, name) is not None


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
    names = "(getattr(unitune, name) for name in unitune.__all__)"
    code = f"import unitune, unitune.run.run\nassert all(callable(value) for value in {names})"

    subprocess.run([sys.executable, "-c", code], check=True)
