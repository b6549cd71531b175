"""What README says works: its commands and its Python are run, on the one quickstart's model."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from unitune.job.job import Evaluate, Job

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


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
    assert "support-triage" == Job.model_validate(yaml_with("name:")).name


def test_the_gate_in_readme_is_a_gate() -> None:
    assert Evaluate.model_validate(yaml_with("gate:")["evaluate"]).gate is not None


def test_every_relative_link_leads_to_a_file() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)

    assert [] == [target for target in targets if not (ROOT / target).exists()]


@pytest.mark.slow
def test_the_tour_runs_as_written(quickstart: Any, guarded_environment: dict[str, str]) -> None:
    """Both launches are the quickstart's own training again: refused as twins, exit code 2."""
    codes: dict[str, int] = {}
    for command in tour_commands():
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=quickstart.folder,
            env=guarded_environment,
            capture_output=True,
            check=False,
        )
        codes[" ".join(command)] = done.returncode

    launches = ("unitune run ", "unitune apply ")
    expected = {command: 2 if command.startswith(launches) else 0 for command in codes}
    assert expected == codes


@pytest.mark.slow
def test_the_python_in_readme_gives_the_quickstarts_verdict(
    quickstart: Any, guarded_environment: dict[str, str]
) -> None:
    """Its launch is refused as a twin, so the quickstart's run stands in for it."""
    code = blocks("python")[0].replace("launch(job).wait()", "")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=quickstart.folder,
        env=guarded_environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1].startswith(f"{quickstart.verdict['verdict']} ")
