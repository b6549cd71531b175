"""The promise of the README's first command, on the real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unitune.data.load import load

pytestmark = pytest.mark.slow


def test_the_tuned_model_is_better_than_the_best_prompt(quickstart: Any) -> None:
    verdict = quickstart.verdict

    assert verdict["verdict"] == "better"
    assert verdict["interval"][0] > 0
    assert verdict["candidate"] == "tuned"


def test_totals_are_those_of_the_rows(quickstart: Any) -> None:
    """`rows.jsonl` alone gives every contender's number of answers and errors."""
    file = next(quickstart.run_folder.rglob("rows.jsonl"))
    records = [json.loads(line) for line in file.read_text().splitlines()]

    for contender in quickstart.verdict["contenders"]:
        own = [record for record in records if record["contender"] == contender["name"]]
        assert contender["n"] == len(own)
        assert contender["errors"] == sum("error" in record for record in own)


def test_the_report_names_verdict_and_run(quickstart: Any) -> None:
    page = next(quickstart.run_folder.rglob("report.html")).read_text(encoding="utf-8")

    assert quickstart.run["id"] in page
    assert "better" in page.lower()


def test_a_second_comparison_asks_no_model_again(
    quickstart: Any, guarded_environment: dict[str, str]
) -> None:
    file = next(quickstart.run_folder.rglob("rows.jsonl"))
    before = file.read_bytes()

    subprocess.run(
        [sys.executable, "-m", "unitune", "compare", "bank-intents/unitune.yaml", "--quiet"],
        cwd=quickstart.folder,
        env=guarded_environment,
        check=True,
        capture_output=True,
    )

    assert before == file.read_bytes()


def test_chat_answers_as_the_tuned_model_was_taught(
    quickstart: Any, guarded_environment: dict[str, str]
) -> None:
    message = "My new card has not come yet. When will it be here?"
    done = subprocess.run(
        [sys.executable, "-m", "unitune", "chat", quickstart.run["id"], "-m", message],
        cwd=quickstart.folder,
        env=guarded_environment,
        check=True,
        capture_output=True,
        text=True,
    )

    rows = load(quickstart.folder / "bank-intents" / "train.jsonl")
    assert done.stdout.strip() in {row.answer for row in rows}


@pytest.mark.usefixtures("quickstart")
def test_by_hand_does_the_same_without_the_library(guarded_environment: dict[str, str]) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "unitune", "models", "base", "--json"],
        env=guarded_environment,
        check=True,
        capture_output=True,
        text=True,
    )
    model = json.loads(listed.stdout)["stored"][0]["path"]
    script = Path(__file__).parents[2] / "examples" / "by_hand.py"
    done = subprocess.run(
        [sys.executable, str(script), model, "--steps", "2", "--cases", "2"],
        env=guarded_environment,
        check=True,
        capture_output=True,
        text=True,
    )

    assert "step 2/2" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("tuned: ")


@pytest.mark.parametrize(
    ("options", "least"),
    [
        ("--to adapter", 0.9),  # peft adds base and update after rounding both
        ("--to merged", 1.0),
        ("--to gguf", 0.95),
        ("--to gguf --quantization Q8_0", 0.9),
        ("--to gguf-lora", 0.9),  # llama.cpp does likewise
    ],
)
def test_an_export_answers_as_the_run_does(
    quickstart: Any, tmp_path: Path, options: str, least: float
) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra `export`")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "unitune",
            "models",
            "export",
            *options.split(),
            "-o",
            tmp_path / "o",
            "--json",
        ],
        cwd=quickstart.folder,
        # Not guarded: the base's own file is fetched.
        env={**os.environ, "XDG_STATE_HOME": str(quickstart.state.parent)},
        check=True,
        capture_output=True,
        text=True,
    )
    exported = json.loads(done.stdout)
    assert exported["rows"] == 30
    assert least <= exported["equal"] / exported["rows"]
