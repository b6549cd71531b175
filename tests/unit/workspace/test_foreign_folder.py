"""A folder that somebody else wrote is data: it runs no code and has no file of ours written."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.rows import write_rows
from support.warm import warm_run

import unitune
import unitune_local
from unitune.workspace.own_files import is_locked
from unitune_local.job_folder import JobFolder
from unitune_local.training.worker import environment, start_worker

MOST_BYTES = 8 << 30
"""Of memory: what reads without end is to fail, and not the machine."""
TRAP = "import pathlib\npathlib.Path(__file__).with_name('RAN').touch()\nraise SystemExit\n"


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return warm_run(
        [sys.executable, "-m", "unitune", *arguments],
        cwd=cwd,
        limits={resource.RLIMIT_AS: MOST_BYTES},
    )


@pytest.mark.heavy  # a worker with torch
def test_a_worker_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("psutil", "yaml", "torch", "json", "pydantic"):
        (tmp_path / f"{name}.py").write_text(TRAP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    folder = JobFolder(tmp_path / "job")
    folder.path.mkdir()
    folder.spec.write_text(
        json.dumps({"settings": {"threads": 1, "processes": 1, "shard": False}}), encoding="utf-8"
    )
    start_worker(folder)
    until = time.monotonic() + 60
    while is_locked(folder.lock) and time.monotonic() < until:
        time.sleep(0.05)
    assert not (tmp_path / "RAN").exists()


def test_every_python_that_we_start_leaves_the_current_folder_out() -> None:
    """`-m` alone puts it first among the places that modules come from."""
    roots = [Path(package.__file__).parent for package in (unitune, unitune_local)]
    texts = {file: file.read_text("utf-8") for root in roots for file in root.rglob("*.py")}
    started = [(file, one) for file, text in texts.items() for one in STARTED.findall(text)]
    assert len(started) >= 3
    assert [str(file) for file, flag in started if flag != "-P"] == []


STARTED = re.compile(r'\[sys\.executable, "(-P|-m)"')


def test_a_training_process_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "MY_KEY")
    for name in secrets:
        monkeypatch.setenv(name, "sk-secret")
    monkeypatch.setenv("KEYBOARD", "kept")
    found = environment(1)
    assert [name for name in secrets if name in found] == []
    assert found["KEYBOARD"] == "kept"
    assert found["PATH"]


@pytest.fixture
def cloned(tmp_path: Path) -> Path:
    """A repository with a comparison of recorded answers, and a folder for what comes of it."""
    rows = [{"prompt": f"{at * 7919}?", "completion": "Paris", "id": f"c{at}"} for at in range(3)]
    write_rows(tmp_path / "test.jsonl", rows)
    write_rows(tmp_path / "a.jsonl", ({"case": row["id"], "answer": "Paris"} for row in rows))
    contenders = [
        {"type": "recorded", "name": name, "answers": "a.jsonl", "role": role}
        for name, role in (("a", "baseline"), ("b", "candidate"))
    ]
    job = {"name": "demo", "model": "x", "backend": "local", "data": {"test": "test.jsonl"}}
    job["evaluate"] = {"contenders": contenders}
    (tmp_path / "unitune.yaml").write_text(json.dumps(job), encoding="utf-8")
    (tmp_path / "rows").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "name", [".summary.md.draft", "summary.md", "verdict.json", "report.html", "junit.xml"]
)
def test_a_report_is_written_through_no_link(cloned: Path, name: str) -> None:
    mine = cloned / "notes.txt"
    mine.write_text("mine\n", encoding="utf-8")
    (cloned / "rows" / name).symlink_to(mine)
    done = command("compare", "unitune.yaml", "--output", "rows", cwd=cloned)
    assert done.returncode in (0, 2), "written beside it, or refused"
    assert mine.read_text("utf-8") == "mine\n"


@pytest.mark.parametrize("name", ["rows.jsonl", "dev.jsonl"])
def test_rows_are_appended_through_no_link(cloned: Path, name: str) -> None:
    mine = cloned / "notes.txt"
    mine.write_text("", encoding="utf-8")
    (cloned / "rows" / name).symlink_to(mine)
    done = command("compare", "unitune.yaml", "--output", "rows", cwd=cloned)
    assert done.returncode == 2
    assert "symbolic link" in " ".join(done.stderr.split())
    assert mine.read_text("utf-8") == ""


def test_a_results_folder_that_is_a_link_is_refused(cloned: Path) -> None:
    other = cloned / "other"
    (cloned / "rows").rmdir()
    other.mkdir()
    (cloned / "rows").symlink_to(other)
    done = command("compare", "unitune.yaml", "--output", "rows", cwd=cloned)
    assert done.returncode == 2
    assert "rows is a symbolic link" in " ".join(done.stderr.split())
    assert list(other.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["init", "made"], "made/train.jsonl"),
        (["init", "made"], "made/unitune.yaml"),
        (
            ["data", "convert", "test.jsonl", "--to", "vertex-sft", "-o", "made/out.jsonl"],
            "made/out.jsonl",
        ),
        (["plan", "plan.yaml", "-o", "made/plan.json"], "made/plan.json"),
        (["import", "lm-eval:samples.jsonl", "--output", "made"], "made/test.jsonl"),
    ],
)
def test_a_file_is_made_through_no_link(cloned: Path, words: list[str], name: str) -> None:
    """A link to a file that is not there yet is no file that stands in the way."""
    (cloned / "plan.yaml").write_text(
        "name: demo\nmodel: smollm2-135m-instruct\nbackend: local\n"
        "data: {train: test.jsonl, validation: 0.4}\n"
    )
    sample = {
        "doc_id": 0,
        "target": "a",
        "arguments": {"gen": {"arg_0": "q", "arg_1": {}}},
        "resps": [["a"]],
        "metrics": ["acc"],
        "acc": 1.0,
    }
    write_rows(cloned / "samples.jsonl", [sample])
    elsewhere = cloned / "elsewhere"
    (cloned / "made").mkdir()
    (cloned / name).symlink_to(elsewhere)
    done = command(*words, cwd=cloned)
    assert not elsewhere.exists()
    assert done.returncode == 0, done.stderr
    assert (cloned / name).is_file()
    assert not (cloned / name).is_symlink()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["plan", "link.yaml"], "link.yaml"),
        (["check", "link.jsonl"], "link.jsonl"),
        (["check", "link.csv"], "link.csv"),
        (["compare", "unitune.yaml"], "a.jsonl"),
        (["run", "--plan", "link.json"], "link.json"),
        (["import", "promptfoo:link.json"], "link.json"),
        (["import", "lm-eval:link.jsonl"], "link.jsonl"),
    ],
)
def test_nothing_is_read_from_a_device_that_never_ends(
    cloned: Path, words: list[str], name: str
) -> None:
    (cloned / name).unlink(missing_ok=True)
    (cloned / name).symlink_to("/dev/zero")
    done = command(*words, cwd=cloned)
    assert done.returncode == 2
    assert "it is a device, not a file" in " ".join((done.stdout + done.stderr).split())


ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{at}: &a{at} [{', '.join(10 * [f'*a{at - 1}'])}]\n" for at in range(1, 7)
)


HARM = {
    "nested aliases": (ALIASES, "is a YAML alias"),
    "itself": ("a: &a [*a]\n", "is a YAML alias"),
    "bool": ("a: !!bool x\n", "is a YAML tag"),
    "day": ("a: 2026-13-45\n", "month must be in 1..12"),
    "digits": (f"a: {'9' * 5000}\n", "4300 digits"),
    "hex": ("a: 0x_\n", "invalid literal"),
    "lists": (f"a: {'[' * 3000}{']' * 3000}\n", "nesting depth"),
}
FILES = [("unitune.yaml", harm) for harm in HARM]
FILES += [(name, "nested aliases") for name in ("prices.yaml", "budget.yaml")]


@pytest.mark.parametrize(("name", "harm"), FILES)
def test_a_file_of_yaml_that_means_harm_is_refused_with_words(
    cloned: Path, name: str, harm: str
) -> None:
    text, told = HARM[harm]
    job = json.loads((cloned / "unitune.yaml").read_text("utf-8"))
    job |= {"data": {"train": "test.jsonl"}, "evaluate": {}}
    (cloned / "unitune.yaml").write_text(json.dumps(job), encoding="utf-8")
    (cloned / name).write_text(text, encoding="utf-8")
    done = command("plan", "unitune.yaml", "--backend", "openai", cwd=cloned)
    assert done.returncode == 2, done.stderr
    assert told in " ".join(done.stderr.split())
