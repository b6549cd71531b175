"""Reviewed real pairs become a preference training of the real model."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from support.reviewed import ORCA, orca, reviewed

from unitune.backends.protocol import State
from unitune.evaluate.review.queue import Review
from unitune.run.run import find_run

pytestmark = pytest.mark.slow
JOB = """\
version: 1
name: preferred
backend: local
model: smollm2-135m-instruct
method: dpo
data: {train: pairs.jsonl, validation: 0.2}
tuning: {max_steps: 4, batch_size: 4}
"""


@pytest.mark.skipif(not ORCA.exists(), reason="needs the orca-dpo-pairs next to the checkout")
@pytest.mark.usefixtures("default_model")
def test_exported_pairs_train_a_run_whose_loss_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guarded_environment: dict[str, str]
) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    short = (pair for pair in orca(300) if len(pair.candidate) + len(pair.baseline) < 800)
    review = Review(reviewed([*islice(short, 24)]), tmp_path / "labels.jsonl", "ana", 24)
    for item in review.look().items:  # ana prefers the shorter answer
        lengths = [len(review.cases[item.case].answers[side].text) for side in review.sides]
        is_left = (lengths[0] < lengths[1]) is review.candidate_is_left(item)
        review.write(item, "left" if is_left else "right")
    (tmp_path / "preferred.yaml").write_text(JOB)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "unitune", *arguments],
            env=guarded_environment | {"UNITUNE_DIR": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("review", "--export", "dpo", "pairs.jsonl")
    run("run", "preferred.yaml", "--quiet")
    finished = find_run("newest")
    steps = [event.data for event in finished.events() if event.kind == "step"]
    assert finished.state is State.SUCCEEDED
    assert steps[-1]["loss"] < steps[0]["loss"]
