"""The rows of the recipes in `examples/` are those that their scripts write."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
DISFL_QA = Path(__file__).parents[3] / "shared" / "data" / "disfl-qa"
LARGEST_FILE = 150_000  # bytes, so that a clone stays small


@pytest.mark.parametrize(
    "script", sorted(EXAMPLES.glob("*/make_rows.py")), ids=lambda p: p.parent.name
)
def test_rows_are_those_of_the_script(script: Path, tmp_path: Path) -> None:
    needs_source = "sys.argv" in script.read_text("utf-8")
    if needs_source and not DISFL_QA.exists():
        pytest.skip("needs Disfl-QA next to the checkout")
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns(".unitune"))
    folder = tmp_path / "examples" / script.parent.name
    for file in folder.glob("*.jsonl"):
        file.unlink()
    arguments = [DISFL_QA] if needs_source else []
    subprocess.run([sys.executable, folder / "make_rows.py", *arguments], check=True)
    written = sorted(folder.glob("*.jsonl"))
    assert {"train.jsonl", "test.jsonl"} <= {file.name for file in written}
    for file in written:
        assert file.read_text("utf-8") == (script.parent / file.name).read_text("utf-8")
        assert file.stat().st_size <= LARGEST_FILE
