"""Exit 70 is for bugs alone: nothing that is thrown at the command line is one.

Each command is given odd words, files, rows and ledgers, and vendors answer oddly; see `kinds`. Few
examples, and the same each time; `benchmarks/hostile_inputs.py` throws thousands, others each time.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st

pytest.importorskip("moto", reason="needs the extra `dev`")
pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")
pytest.importorskip("torch", reason="needs the extra `local`")

from hostile import command_lines
from hostile.attempts import Attempt, Tally, new_folder
from hostile.kinds import KINDS
from hostile.sandbox import Sandbox
from hostile.throwing import throw
from hostile.values import TEXTS

from unitune.cli import job_files
from unitune.errors import JobError
from unitune.files import yaml_file

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
EXAMPLES = settings.default.max_examples // 8
EXAMPLES_A_COMMAND = settings.default.max_examples // 10
COMMANDS = dict(command_lines.commands())
UNITUNE = str(Path(sys.executable).with_name("unitune"))


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """Load what commands load once, such as torch: a busy machine takes a minute for it."""
    with new_folder() as folder:
        Sandbox(folder).run(("doctor",))


@pytest.mark.hypothesis
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_kind_is_a_bug(kind: str) -> None:
    throw(kind, KINDS[kind](), EXAMPLES, Tally())


@pytest.mark.hypothesis
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_word_on_the_command_line_is_a_bug(words: tuple[str, ...]) -> None:
    tally = Tally()
    # A quickstart trains as well.
    examples = EXAMPLES_A_COMMAND // (2 if words == ("quickstart",) else 1)
    throw("command lines", command_lines.command_lines(only=words), examples, tally)
    assert tally.codes


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_parameter_has_a_meaning(words: tuple[str, ...]) -> None:
    names = {one.name for one in command_lines.taken(COMMANDS[words])}
    unknown = names - command_lines.MEANINGS.keys()
    assert not unknown, f"add {unknown} to hostile.command_lines.MEANINGS"


@pytest.mark.parametrize("text", TEXTS[:24:3])
def test_a_process_of_its_own_ends_as_the_command_does_here(text: str) -> None:
    line = ("runs", "show", f"x{command_lines.argument(text)}")
    with new_folder() as folder:
        here = Sandbox(folder).run(line)
        there = subprocess.run([UNITUNE, *line], cwd=folder, capture_output=True, check=False)
    assert (here.code, there.returncode) == (2, 2)
    assert b"Traceback" not in there.stderr


def spread() -> st.SearchStrategy[Attempt]:
    """Return examples of a few kinds, as they are thrown above."""
    return st.one_of(KINDS["job files"](), KINDS["rows"](), KINDS["budget files"]())


def faults_found(examples: int = 60) -> set[str]:
    tally = Tally()
    with pytest.raises(AssertionError):
        throw("planted", spread(), examples, tally)
    return {fault for _, fault in tally.faults}


def test_a_planted_bug_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function deep inside fails for a class of input: values that a file may not hold."""
    problem = yaml_file.problem

    def faulty(document: yaml_file.Document, at: Any, text: str) -> str:
        return {}[text] if text.startswith("is ") else problem(document, at, text)

    monkeypatch.setattr(yaml_file, "problem", faulty)
    assert any(fault.startswith("exit 70: KeyError in unitune/") for fault in faults_found())


def test_a_planted_escape_sequence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(findings: Any) -> None:
        sys.stdout.write("\x1b[31m" if findings else "")

    monkeypatch.setattr(job_files, "exit_for_errors", faulty)
    assert any("control character" in fault for fault in faults_found())


def test_a_planted_file_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def faulty(*_: Any) -> Any:
        (tmp_path / "elsewhere").write_text("x")
        raise JobError("no")

    monkeypatch.setattr(yaml_file, "read", faulty)
    assert any("writes outside its folder" in fault for fault in faults_found())
    assert not (tmp_path / "elsewhere").exists()


def test_a_planted_verdict_without_a_gate_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobError, "exit_code", 1)
    assert "exit 1 without a gate" in faults_found()
