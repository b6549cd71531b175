"""The core, hosted vendors, evaluation and reports work without what only POSIX systems have."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from vendors.openai.vendor import KEY, OpenAIVendor

from unitune.testing.loopback import serve
from unitune.testing.vendor_setup import ServerBehavior

pytestmark = pytest.mark.heavy
RESERVED = re.compile(r'[<>:"|?*\\]|[ .]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
"""Names that Windows refuses.

Source: Microsoft, "Naming Files, Paths, and Namespaces", 2026-12-01.
"""
JOB = """
name: triage
model: gpt-4.1-mini-2025-04-14
backend: openai
data: {train: train.jsonl, test: test.jsonl}
tuning: {seed: 0}
evaluate:
  leaks: allow
  scorers: [exact, {type: regex, pattern: "^[a-z]+$"}]
  contenders: [zero-shot, few-shot, tuned]
"""
# Answers a question about a process as PowerShell does.
POWERSHELL = """#!/bin/sh
pid=$(printf %s "$*" | sed 's/.*-Id \\([0-9]*\\).*/\\1/')
[ -r "/proc/$pid/stat" ] && echo "R $(sed 's/.*) //' "/proc/$pid/stat" | cut -d' ' -f20)"
"""


@dataclass(frozen=True)
class Windows:
    """A folder, and the environment of a Python without POSIX."""

    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, code: int = 0) -> str:
        """Run a command of unitune and return its output."""
        return self.python("-m", "unitune", *words, code=code)

    def python(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def write_rows(file: Path, first: int, count: int) -> None:
    rows = (
        {"prompt": f"Where is parcel {n}?", "completion": "late" if n % 3 else "lost"}
        for n in range(first, first + count)
    )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    folder = tmp_path_factory.mktemp("windows")
    write_rows(folder / "train.jsonl", 0, 60)
    write_rows(folder / "test.jsonl", 100, 40)
    (folder / "unitune.yaml").write_text(JOB, "utf-8")
    environment = as_on_windows(folder)
    replies = {f"Where is parcel {n}?": "late" for n in range(200)}
    with serve(OpenAIVendor(ServerBehavior(replies=replies))) as server:
        own = {
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "OPENAI_BASE_URL": f"{server.url}/v1",
            "OPENAI_API_KEY": KEY,
            "UNITUNE_TODAY": "2026-11-20",
        }
        yield Windows(folder, environment | own)


def as_on_windows(folder: Path) -> dict[str, str]:
    """Return the environment of a Python on Windows: this one, or one on Linux made like it."""
    if sys.platform == "win32":
        return dict(os.environ)
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Windows, or /proc")
    pytest.importorskip("psutil", reason="needs the extra `local`")
    programs = folder / "programs"
    programs.mkdir()
    (programs / "powershell").write_text(POWERSHELL)
    (programs / "powershell").chmod(0o700)
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parent),
        "USERNAME": "jane",
        "HOME": str(folder / "home"),
    }


def test_every_module_of_core_and_vendors_is_imported(windows: Windows) -> None:
    """Extras are as installed here."""
    windows.python(
        "-c",
        "import importlib, os, pkgutil, sys, unitune, unitune_providers\n"
        "assert not hasattr(os, 'geteuid') and 'fcntl' not in sys.modules\n"
        "for package in (unitune, unitune_providers):\n"
        "    for each in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not each.name.endswith(('.migrations.env', '__main__')):\n"
        "            importlib.import_module(each.name)\n",
    )


def test_a_job_is_checked_planned_run_and_compared(windows: Windows) -> None:
    windows.run("check")
    assert "$" in windows.run("plan")
    windows.run("plan", "--all")
    windows.run("run", "--budget", "5", "--quiet")
    listed = json.loads(windows.run("runs", "--json"))["runs"]
    assert [(run["state"], run["backend"]) for run in listed] == [("succeeded", "openai")]
    verdict = json.loads(windows.run("compare", "--budget", "5", "--json"))
    assert verdict["n"] == 40
    assert {"zero-shot", "few-shot", "tuned"} <= {each["name"] for each in verdict["contenders"]}
    assert sum(each["errors"] for each in verdict["contenders"]) == 0
    assert list(windows.folder.rglob("report.html"))
    windows.run("comparisons")
    windows.run("runs", "audit")
    windows.run("runs", "show")
    windows.run("doctor")
    windows.run("cost")


def test_no_file_has_a_name_that_windows_refuses(windows: Windows) -> None:
    windows.run("runs")
    names = [path.name for path in windows.folder.rglob("*")]
    assert [name for name in names if RESERVED.search(name)] == []


def test_a_pattern_without_end_is_stopped(windows: Windows) -> None:
    """There are no timers of processor time, so the process that searches is ended."""
    windows.python(
        "-c",
        "from unitune.scorers import bounded\n"
        "bounded.TIMEOUT_SECONDS = 2.0\n"
        "try:\n"
        "    bounded.broken_by({'pattern': '(a+)+$'}, 'a' * 50 + 'b')\n"
        "except bounded.CheckFailed as error:\n"
        "    assert error.kind == bounded.OUT_OF_TIME, error\n"
        "else:\n"
        "    raise AssertionError\n"
        "assert bounded.broken_by({'pattern': 'a'}, 'a') is None\n",
    )


def test_a_lock_has_one_holder_and_a_process_is_recognised(windows: Windows) -> None:
    windows.python(
        "-c",
        "import os, pathlib, subprocess, sys\n"
        "from unitune.ledger.holders import process, this_process\n"
        "from unitune.workspace.own_files import is_locked, locked\n"
        "file = pathlib.Path('a.lock')\n"
        "with locked(file, 'it'):\n"
        "    assert is_locked(file)\n"
        "assert not is_locked(file)\n"
        "assert this_process().life == 'running' and this_process().started\n"
        "other = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "seen = process(other.pid)\n"
        "assert seen.life == 'running'\n"
        "other.communicate(b'x')\n"
        "assert seen.life == 'gone'\n",
    )


def test_training_on_this_machine_is_refused_with_the_way_out(windows: Windows) -> None:
    job = JOB.replace("gpt-4.1-mini-2025-04-14", "smollm2-135m-instruct")
    (windows.folder / "local.yaml").write_text(job.replace("openai", "local"), "utf-8")
    shown = windows.run("run", "local.yaml", code=2)
    assert "WSL" in shown
    assert "plan --all" in shown
