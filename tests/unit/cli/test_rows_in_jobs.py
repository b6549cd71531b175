"""What rows say beside their messages, from the command line: trained, left out, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Command

JOB = """
name: demo
model:
  openai: gpt-4o-mini
  azure: gpt-4o-mini
  together: Qwen/Qwen3-8B
  vertex: gemini-2.5-flash
  nebius: Qwen/Qwen3-14B
backend: openai
data: {train: train.jsonl, validation: 0.2}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "unitune.yaml").write_text(JOB)
    return tmp_path / "unitune.yaml"


def train(job: Path, **beside: Any) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"question {number}, of some length"},
                {"role": "assistant", "content": f"answer {number}"},
            ],
            **beside,
        }
        for number in range(600)
    ]
    (job.parent / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("backend", ["openai", "azure", "together", "vertex", "nebius"])
def test_own_keys_shut_no_vendor(unitune: Command, job: Path, backend: str) -> None:
    train(job, pmid=4711, language="cs")
    told = unitune("plan", str(job), "--backend", backend, "--json")
    found = json.loads(told.out)
    assert [] == [each for each in found["findings"] if each["severity"] == "error"]
    (note,) = [each for each in found["findings"] if each["code"] == "own-keys"]
    assert "'pmid' (600), 'language' (600)" in note["message"]


def test_check_says_which_keys_are_not_trained_on(unitune: Command, job: Path) -> None:
    train(job, pmid=4711)
    told = unitune("check", str(job))
    assert 0 == told.code
    assert "'pmid' (600)" in told.out


def test_graders_keep_the_keys_that_they_read(unitune: Command, job: Path) -> None:
    job.write_text(JOB.replace("data:", "method: rft\ndata:"))
    train(job, pmid=4711)
    assert "pmid" not in unitune("check", str(job)).out


def test_a_system_prompt_beside_the_messages_is_shown_as_it_is_sent(
    unitune: Command, job: Path
) -> None:
    train(job, system="You are a pirate.")
    told = unitune("plan", str(job), "--show-tokens")
    assert 0 == told.code, told.err
    assert "You are a pirate." in told.out.replace("·", "")


def test_a_rated_answer_is_not_shown_as_one_to_learn(unitune: Command, job: Path) -> None:
    row = {"prompt": "Ahoy?", "completion": "Hello.", "label": False}
    (job.parent / "train.jsonl").write_text(json.dumps(row) + "\n")
    for command in (["check"], ["plan"], ["plan", "--show-tokens"]):
        told = unitune(command[0], str(job), *command[1:])
        assert 2 == told.code
        assert "train.jsonl:1" in told.out + told.err
        assert "'label'" in told.out + told.err
