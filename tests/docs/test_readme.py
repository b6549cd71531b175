"""What README says works: its commands and its Python are run.

A tiny model stands for the one that README names; tests/slow runs the quickstart, and the tutorial
walks the same way, with that one.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.warm import warm_run

from unitune.job.job import Evaluate, Job

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FEW_ROWS = slice(165, 195)
"""Of the tour's file, so that it takes seconds; tests/slow trains on all rows."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def yaml_with(beginning: str) -> Any:
    """Return the one YAML block of README that has a line with this beginning."""
    (found,) = [
        block
        for block in blocks("yaml")
        if any(line.strip().startswith(beginning) for line in block.splitlines())
    ]
    return yaml.safe_load(found)


def tour_commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("unitune ")]


def test_the_job_in_readme_is_a_job() -> None:
    assert Job.model_validate(yaml_with("name:")).name == "messages"


def test_the_gate_in_readme_is_a_gate() -> None:
    assert Evaluate.model_validate(yaml_with("gate:")["evaluate"]).gate is not None


def test_contributors_begin_with_three_extras_and_ci_installs_all() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    begun, everything = re.findall(r'pip install (?:-q )?-e "\.\[(.+)\]"', contributing)
    assert len(begun.split(",")) <= 3
    (installed,) = re.findall(r'-e "\.\[(.+)\]"', (ROOT / ".ci/run").read_text(encoding="utf-8"))
    assert set(everything.split(",")) == set(installed.split(","))


def test_the_first_screen_installs_from_the_index_or_a_clone() -> None:
    assert blocks("bash")[0] == 'pip install "unitune[local]" && unitune quickstart\n'
    assert '`pip install -e ".[local]" && unitune quickstart` in a clone' in README


@pytest.fixture(scope="module")
def environment(guarded_environment: dict[str, str], tiny_default: Path) -> dict[str, str]:
    return {**guarded_environment, "UNITUNE_CACHE": str(tiny_default)}


@pytest.fixture(scope="module")
def toured(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> tuple[Path, dict[str, int]]:
    """Run the tour on a few rows of its file, and return its folder and the exit codes."""
    folder = tmp_path_factory.mktemp("tour")
    messages = (ROOT / "docs" / "tutorial" / "messages.csv").read_text("utf-8")
    header, *rows = messages.splitlines(keepends=True)
    (folder / "messages.csv").write_text("".join([header, *rows[FEW_ROWS]]), "utf-8")
    codes: dict[str, int] = {}
    for command in tour_commands():
        done = warm_run([sys.executable, "-m", *command], cwd=folder, env=environment)
        print(command, done.stdout, done.stderr)  # noqa: T201 - shown where the test fails
        codes[" ".join(command)] = done.returncode
    return folder, codes


def test_the_tour_runs_as_written(toured: tuple[Path, dict[str, int]]) -> None:
    codes = toured[1]
    assert dict.fromkeys(codes, 0) == codes


def test_the_python_in_readme_gives_the_tours_verdict(
    toured: tuple[Path, dict[str, int]], environment: dict[str, str]
) -> None:
    """Its launch is refused as a twin of the tour's, whose run stands in for it."""
    code = blocks("python")[0].replace("launch(job).wait()", "")
    block = toured[0].parent / "block.py"
    block.write_text(code, encoding="utf-8")
    done = warm_run([sys.executable, str(block)], cwd=toured[0], env=environment)
    assert done.returncode == 0, done.stderr

    (file,) = toured[0].rglob("evaluation/verdict.json")
    verdict = json.loads(file.read_text("utf-8"))["verdict"]
    assert done.stdout.splitlines()[-1].startswith(f"{verdict} ")
