"""Functions of the user's that a training calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tiny_model import write_rows
from support.tuned_here import job_for, tune

from unitune.backends.registry import offer
from unitune.job.job import Job
from unitune.job.tuning import Tuning
from unitune.planning.feasibility import offer_findings
from unitune.workspace.user_settings import today

CODE = """
from pathlib import Path

def log(event, model):
    weights = sum(weight.requires_grad for weight in model.parameters())
    with Path({log!r}).open("a") as file:
        print(event.kind, event.data.get("step"), weights > 0, file=file)

def broken(event, model):
    raise ValueError("no such tracker")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    file = tmp_path / "calls.py"
    file.write_text(CODE.format(log=str(tmp_path / "log.txt")), encoding="utf-8")
    return file


def test_a_training_calls_a_function_at_each_event_with_the_model(
    tiny_model: Path, tmp_path: Path, code: Path
) -> None:
    rows = write_rows(tmp_path / "train.jsonl", 16)
    tune(job_for(tiny_model, rows, callbacks=["calls.py:log"]), tmp_path)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("step")] == ["step 1 True", "step 2 True"]
    assert {"message None True", "checkpoint 2 True"} <= {*lines}
    assert code.is_file()


def test_what_it_raises_names_it(tiny_model: Path, tmp_path: Path, code: Path) -> None:
    rows = write_rows(tmp_path / "train.jsonl", 16)
    job = job_for(tiny_model, rows, callbacks=[f"{code}:broken"])
    with pytest.raises(RuntimeError, match=r"broken raised ValueError: no such tracker"):
        tune(job, tmp_path)


@pytest.mark.parametrize(
    ("name", "said"), [("gone.py:log", "neither a Python file"), ("calls.py:gone", "no function")]
)
def test_a_check_refuses_one_that_is_not_there_and_runs_no_code(
    tiny_model: Path, tmp_path: Path, code: Path, name: str, said: str
) -> None:
    job = job_for(tiny_model, tmp_path / "train.jsonl", callbacks=["calls.py:log", name])
    code.write_text(f"{code.read_text()}\nraise SystemExit('it was run')\n", encoding="utf-8")
    (refusal,) = offer_findings(job, offer("local"), today())
    assert refusal.code == "callback"
    assert said in refusal.message


def test_python_takes_the_function_itself(tmp_path: Path) -> None:
    tuning = Tuning.model_validate({"callbacks": [test_python_takes_the_function_itself]})
    assert tuning.callbacks == (
        f"{Path(__file__).resolve()}:test_python_takes_the_function_itself",
    )
    with pytest.raises(ValueError, match=r"top level of a \.py file"):
        Tuning.model_validate({"callbacks": [lambda _event, _model: None]})
    job = job_for(tmp_path, tmp_path / "train.jsonl", callbacks=["calls.py:log"])
    (tmp_path / "deeper").mkdir()
    job.save(tmp_path / "deeper" / "unitune.yaml")
    assert Job.load(tmp_path / "deeper" / "unitune.yaml").tuning.callbacks == ("../calls.py:log",)
