"""`-o` replaces neither what a command reads nor a file of another kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import chat_row, write_rows

JOB = """
name: demo
model: gpt-4o-mini
backend: openai
data: {train: train.jsonl}
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    rows = (chat_row(f"question {number}", f"answer {number}") for number in range(400))
    write_rows(tmp_path / "train.jsonl", rows)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "unitune.yaml").write_text(JOB)
    return tmp_path / "unitune.yaml"


COMMANDS = {
    "plan": ["plan", "unitune.yaml"],
    "convert": ["data", "convert", "train.jsonl", "--to", "openai-chat"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "place", ["unitune.yaml", "./unitune.yaml", "train.jsonl", "notes.txt", "link", "."]
)
def test_nothing_else_is_written_over(
    unitune: Command, job: Path, command: str, place: str
) -> None:
    (job.parent / "link").symlink_to(job)
    (job.parent / "twin").hardlink_to(job)
    before = {file: file.read_bytes() for file in job.parent.iterdir() if file.is_file()}
    for output in (place, "twin"):
        told = unitune(*COMMANDS[command], "-o", output)
        assert told.code == 2
        assert Path(output).name in told.err
    assert before == {file: file.read_bytes() for file in job.parent.iterdir() if file.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_an_earlier_result_and_an_empty_file_are_replaced(
    unitune: Command, job: Path, command: str
) -> None:
    (job.parent / "out").touch()
    for _ in range(2):
        told = unitune(*COMMANDS[command], "-o", "out")
        assert told.code == 0, told.err
        assert (job.parent / "out").stat().st_size
        (job.parent / "out").write_bytes((job.parent / "out").read_bytes() + b"\n")
    assert unitune(*COMMANDS[command], "-o", "/dev/null").code == 0


def test_no_error_tells_to_save_a_plan_over_the_job(unitune: Command, job: Path) -> None:
    told = unitune("run", "--plan", str(job))
    assert told.code == 2
    assert f"`unitune plan {job} -o plan.json`" in " ".join(told.err.split())
    assert "-o unitune.yaml" not in told.err
