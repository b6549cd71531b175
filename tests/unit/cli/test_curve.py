"""`unitune data curve` on the command line: its plan, its runs, what it prints, and its budget."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from support.colour_job import write_colour_job
from support.command_line import Command

from unitune.cli.job_files import document_schema

pytestmark = pytest.mark.heavy

ROWS = {"train": 44, "dev": 12, "test": 10}


def written(folder: Path, more: str = "", backend: str = "fake") -> Path:
    return write_colour_job(folder, ROWS, backend, more)


FAKE = "options: {fake: {steps: 1, steps_per_poll: 9}}\n"
SMALL = ("--points", "3", "--seeds", "2")


def test_a_plan_starts_nothing(unitune: Command, tmp_path: Path) -> None:
    planned = unitune("data", "curve", str(written(tmp_path, FAKE)), *SMALL, "--plan")
    assert planned.code == 0, planned.err
    assert [line.split()[0] for line in planned.out.splitlines() if line.strip()[:1].isdigit()] == [
        "11",
        "22",
        "44",
    ]
    assert "12 validation rows per run" in planned.out
    assert json.loads(unitune("runs", "--json").out)["total"] == 0
    document = json.loads(
        unitune("data", "curve", str(tmp_path / "unitune.yaml"), *SMALL, "--plan", "--json").out
    )
    assert len(document["runs"]) == 6


@pytest.mark.parametrize("width", ["80", "120"])
def test_it_trains_judges_and_goes_on(
    unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    file = written(tmp_path, FAKE)
    ended = unitune("data", "curve", str(file), *SMALL, "--goal", "0.9")
    again = unitune("data", "curve", str(file), *SMALL, "--goal", "0.9", "--json")
    assert ended.code == again.code == 0, ended.err
    assert max(map(len, ended.out.splitlines())) <= int(width)
    assert "cannot tell" in ended.out
    assert "learning-curve.html" in ended.out
    document = json.loads(again.out)
    jsonschema.validate(document, document_schema("learning-curve"))
    assert [point["rows"] for point in document["points"]] == [11, 22, 44]
    listed = json.loads(unitune("runs", "--json").out)["runs"]
    assert len(listed) == 6
    assert {run["run"] for point in document["points"] for run in point["runs"]} == {
        run["id"] for run in listed
    }


def test_what_costs_money_needs_a_budget(unitune: Command, tmp_path: Path) -> None:
    prices = "prices: [{backend: openai, training: 3, input: 1, output: 2}]\n"
    file = written(tmp_path, prices + "tuning: {epochs: 1}\n", "openai")
    planned = unitune("data", "curve", str(file), *SMALL, "--plan")
    assert planned.code == 0, planned.err
    assert "$" in planned.out
    refused = unitune("data", "curve", str(file), *SMALL)
    assert refused.code == 6
    assert "the sweep of 6 runs costs money" in refused.err
    refused = unitune("data", "curve", str(file), *SMALL, "--budget", "0.0001")
    assert refused.code == 6
    assert "fewer --points or --seeds" in refused.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--goal", "90"), "the goal is 90, but a score must be above 0 and at most 1"),
        (("--goal", "nan"), "the goal is nan"),
        (("--points", "5"), "of 44 rows to train on, the smallest of 5 sizes has 2"),
        (("--points", "2"), "'--points'"),
        (("--option", "a=b"), "pass both"),
    ],
)
def test_what_cannot_be_is_refused(
    unitune: Command, tmp_path: Path, options: tuple[str, str], said: str
) -> None:
    refused = unitune("data", "curve", str(written(tmp_path, FAKE)), *options)
    assert refused.code == 2
    assert said in " ".join(refused.err.split())
