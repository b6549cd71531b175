"""`unitune decide` on the command line: its plan, its page, and what costs money."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
from support.colour_job import write_colour_job
from support.command_line import Command

from unitune.cli.job_files import document_schema

pytestmark = pytest.mark.heavy

ROWS = {"train": 44, "dev": 12, "test": 40}
FAKE = "options: {fake: {steps: 1, steps_per_poll: 9}}\n"


def test_a_plan_measures_nothing(unitune: Command, tmp_path: Path) -> None:
    file = write_colour_job(tmp_path, ROWS, "fake", FAKE)
    planned = unitune("decide", str(file), "--plan")
    assert planned.code == 0, planned.err
    assert "Cannot tell yet" in planned.out
    assert "How good is the best prompt for tiny on fake?" in planned.out
    assert f"unitune decide {file}" in planned.out.replace("\n", "")
    assert json.loads(unitune("runs", "--json").out)["total"] == 0


@pytest.mark.parametrize("width", ["80", "120"])
def test_it_measures_and_answers(
    unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    file = write_colour_job(tmp_path, ROWS, "fake", FAKE)
    ended = unitune("decide", str(file), "--seeds", "2")
    again = unitune("decide", str(file), "--seeds", "2", "--json")
    assert ended.code == again.code == 0, ended.err
    assert max(map(len, ended.out.splitlines())) <= int(width)
    document = json.loads(again.out)
    jsonschema.validate(document, document_schema("decision"))
    assert document["conclusion"]["headline"] in " ".join(ended.out.split())
    assert "decision.html" in ended.out
    assert "Next:" in ended.out


def test_what_costs_money_is_not_measured_unasked(unitune: Command, tmp_path: Path) -> None:
    prices = "prices: [{backend: openai, training: 3, input: 1, output: 2}]\n"
    more = prices + "tuning: {epochs: 1}\nusage: {months: 1}\n"
    file = write_colour_job(tmp_path, ROWS, "openai", more)
    refused = unitune("decide", str(file))
    assert refused.code == 0, refused.err
    assert "Not measured" in refused.out
    assert "the comparison costs money" in " ".join(refused.out.split())


@pytest.mark.parametrize("prices", ["", "training: 3"])
def test_what_has_no_price_is_not_measured_within_a_budget(
    unitune: Command, tmp_path: Path, prices: str
) -> None:
    more = f"prices: [{{backend: azure, {prices}}}]\n" if prices else ""
    file = write_colour_job(tmp_path, ROWS, "azure", f"{more}tuning: {{epochs: 1}}\n")
    text = re.sub("model: .*", "model: {azure: tiny}", file.read_text("utf-8"), count=1)
    file.write_text(text, "utf-8")
    refused = unitune("decide", str(file), "--budget", "1")
    assert refused.code == 6, refused.err
    assert "the price of zero-shot" in " ".join(refused.out.split())
    assert "Not measured" in refused.out


def test_where_the_base_ends_other_backends_are_named(unitune: Command, tmp_path: Path) -> None:
    file = write_colour_job(tmp_path, ROWS, "openai", "tuning: {epochs: 1}\n")
    ended = unitune("decide", str(file), "--json")
    conclusion = json.loads(ended.out)["conclusion"]
    assert (conclusion["answer"], conclusion["rule"]) == ("cannot tell", "nowhere")
    assert "switched off on 2027-01-14" in conclusion["reasons"][0]
    assert "--backend azure" in conclusion["next"]["command"]
