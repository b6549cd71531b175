"""A scorer is one class in one place: all that names scorers elsewhere follows from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import unitune
from unitune.scorers import ENTRIES

ROOT = Path(unitune.__file__).parent.parent

SHOUT = '''
from typing import Literal

from unitune.scorers.interface import Attempt, Scorer


class Shout(Scorer):
    """The answer is the expected one in capitals."""

    type: Literal["shout"] = "shout"
    name: str = "shout"
    marks: int = 0
    """How many exclamation marks follow."""

    def judge(self, attempt: Attempt) -> bool:
        return attempt.text == attempt.expected.upper() + self.marks * "!"
'''

PROGRAM = """
import json
from pathlib import Path

from unitune.data.example import Example
from unitune.evaluate.scoring.scorers import build
from unitune.job.job import Job
from unitune.report.words import metric
from unitune.scorers.interface import Attempt

job = Job.load("job.yaml")
case = Example.model_validate({"messages": [{"role": "user", "content": "q"}], "expected": "yes"})
(scorer,) = (build(entry) for entry in job.evaluate.scorers)
job.save("saved.yaml")
print(json.dumps({
    "scores": [scorer.score(Attempt(case, text)).value for text in ("YES!", "yes")],
    "words": metric("shout"),
    "schema": "How many exclamation marks follow." in json.dumps(Job.model_json_schema()),
    "saved": Path("saved.yaml").read_text().count("shout"),
}))
"""

JOB = """
version: 1
name: loud
model: m
backend: fake
data: {train: train.jsonl}
evaluate: {scorers: [{type: shout, marks: 1}]}
"""


def test_a_scorer_is_added_by_one_file(tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "unitune", tmp_path / "unitune", ignore=ignore)
    (tmp_path / "unitune/scorers/shout.py").write_text(SHOUT)
    (tmp_path / "job.yaml").write_text(JOB)
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(told) == {
        "scores": [1.0, 0.0],
        "words": "the answer is the expected one in capitals",
        "schema": True,
        "saved": 1,
    }


def test_every_entry_says_what_it_is_and_is_named_like_its_type() -> None:
    for name, entry in ENTRIES.items():
        assert entry.words()
        assert name == entry.model_fields["name"].default


def test_jobs_are_read_without_numpy_and_without_an_extra() -> None:
    heavy = ["numpy", "httpx", "sacrebleu", "rapidfuzz", "jsonschema"]
    program = f"import sys, unitune.job.job; print([m for m in {heavy} if m in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout == "[]\n"
