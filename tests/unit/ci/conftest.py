"""Workspaces that the action is run in."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import warm
from support.github_action import Runner, command
from support.job_files import write_rows


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """A workspace with a job of two recorded contenders, and the commands of this environment."""
    python = shlex.quote(sys.executable)
    command(tmp_path, "unitune", f'exec {python} {shlex.quote(warm.__file__)} -m unitune "$@"')
    command(tmp_path, "python", f'exec {python} "$@"')
    evals = tmp_path / "work" / "evals"
    evals.mkdir(parents=True)
    cases = [f"case-{number}" for number in range(40)]
    questions = [
        {"messages": [{"role": "user", "content": case}], "id": case, "expected": "yes"}
        for case in cases
    ]
    answers = {"old": ["no", "yes"], "new": ["yes", "yes"]}
    write_rows(evals / "test.jsonl", questions)
    for name, texts in answers.items():
        lines = [{"case": case, "answer": texts[at % 2]} for at, case in enumerate(cases)]
        write_rows(evals / f"{name}.jsonl", lines)
    (evals / "unitune.yaml").write_text(
        "name: demo\nmodel: m\nbackend: fake\ndata: {test: test.jsonl}\nevaluate:\n"
        "  contenders:\n"
        "  - {type: recorded, name: old, answers: old.jsonl}\n"
        "  - {type: recorded, name: new, role: candidate, answers: new.jsonl}\n"
        "  gate: {mode: improve}\n"
    )
    return Runner(tmp_path, {"file": "evals/unitune.yaml", "working-directory": "work"})


@pytest.fixture
def priced(runner: Runner) -> Runner:
    """A workspace under version control, with a training that costs money."""
    evals = runner.folder / "work" / "evals"
    rows = [{"prompt": f"question {number}?", "completion": "yes"} for number in range(60)]
    write_rows(evals / "train.jsonl", rows)
    (evals / "prices.yaml").write_text("prices: [{backend: openai, training: 30.00}]\n")
    (evals / "unitune.yaml").write_text(
        "name: demo\nmodel: gpt-4o-mini\nbackend: openai\ndata: {train: train.jsonl}\n"
        "tuning: {epochs: 2}\n"
    )
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", str(evals.parent)]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "base"]):
        subprocess.run([*git, *words], check=True)
    found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    runner.base = found.stdout.strip()
    return runner
