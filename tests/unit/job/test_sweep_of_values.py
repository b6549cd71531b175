"""Lists of values under `tuning`: the runs they make, what is refused, what a plan says."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.rows import write_rows

from unitune.cli.job_files import document_schema
from unitune.errors import JobError
from unitune.job.job import Job, Lora, Preference, Tuning
from unitune.job.sweep import MOST_RUNS
from unitune.planning import saved
from unitune.planning.plan import plan, plans

JOB = """\
name: demo
model: tiny
backend: fake
data: {train: train.jsonl, test: test.jsonl}
"""


def loaded(folder: Path, text: str) -> Job:
    file = folder / "unitune.yaml"
    file.write_text(JOB + text, encoding="utf-8")
    return Job.load(file)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(JobError) as caught:
        loaded(folder, text)
    return str(caught.value).removeprefix(f"{folder}/unitune.yaml:")


def test_runs_come_in_the_order_of_hydra(tmp_path: Path) -> None:
    """hydra.cc, Multi-run: ``db=mysql,postgresql schema=warehouse,support,school`` has six jobs,
    mysql's three before those of postgresql.
    """
    job = loaded(tmp_path, "tuning: {learning_rate: [1e-4, 3e-4], lora: {rank: [8, 16, 32]}}\n")
    assert job.sweep == {"learning_rate": (0.0001, 0.0003), "lora.rank": (8, 16, 32)}
    assert list(job.variants()) == [
        "learning_rate=0.0001, lora.rank=8",
        "learning_rate=0.0001, lora.rank=16",
        "learning_rate=0.0001, lora.rank=32",
        "learning_rate=0.0003, lora.rank=8",
        "learning_rate=0.0003, lora.rank=16",
        "learning_rate=0.0003, lora.rank=32",
    ]


def test_the_job_of_a_run_is_the_job_that_its_values_write(tmp_path: Path) -> None:
    job = loaded(tmp_path, "tuning: {epochs: 2, seed: [1, 2], lora: {rank: [8, auto]}}\n")
    run = job.variants()["lora.rank=auto, seed=2"]
    assert loaded(tmp_path, "tuning: {epochs: 2, seed: 2}\n") == run
    assert run.sweep == run.variants() == {}


def test_a_sweep_saves_to_the_same_job(tmp_path: Path) -> None:
    job = loaded(tmp_path, "tuning: {batch_size: [4, auto], lora: {dropout: [0, 0.1]}}\n")
    job.save(tmp_path / "again.yaml")
    assert job == Job.load(tmp_path / "again.yaml")
    assert job.tuning == Tuning.model_validate(job.tuning.model_dump())


def test_python_takes_lists_where_yaml_does(tmp_path: Path) -> None:
    values: Any = [1e-4, 3e-4]
    ranks: Any = [8, 16]
    built = Tuning(learning_rate=values, lora=Lora(rank=ranks))
    assert loaded(tmp_path, "tuning: {learning_rate: [1e-4, 3e-4], lora: {rank: [8, 16]}}\n") == (
        Job.model_validate({**dict(loaded(tmp_path, "")), "tuning": built})
    )


def test_a_list_of_a_single_value_is_that_value(tmp_path: Path) -> None:
    assert Tuning(seed=3) == loaded(tmp_path, "tuning: {seed: [3]}\n").tuning


def test_choices_and_parts_within_parts_are_swept_too(tmp_path: Path) -> None:
    job = loaded(
        tmp_path,
        "tuning: {schedule: [cosine, linear], early_stopping: {patience: [2, 3]},"
        " lora: {rslora: [true, false]}}\n",
    )
    assert len(job.variants()) == 8
    last = "schedule=linear, early_stopping.patience=3, lora.rslora=false"
    assert last == [*job.variants()][-1]
    assert False is job.variants()[last].tuning.lora.rslora


def test_names_of_modules_are_no_sweep(tmp_path: Path) -> None:
    job = loaded(tmp_path, "tuning: {lora: {targets: [q_proj, v_proj]}}\n")
    assert job.tuning.lora.targets == ("q_proj", "v_proj")
    assert job.sweep == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "tuning:\n  epochs: []\n",
            "6: tuning.epochs is not valid: the list is empty. Add values, or remove it.",
        ),
        (
            "tuning:\n  learning_rate: [1e-4, 0.0001]\n",
            "6: tuning.learning_rate is not valid: 0.0001 is in the list twice. Keep one.",
        ),
        (
            "tuning:\n  lora:\n    rank:\n      - 8\n      - 0\n",
            "9: tuning.lora.rank.1 is 0; it must be at least 1 or auto.",
        ),
        (
            "tuning:\n  seed: [1, [2, 3]]\n",
            "6: tuning.seed is not valid: the list contains a list. Use only single values.",
        ),
        (
            "tuning:\n  lora: [8, 16]\n",
            ("6: tuning.lora is not valid; it must be a mapping of keys to values: rank, alpha, "),
        ),
        (
            "tuning: {epochs: [1, 2, 3, 4, 5], seed: [1, 2, 3, 4, 5], lora: {rank: [4, 8, 16]}}\n",
            (
                "5: tuning is not valid: the lists make 75 runs (5 of epochs x 3 of lora.rank x 5 "
                f"of seed), but a sweep has at most {MOST_RUNS}. Remove some values."
            ),
        ),
        (
            "method: dpo\ntuning: {preference: {loss: [dpo, simpo], label_smoothing: [0.1]}}\n",
            (
                "6: tuning.preference is not valid: label_smoothing is for loss dpo, robust; not "
                "for simpo."
            ),
        ),
        (
            "sweep: {learning_rate: [1e-4]}\n",
            "5: sweep is not a known key. Did you mean 'tuning'?",
        ),
    ],
)
def test_what_makes_no_sweep_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(tmp_path, text).startswith(said)


def test_runs_learn_from_the_same_rows(tmp_path: Path) -> None:
    text = "method: dpo\ntuning: {preference: {loss: [dpo, kto]}}\n"
    assert "loss kto needs different rows from the other losses" in refusal(tmp_path, text)
    job = loaded(tmp_path, "method: dpo\ntuning: {preference: {loss: [dpo, ipo]}}\n")
    assert [run.tuning.preference for run in job.variants().values()] == [
        Preference(loss="dpo"),
        Preference(loss="ipo"),
    ]


def test_editors_take_a_value_and_a_list_of_values() -> None:
    schema = document_schema("job")
    job = {"name": "a", "model": "m", "backend": "local", "data": {"train": "t.jsonl"}}
    for tuning in ({"epochs": 2}, {"epochs": [1, "auto"], "lora": {"rank": [8]}}):
        jsonschema.validate({**job, "tuning": tuning}, schema)
    for tuning in ({"epochs": []}, {"epochs": [1, 1]}, {"epochs": [0]}, {"lora": [8]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**job, "tuning": tuning}, schema)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sweep over epochs at a vendor, at $1 a thousand tokens."""
    for name in ("train", "test"):
        rows = [
            {"prompt": f"{name} question {at}", "completion": f"answer {at % 3}"}
            for at in range(60)
        ]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    job = tmp_path / "unitune.yaml"
    job.write_text(
        "name: demo\nmodel: {fireworks: Qwen/Qwen3-8B, openai: gpt-4.1-mini-2025-04-14}\n"
        "backend: fireworks\ndata: {train: train.jsonl, test: test.jsonl}\n"
        "prices: [{backend: fireworks, training: 1000}]\n"
        "tuning: {epochs: [1, 3], seed: [0, 1]}\n",
        encoding="utf-8",
    )
    return job


def test_a_plan_prices_each_run_and_the_sum(file: Path) -> None:
    job = Job.load(file)
    planned = plan(job)
    assert [run.name for run in planned.runs] == [
        "epochs=1, seed=0",
        "epochs=1, seed=1",
        "epochs=3, seed=0",
        "epochs=3, seed=1",
    ]
    alone = [plan(run).estimate for run in job.variants().values()]
    usd = [each.launch_usd for each in alone if each and each.launch_usd]
    assert usd == [run.estimate.launch_usd for run in planned.runs if run.estimate]
    assert planned.estimate is not None
    assert sum(usd[1:], start=usd[0]) == planned.estimate.launch_usd
    assert usd[2].high == 3 * usd[0].high


def test_the_rows_held_out_are_the_same_for_all_runs_whatever_their_seeds(file: Path) -> None:
    """A run that was trained on rows by which dev chooses would be chosen for them."""
    planned = plan(Job.load(file))
    assert planned.bound is not None
    of_first = plan(Job.load(file).variants()["epochs=1, seed=0"])
    of_second = plan(Job.load(file).variants()["epochs=1, seed=1"])
    assert of_first.bound is not None
    assert of_second.bound is not None
    assert planned.bound.files == of_first.bound.files != of_second.bound.files


def test_the_budget_is_for_the_sum(file: Path) -> None:
    job = Job.load(file)
    estimate = plan(job).estimate
    assert estimate is not None
    assert estimate.launch_usd is not None
    high = estimate.launch_usd.high
    assert not plan(job.with_budget(high)).errors
    (error,) = plan(job.with_budget(high - Decimal("0.01"))).errors
    assert error.code == "over-budget"
    assert error.message.startswith("the sweep of 4 runs may cost $")
    assert "leave values out" in error.fix


def test_several_backends_price_the_whole_sweep(file: Path) -> None:
    alone = plan(Job.load(file)).estimate
    beside = plans(Job.load(file), ["fireworks", "openai"]).plans
    assert alone is not None
    assert beside[0].estimate is not None
    assert alone.launch_usd == beside[0].estimate.launch_usd
    assert [len(each.runs) for each in beside] == [4, 4]


def test_a_value_that_the_backend_cannot_honour_is_named_with_its_run(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("epochs: [1, 3]", "learning_rate: [auto, 1e-4]"), encoding="utf-8")
    findings = plan(Job.load(file).with_backend("openai")).errors
    assert [finding.code for finding in findings] == ["unsupported-setting"]
    assert (
        findings[0].message
        == "run learning_rate=0.0001, seed=0 (and 1 more run): openai does not support "
        "tuning.learning_rate."
    )


def test_a_list_that_the_backend_cannot_honour_is_an_error_once(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("epochs: [1, 3]", "learning_rate: [1e-4, 1]"), encoding="utf-8")
    findings = plan(Job.load(file).with_backend("openai")).errors
    assert [each.message for each in findings] == ["openai does not support tuning.learning_rate."]


def test_a_saved_plan_of_a_sweep_is_bound_to_its_lists(file: Path) -> None:
    path = file.with_name("plan.json")
    path.write_text(saved.saved_text(plan(Job.load(file)), path, file), encoding="utf-8")
    then = saved.read(path)
    assert saved.changes(then, plan(saved.job_of(then, path))) == ()
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("epochs: [1, 3]", "epochs: [1, 2]"), encoding="utf-8")
    changed = saved.changes(then, plan(saved.job_of(then, path)))
    assert changed == ("job: tuning.epochs was [1, 3], is [1, 2]",)
