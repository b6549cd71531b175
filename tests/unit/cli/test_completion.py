"""Shells complete commands, run ids and backends, and what goes wrong meanwhile is silent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import distinct_rows, write_job, write_rows

Complete = Callable[..., list[str]]


@pytest.fixture
def completed(unitune: Command, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """Complete a command line as bash has it, whose last word is being typed."""

    def complete(*words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", " ".join(("unitune", *words)))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with monkeypatch.context() as shell:
            shell.setenv("_UNITUNE_COMPLETE", "complete_bash")
            ended = unitune()
        assert ended.err == ""
        return ended.out.split()

    return complete


def test_commands_and_backends_are_completed(completed: Complete) -> None:
    assert completed("check") == ["check"]
    assert completed("models", "check") == ["checkpoints"]
    assert completed("plan", "--backend", "to") == ["together"]
    assert completed("backends", "opena") == ["openai"]
    assert "fake" not in completed("plan", "--backend", "")


def test_ids_of_runs_are_completed(unitune: Command, completed: Complete, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", distinct_rows(60))
    write_job(tmp_path)
    run = unitune("run", "--detach").out.strip()
    for command in (("runs", "show"), ("runs", "delete"), ("compare", "--run")):
        assert completed(*command, run[:3]) == [run]


def test_a_ledger_that_cannot_be_read_completes_nothing(
    completed: Complete, tmp_path: Path
) -> None:
    (tmp_path / ".unitune").write_text("no folder")
    assert completed("runs", "show", "r") == []


@pytest.mark.parametrize(
    ("shell", "shown"),
    [("zsh", '"together":"LoRA and full'), ("fish", "together\tLoRA and full")],
)
def test_zsh_and_fish_show_what_a_backend_is(
    unitune: Command, monkeypatch: pytest.MonkeyPatch, shell: str, shown: str
) -> None:
    monkeypatch.setenv("_UNITUNE_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "unitune backends to")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert shown in unitune().out
