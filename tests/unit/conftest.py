from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
from support.command_line import Command, Outcome, forget_consoles

from unitune import main as cli
from unitune.run.handle import Run
from unitune.security import redaction


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_HELD", set[str]())


@pytest.fixture(autouse=True)
def _quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake trains a step per poll, and half a second between them is only waited."""
    for method in (Run.watch, Run.wait):
        monkeypatch.setattr(inspect.unwrap(method), "__defaults__", (0.01,))


@pytest.fixture
def unitune(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command in an empty folder, through the real entry point."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Outcome:
        forget_consoles()
        monkeypatch.setattr(sys, "argv", ["unitune", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), printed.out, printed.err)

    return run
