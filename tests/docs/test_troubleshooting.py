"""The page on troubleshooting quotes texts of the code; the hook for other repositories runs."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from support.warm import warm_run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "troubleshooting.md").read_text("utf-8")
TEXT = runpy.run_path(str(ROOT / "docs" / "messages.py"))["_text"]


def quoted() -> list[str]:
    """Return the quoted pieces of the first column of the table by text."""
    table = PAGE.split("<!-- texts:", 1)[1].split("<!-- end texts -->", 1)[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    return [piece.strip() for row in rows for piece in re.findall(r"`([^`]+)`", row)]


@pytest.fixture(scope="module")
def texts() -> str:
    packages = (ROOT / name for name in ("unitune", "providers", "local"))
    trees = (ast.parse(file.read_text("utf-8")) for each in packages for file in each.rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.expr))
    return "\n".join(text for node in nodes if (text := TEXT(node)))


@pytest.mark.parametrize("text", quoted())
def test_a_quoted_text_is_one_of_the_code(text: str, texts: str) -> None:
    assert text in texts


def test_every_finding_has_a_message() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \| [a-z, ]+ \| (.+) \|$", PAGE, re.MULTILINE)
    assert {"broken-json", "duplicate", "empty-answer"} <= {code for code, _ in listed}
    assert len(listed) == len({code for code, _ in listed})


def test_the_hook_checks_a_job(tmp_path: Path, guarded_environment: dict[str, str]) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    assert hook["language"] == "python"
    assert re.search(hook["files"], "evals/train.jsonl")
    (tmp_path / "train.jsonl").write_text('{"prompt": "1?", "completion": "one"}\n{"promp\n')
    job = "name: a\nmodel: smollm2-135m-instruct\nbackend: local\ndata: {train: train.jsonl}\n"
    (tmp_path / "unitune.yaml").write_text(job)
    words = [sys.executable, "-m", *shlex.split(hook["entry"])]
    done = warm_run(words, cwd=tmp_path, env=guarded_environment)
    assert done.returncode != 0
    assert "broken-json" in done.stdout + done.stderr or "train.jsonl:2" in done.stdout
