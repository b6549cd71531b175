"""Closed pipes, full disks and narrow encodings end no command with the code of a verdict."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import ran
from support.job_files import distinct_rows, recorded, write_job, write_rows

from unitune import main as cli
from unitune.cli.streams import CLOSED_PIPE

pytestmark = pytest.mark.heavy

UNITUNE = [sys.executable, "-m", "unitune"]
ENCODINGS = ["ascii", "latin-1", "cp1252", "utf-8"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a comparison of recorded answers, whose gate is met."""
    cases = [{"id": f"c{i}", "prompt": f"q{i}?", "completion": "Paris"} for i in range(30)]
    write_rows(tmp_path / "test.jsonl", cases)
    for name, right in (("a", 10), ("b …日", 30)):
        rows = [
            {"case": f"c{i}", "answer": "Paris" if i < right else "Rome"} for i in range(len(cases))
        ]
        write_rows(tmp_path / f"{name[0]}.jsonl", rows)
    contenders = [
        recorded("a", "baseline", "a.jsonl"),
        recorded("b …日", "candidate", "b.jsonl"),
    ]
    evaluate = {"contenders": contenders, "gate": {"mode": "improve"}}
    write_job(tmp_path, backend="local", data={"test": "test.jsonl"}, evaluate=evaluate)
    return tmp_path


def closed_pipe() -> int:
    """Return the writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


COMPARE = ["compare", "unitune.yaml", "--output", "o"]
PRINTS = [
    COMPARE,
    pytest.param([*COMPARE, "--json"], marks=pytest.mark.slow),
    ["--help"],
    ["schema", "job"],
    ["data", "convert", "test.jsonl", "--to", "openai-chat"],
]
prints = pytest.mark.parametrize("command", PRINTS, ids=" ".join)


def ended(folder: Path, command: list[str], **streams: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UNITUNE, *command],
        cwd=folder,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        **streams,
    )


@prints
def test_a_closed_pipe_is_no_verdict(folder: Path, command: list[str]) -> None:
    done = ended(folder, command, stdout=closed_pipe(), stderr=subprocess.PIPE)
    assert done.returncode == CLOSED_PIPE
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_comparison_that_nobody_reads_is_written_whole(folder: Path) -> None:
    ended(folder, COMPARE, stdout=closed_pipe(), stderr=closed_pipe())
    assert json.loads((folder / "o" / "verdict.json").read_text())["verdict"] == "better"
    assert {"report.html", "summary.md", "junit.xml", "rows.jsonl"} <= {
        file.name for file in (folder / "o").iterdir()
    }


def test_a_plan_that_nobody_reads_is_saved(folder: Path) -> None:
    write_rows(folder / "train.jsonl", distinct_rows(40))
    write_job(folder)
    ended(folder, ["plan", "-o", "p.json"], stdout=closed_pipe(), stderr=closed_pipe())
    assert json.loads((folder / "p.json").read_text())["job"] == "demo"


def test_a_result_goes_where_dev_stdout_leads(folder: Path) -> None:
    command = ["data", "convert", "test.jsonl", "--to", "openai-chat", "-o", "/dev/stdout"]
    piped = ended(folder, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (piped.returncode, len(piped.stdout.splitlines())) == (0, 30)
    with (folder / "rows.jsonl").open("w") as file:
        assert ended(folder, command, stdout=file.fileno()).returncode == 0
    assert piped.stdout == (folder / "rows.jsonl").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@prints
def test_a_full_standard_output_is_4_and_names_it(folder: Path, command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = ended(folder, command, stdout=full.fileno(), stderr=subprocess.PIPE)
    assert done.returncode == 4
    assert "standard output cannot be written: No space left" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("code", [0, 2])
def test_progress_and_errors_that_cannot_be_written_change_no_exit_code(
    folder: Path, code: int
) -> None:
    command = COMPARE if code == 0 else ["compare", "absent.yaml"]
    with Path("/dev/full").open("w") as full:
        done = ended(folder, command, stdout=subprocess.DEVNULL, stderr=full.fileno())
    assert code == done.returncode
    done = ended(folder, command, stdout=subprocess.DEVNULL, stderr=closed_pipe())
    assert code == done.returncode


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
@prints
def test_streams_closed_from_the_start(folder: Path, command: list[str], closed: str) -> None:
    line = f'"$@" {closed}'
    done = ran(["sh", "-c", line, "sh", *UNITUNE, *command], cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "command",
    [*PRINTS, ["--version"], ["backends"], ["prices", "openai"], ["doctor"], ["runs", "--json"]],
    ids=" ".join,
)
def test_any_encoding_can_carry_what_is_printed(
    folder: Path, command: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = printed_in(encoding, folder, command, monkeypatch)
    if "--json" in command or "schema" in command:
        json.loads(told)


def printed_in(
    encoding: str, folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["unitune", *command])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code, err.getvalue()
    return out.getvalue().decode("utf-8" if command[:2] == ["data", "convert"] else encoding)


def test_what_an_encoding_lacks_is_escaped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = printed_in("ascii", folder, COMPARE, monkeypatch)
    assert r"b \u2026\u65e5" in printed
    assert r"margin \xb15 points" in printed
