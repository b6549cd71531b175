"""A package that knows unitune only from outside is installed, found, and keeps the contract."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

USE = """
import asyncio
from unitune import Job, Request, launch, plan
from unitune.data.example import Message
from unitune.backends.registry import backend, backend_names

assert "stranger" in backend_names()
job = Job(name="demo", model="words", backend="stranger",
          data={"train": "rows.jsonl", "validation": "rows.jsonl"})
assert not plan(job).errors, plan(job).errors
run = launch(job).wait(0.01)
chat = backend("stranger").chat(run.model)
question = Message(role="user", content="I was charged two times!")
print(run.state, asyncio.run(chat.reply(Request(messages=(question,)))).text)
"""
ROWS = {"Why was I charged twice?": "billing", "The app does not open.": "defect"}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a Python that has the stranger's package, installed by pip."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(HERE, source, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    options = ["--no-build-isolation", "--disable-pip-version-check", "--target", str(target)]
    done = subprocess.run(
        [*command, *options, str(source)], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stderr
    return {**os.environ, "PYTHONPATH": str(target)}


def test_a_strangers_backend_keeps_the_contract(installed: dict[str, str], tmp_path: Path) -> None:
    shutil.copy(HERE / "check_contract.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "error", "-q", "-rs"]
    done = subprocess.run(
        [*command, "check_contract.py"],
        cwd=tmp_path,
        env=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout
    assert " passed" in done.stdout
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    lacks = (
        "does not answer in batches",
        "does not count tokens",
        "needs no deployments",
        "hands over no server",  # it has no vendor: its jobs are folders
    )
    assert [] == [line for line in skipped if not any(lack in line for lack in lacks)]


def test_a_strangers_backend_is_planned_and_launched_like_ours(
    installed: dict[str, str], tmp_path: Path
) -> None:
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in ROWS.items()
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=tmp_path,
        env=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("succeeded billing", "") == (done.stdout.strip(), done.stderr)


def test_without_the_package_its_name_is_unknown(tmp_path: Path) -> None:
    code = "from unitune.backends.registry import backend; backend('stranger')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert 1 == done.returncode
    assert "There is no backend 'stranger'" in done.stderr
