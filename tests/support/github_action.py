"""Runs the steps of the GitHub action as a runner of GitHub would, on files of its own."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / ".github" / "actions" / "unitune"
STEPS = yaml.safe_load((ACTION / "action.yml").read_text("utf-8"))


@dataclass
class Runner:
    """A workspace, and what the steps before have put out."""

    folder: Path
    inputs: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict[str, str])
    base: str = ""
    """Commit of the base branch."""
    plan_code: str = ""
    """Exit code that the step Plan has put out."""

    def __post_init__(self) -> None:
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            (self.folder / name).touch()

    def values(self) -> dict[str, str]:
        defaults = {name: str(one.get("default", "")) for name, one in STEPS["inputs"].items()}
        return {
            **{f"inputs.{name}": value for name, value in {**defaults, **self.inputs}.items()},
            **{f"steps.compare.outputs.{name}": value for name, value in self.outputs().items()},
            "github.action_path": str(ACTION),
            "github.token": "ghs_token",
            "github.event.pull_request.number": "7",
            "github.event.pull_request.base.sha": self.base,
            "steps.plan.outputs.exit-code": self.plan_code,
        }

    def outputs(self) -> dict[str, str]:
        lines = (self.folder / "GITHUB_OUTPUT").read_text("utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def summary(self) -> str:
        return (self.folder / "GITHUB_STEP_SUMMARY").read_text("utf-8")

    def filled(self, text: str) -> str:
        known = self.values()
        whole = re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: known[found[1]], text)
        return whole if whole == text else self.filled(whole)

    def step(self, name: str) -> subprocess.CompletedProcess[str]:
        step = next(one for one in STEPS["runs"]["steps"] if one.get("name") == name)
        script = self.folder / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        return subprocess.run(
            # The command line that `shell: bash` stands for, by GitHub's workflow syntax.
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            cwd=self.folder / self.filled(step.get("working-directory", ".")),
            env={
                **os.environ,
                "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                "RUNNER_TEMP": str(self.folder),
                "GITHUB_OUTPUT": str(self.folder / "GITHUB_OUTPUT"),
                "GITHUB_STEP_SUMMARY": str(self.folder / "GITHUB_STEP_SUMMARY"),
                **{key: self.filled(value) for key, value in step.get("env", {}).items()},
                **self.environment,
            },
            capture_output=True,
            text=True,
            check=False,
        )


def command(folder: Path, name: str, script: str) -> None:
    file = folder / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    file.chmod(0o755)
