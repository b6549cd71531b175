"""A sweep on the command line: plan, run, runs and compare; here, and at a vendor on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.colour_job import write_colour_job
from support.command_line import Command
from vendors.serving import VENDORS

from unitune.run.watching import watch_all
from unitune.testing.vendor_setup import ServedVendor, serve_vendor

PRICE = "prices: [{backend: openai, training: 3}]\n"
NAMES = ("colours seed=1", "colours seed=2")


def written(folder: Path, backend: str, tuning: str, more: str = "") -> Path:
    settings = f"tuning: {{{tuning}}}\nevaluate: {{contenders: [zero-shot, tuned]}}\n"
    return write_colour_job(folder, {"train": 40, "dev": 10, "test": 20}, backend, settings + more)


def test_runs_here_are_trained_one_after_another_and_named(
    unitune: Command, tmp_path: Path
) -> None:
    file = written(tmp_path, "fake", "seed: [1, 2]", "options: {fake: {steps_per_poll: 9}}\n")
    ended = unitune("run", str(file))
    assert ended.code == 0, ended.err
    assert f"Next: unitune compare {file}" in ended.err
    for name in NAMES:
        assert name in ended.out
    listed = json.loads(unitune("runs", "--json").out)["runs"]
    assert [run["name"] for run in listed] == [*reversed(NAMES)]

    again = json.loads(unitune("run", str(file), "--json").out)["runs"]
    assert [run["id"] for run in listed] == [run["id"] for run in reversed(again)]
    assert json.loads(unitune("runs", "--json").out)["total"] == 2

    compared = unitune("compare", str(file))
    assert compared.code == 0, compared.err
    assert "Chosen among 2 runs by exact on 10 dev rows" in " ".join(compared.out.split())


def test_runs_that_train_one_after_another_cannot_be_detached(
    unitune: Command, tmp_path: Path
) -> None:
    refused = unitune("run", str(written(tmp_path, "fake", "seed: [1, 2]")), "--detach")
    assert refused.code == 2
    assert "Leave out --detach" in refused.err
    assert json.loads(unitune("runs", "--json").out)["total"] == 0


def test_runs_that_failed_are_told_and_the_others_can_be_compared(
    unitune: Command, tmp_path: Path
) -> None:
    script = "options: {fake: {steps_per_poll: 9, fail_at_step: 2}}\n"
    ended = unitune("run", str(written(tmp_path, "fake", "seed: [1, 2]", script)))
    assert ended.code == 4
    assert "2 of 2 runs have no model." in ended.err


@pytest.mark.parametrize("width", ["80", "120"])
def test_a_plan_and_the_list_of_runs_fit_a_terminal(
    unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    file = written(tmp_path, "fake", "learning_rate: [1e-4, 3e-4], lora: {rank: [8]}")
    monkeypatch.setenv("COLUMNS", width)
    planned = unitune("plan", str(file))
    ran = unitune("run", str(file))
    listed = unitune("runs")
    assert "2 runs, one for each combination: learning_rate 0.0001, 0.0003" in planned.out
    for shown in (planned, ran, listed):
        assert max(map(len, shown.out.splitlines())) <= int(width)
    text = " ".join(listed.out.split())
    assert "learning_rate=0.0003" in text


@pytest.fixture
def openai() -> Iterator[ServedVendor]:
    with serve_vendor(VENDORS["openai"]) as served:
        yield served


def test_a_vendor_gets_one_job_for_each_run_and_the_rows_once(
    unitune: Command, openai: ServedVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune.cli.sweep.watch_all", partial(watch_all, 0.01))
    file = written(tmp_path, "openai", "epochs: [1, 2, 3]", f"{PRICE}budget: {{usd: 5}}\n")
    ids = unitune("run", str(file), "--detach").out.split()
    assert len(ids) == openai.state().jobs == 3
    assert openai.state().files == 2
    ended = unitune("run", str(file))
    assert ended.code == 0, ended.err
    assert openai.state().jobs == 3
    epochs = [
        job.request["method"]["supervised"]["hyperparameters"]["n_epochs"]
        for job in openai.server.vendor.jobs.values()
    ]
    assert epochs == [1, 2, 3]
    for run_id in ids:
        assert run_id in ended.out


def test_a_saved_plan_of_a_sweep_is_launched(
    unitune: Command, openai: ServedVendor, tmp_path: Path
) -> None:
    file = written(tmp_path, "openai", "epochs: [1, 2]", PRICE)
    plan = tmp_path / "plan.json"
    assert unitune("plan", str(file), "-o", str(plan)).code == 0
    assert len(unitune("run", "--plan", str(plan), "--detach").out.split()) == 2
    assert openai.state().jobs == 2
    assert unitune("run", str(file)).code == 6  # no budget, and no one to ask
