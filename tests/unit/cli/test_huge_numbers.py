"""Numbers that nobody means are refused; none ends a command as a bug."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import distinct_rows, write_rows

HUGE = "9" * 60


@pytest.fixture(autouse=True)
def rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", distinct_rows(40))
    write_job(tmp_path, "")


def write_job(folder: Path, more: str) -> None:
    text = "name: d\nmodel: m\nbackend: openai\ndata: {train: train.jsonl}\n"
    (folder / "unitune.yaml").write_text(text + more)


@pytest.mark.parametrize("command", ["plan", "cost"])
@pytest.mark.parametrize(
    "more",
    [
        f"usage: {{requests_month: {HUGE}}}",
        f"usage: {{answer_tokens: {HUGE}}}",
        f"usage: {{preparation_usd: {HUGE}}}",
        f"usage: {{reasoning_factor: {HUGE}}}",
        f"usage: {{runs: {HUGE}}}",
        f"prices: [{{training: {HUGE}}}]",
        f"prices: [{{hosting: {HUGE}/hour}}]",
        f"budget: {{usd: {HUGE}}}",
        "budget: {usd: '1e99999999'}",
        (
            "usage: {requests_month: 10000000000, prompted_tokens: 10000000, "
            "reasoning_factor: 100, months: 120}\n"
            "prices: [{training: 1000000000, input: 1000000000, output: 1000000000}]"
        ),
    ],
)
def test_in_a_job(unitune: Command, tmp_path: Path, command: str, more: str) -> None:
    write_job(tmp_path, more)
    told = unitune(command, "unitune.yaml")
    assert told.code in (0, 2, 6), told.err


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("plan", ["--price", f"training={HUGE}"]),
        ("cost", ["--price", f"hosting={HUGE}/hour"]),
        ("plan", ["--budget", HUGE]),
        ("cost", ["--requests", HUGE]),
    ],
)
def test_on_the_command_line(unitune: Command, command: str, options: list[str]) -> None:
    assert unitune(command, "unitune.yaml", *options).code in (0, 2, 6)
