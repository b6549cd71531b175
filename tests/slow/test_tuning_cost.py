"""What tuning cost the real model, after a far too long training and after one with other rows."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from unitune.data.general_questions import general_questions

pytestmark = pytest.mark.slow

MESSAGES = Path(__file__).parents[2] / "docs" / "tutorial" / "messages.csv"
TOO_LONG = {"epochs": 8, "learning_rate": 2e-3, "seed": 0}
USUAL = {"epochs": 2, "seed": 0}
OTHERS = general_questions()[100:]
"""Questions that the comparison does not ask."""


def measured(
    folder: Path, environment: dict[str, str], tuning: dict[str, Any], label: str | None
) -> dict[str, Any]:
    """Train on 200 messages and return what that cost.

    All have one label if it is given; otherwise as many other questions are among them.
    """
    rows = list(csv.DictReader(MESSAGES.read_text("utf-8").splitlines()))
    for name, some in (("train", rows[:200]), ("test", rows[320:350])):
        pairs = ((row["message"], (name == "train" and label) or row["label"]) for row in some)
        known = [] if label or name == "test" else OTHERS
        pairs = chain(pairs, ((each.message.text, each.accept[0]) for each in known))
        lines = (json.dumps({"prompt": asked, "completion": answer}) for asked, answer in pairs)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    job = {
        "name": "labels",
        "model": "smollm2-135m-instruct",
        "backend": "local",
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "tuning": tuning,
        "evaluate": {
            "contenders": ["zero-shot", "tuned"],
            "scorers": ["exact"],
            "leaks": "allow",
            "max_tokens": 16,
        },
    }
    (folder / "unitune.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")
    for command in ("run", "compare"):
        words = [sys.executable, "-m", "unitune", command, "--quiet"]
        subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
    (verdict,) = (folder / ".unitune" / "runs").rglob("evaluation/verdict.json")
    (retention,) = json.loads(verdict.read_text("utf-8"))["retention"]
    assert retention["problem"] == ""
    return retention


@pytest.mark.usefixtures("default_model")
def test_a_training_far_too_long_on_one_label_costs_general_ability(
    tmp_path: Path, guarded_environment: dict[str, str]
) -> None:
    found = measured(tmp_path, guarded_environment, TOO_LONG, "card_arrival")
    questions, text = found["questions"], found["text"]
    assert questions["interval"][1] < -0.2
    assert questions["p_adjusted"] < 1e-6
    assert text["interval"][0] > 0
    assert text["p_adjusted"] < 0.01


@pytest.mark.usefixtures("default_model")
def test_a_training_with_rows_of_other_tasks_costs_no_answers(
    tmp_path: Path, guarded_environment: dict[str, str]
) -> None:
    found = measured(tmp_path, guarded_environment, USUAL, None)
    assert found["questions"]["interval"][1] > 0
    assert found["text"]["difference"] < 1
