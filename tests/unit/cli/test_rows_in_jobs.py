"""What rows say beside their messages, from the command line: trained, left out, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Command
from support.job_files import chat_row, write_rows

JOB = """
name: demo
model:
  openai: gpt-4o-mini
  azure: gpt-4o-mini
  together: Qwen/Qwen3-8B
  vertex: gemini-3.5-flash
  nebius: Qwen/Qwen3-14B
backend: openai
data: {train: train.jsonl, validation: 0.2}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "unitune.yaml").write_text(JOB)
    return tmp_path / "unitune.yaml"


def train(job: Path, **more: Any) -> None:
    rows = (chat_row(f"question {at}, of some length", f"answer {at}", **more) for at in range(600))
    write_rows(job.parent / "train.jsonl", rows)


@pytest.mark.parametrize("backend", ["openai", "azure", "together", "vertex", "nebius"])
def test_own_keys_shut_no_vendor(unitune: Command, job: Path, backend: str) -> None:
    train(job, pmid=4711, language="cs")
    told = unitune("plan", str(job), "--backend", backend, "--json")
    found = json.loads(told.out)
    assert [each for each in found["findings"] if each["severity"] == "error"] == []
    (note,) = [each for each in found["findings"] if each["code"] == "own-keys"]
    assert "'pmid' (600 rows), 'language' (600 rows)" in note["message"]


def test_check_says_which_keys_are_not_trained_on(unitune: Command, job: Path) -> None:
    train(job, pmid=4711)
    told = unitune("check", str(job))
    assert told.code == 0
    assert "'pmid' (600 rows)" in told.out


def test_graders_keep_the_keys_that_they_read(unitune: Command, job: Path) -> None:
    job.write_text(JOB.replace("data:", "method: rft\ndata:"))
    train(job, pmid=4711)
    assert "neither trained on" not in unitune("check", str(job)).out


def test_a_system_prompt_beside_the_messages_is_shown_as_it_is_sent(
    unitune: Command, job: Path
) -> None:
    train(job, system="You are a pirate.")
    told = unitune("plan", str(job), "--show-tokens")
    assert told.code == 0, told.err
    assert "You are a pirate." in told.out.replace("·", "")


def test_a_rated_answer_is_not_shown_as_one_to_learn(unitune: Command, job: Path) -> None:
    row = {"prompt": "Ahoy?", "completion": "Hello.", "label": False}
    write_rows(job.parent / "train.jsonl", [row])
    for command in (["check"], ["plan"], ["plan", "--show-tokens"]):
        told = unitune(command[0], str(job), *command[1:])
        assert told.code == 2
        assert "train.jsonl:1" in told.out + told.err
        assert "rates its answer" in " ".join((told.out + told.err).split())


def test_refused_rows_are_told_once_and_no_line_is_an_emoji(unitune: Command, job: Path) -> None:
    """rich reads `:100:` as one."""
    job.write_text(JOB.replace("backend: openai", "backend: vertex"))
    train(job)
    file = job.parent / "train.jsonl"
    named = [json.loads(line) for line in file.read_text().splitlines()]
    for row in named[99:249]:
        row["messages"][0]["name"] = "Ann"
    for number, row in enumerate(named[300:320]):
        row["messages"][0]["name"] = f"Bob{number}"
    write_rows(file, named)
    refused = unitune("run", str(job), "--budget", "9999", "--allow-unpriced")
    assert refused.code == 2
    assert "train.jsonl:100: vertex-sft cannot represent this row" in refused.err
    assert "more rows: lines " in " ".join(refused.err.split())
    assert "more; `unitune plan` on the job shows them." in " ".join(refused.err.split())
    assert refused.err.count("'Ann'") == 1
    assert len(refused.err.splitlines()) < 40
    planned = unitune("plan", str(job))
    assert planned.out.count("'Ann'") == 1
    assert "train.jsonl:100" in planned.out
