"""A package that knows unitune only from outside is found, and keeps the contract."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

USE = """
import asyncio
from unitune import Job, Request, launch, plan
from unitune.backends.registry import backend, backend_names
from unitune.data.example import Message
from unitune.testing.vendor_setup import ServerBehavior
from unitune.testing.vendor_setup import serve_vendor
from check_contract import TestStrangerBackend

assert "stranger" in backend_names()
job = Job(name="demo", model="base-words", backend="stranger",
          data={"train": "rows.jsonl", "validation": "rows.jsonl"}, evaluate={"leaks": "allow"})
behavior = ServerBehavior(replies={"Why was I charged twice?": "billing"})
with serve_vendor(TestStrangerBackend.setup, behavior) as served:
    assert not plan(job).errors, plan(job).errors
    run = launch(job).wait(0.01)
    host = backend("stranger")
    ref = host.deploy(run.tuned_model, "demo", {})
    chat = host.chat(host.deployment_status(ref, run.tuned_model).model)
    question = Message(role="user", content="Why was I charged twice?")

    async def answer():
        async with chat:
            return await chat.reply(Request(messages=(question,)))

    print(run.state, asyncio.run(answer()).text)
"""
ROWS = {"Why was I charged twice?": "billing", "The app does not open.": "defect"}
LACKS = (
    "does not answer in batches",
    "does not count tokens",
    "does not promise it",
    "cannot swap models",
)


def run_python(
    arguments: list[str], folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "chosen", ["not killed_at_any_step", pytest.param("killed_at_any_step", marks=pytest.mark.slow)]
)
def test_a_strangers_backend_keeps_the_contract(
    installed: dict[str, str], tmp_path: Path, chosen: str
) -> None:
    shutil.copy(HERE / "check_contract.py", tmp_path)
    options = ["-p", "no:cacheprovider", "-W", "error", "-q", "-rs", "-k", chosen]
    done = run_python(["-m", "pytest", *options, "check_contract.py"], tmp_path, installed)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert [line for line in skipped if not any(lack in line for lack in LACKS)] == []


def test_a_strangers_backend_is_planned_and_launched_like_ours(
    installed: dict[str, str], tmp_path: Path
) -> None:
    shutil.copy(HERE / "check_contract.py", tmp_path)
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for q, a in ROWS.items()
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    done = run_python(["-c", USE], tmp_path, installed)
    assert (done.stdout.strip(), done.stderr) == ("succeeded billing", "")


def test_without_the_package_its_name_is_unknown(tmp_path: Path) -> None:
    code = "from unitune.backends.registry import backend; backend('stranger')"
    done = run_python(["-c", code], tmp_path)
    assert done.returncode == 1
    assert "There is no backend 'stranger'" in done.stderr
