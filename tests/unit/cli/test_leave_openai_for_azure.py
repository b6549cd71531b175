"""The path from OpenAI to Azure in the guide `leave-openai.md`, with doubles of both vendors."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from support.command_line import Command, Outcome
from support.job_files import chat_row, write_rows
from vendors.openai.vendor import KEY
from vendors.serving import VENDORS

from unitune.backends import registry
from unitune.run import deploying, deployment
from unitune.testing.loopback import Server
from unitune.testing.vendor_setup import ServerBehavior, serve_vendor

GUIDE = Path(__file__).parents[3] / "docs" / "how-to" / "leave-openai.md"
SECTION = GUIDE.read_text("utf-8").partition("## Or move to Azure")[2]
COMMANDS = [line for line in SECTION.splitlines() if line.startswith("unitune ")]
EDITS = yaml.safe_load(re.findall(r"```yaml[^\n]*\n(.*?)```", SECTION, re.DOTALL)[0])
QUESTIONS = [f"Case {number}: which colour?" for number in range(40)]


@dataclass
class Move:
    """Both vendors, and the folder in which the guide is followed."""

    folder: Path
    openai: Server
    azure: Server
    unitune: Command
    run_id: str = ""

    def run(self, command: str) -> Outcome:
        done = self.unitune(*shlex.split(command.replace("RUN", self.run_id))[1:])
        assert done.code == 0, done.out + done.err
        return done


@pytest.fixture
def move(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unitune: Command) -> Iterator[Move]:
    monkeypatch.setenv("UNITUNE_TODAY", "2026-12-01")
    monkeypatch.setattr(deploying, "_leave_reaper", Mock())
    monkeypatch.setattr(deployment, "POLL_SECONDS", 0.01)
    old = dict.fromkeys(QUESTIONS[:30], "red")
    new = dict.fromkeys(QUESTIONS, "red")
    before = ServerBehavior(queued_polls=0, replies=old, otherwise="blue")
    after = ServerBehavior(queued_polls=0, replies=new)
    for name, questions in (
        ("train", [f"Row {n}: which?" for n in range(120)]),
        ("test", QUESTIONS),
    ):
        write_rows(tmp_path / f"{name}.jsonl", (chat_row(each, "red") for each in questions))
    with (
        serve_vendor(VENDORS["openai"], before) as openai,
        serve_vendor(VENDORS["azure"], after) as azure,
    ):
        yield Move(tmp_path, openai.server, azure.server, unitune)


def test_the_guide_leads_from_a_job_at_openai_to_a_gated_deployment_at_azure(move: Move) -> None:
    openai = pytest.importorskip("openai", reason="needs the extra dev")
    with openai.OpenAI(base_url=f"{move.openai.url}/v1", api_key=KEY) as client:
        file = client.files.create(file=move.folder / "train.jsonl", purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            training_file=file.id, model="gpt-4.1-mini-2025-04-14", seed=0
        )
        while job.status != "succeeded":
            job = client.fine_tuning.jobs.retrieve(job.id)
    move.run(f"unitune import openai:{job.id} --output moved --answers test.jsonl")
    path = move.folder / "moved" / "unitune.yaml"
    moved = yaml.safe_load(path.read_text("utf-8"))
    moved["data"]["test"] = "../test.jsonl"
    moved["evaluate"]["gate"] = {"mode": "no-regress"}
    path.write_text(yaml.safe_dump({**moved, **EDITS}), encoding="utf-8")

    plan, cost, run, compare, up = COMMANDS
    planned = move.run(f"{plan} --json")
    (line,) = (
        line for line in json.loads(planned.out)["estimate"]["lines"] if line["item"] == "training"
    )
    assert line["price"] == "offer:azure/gpt-4.1-mini-2025-04-14/training/global@2026-08-11"
    priced = " ".join(move.run(cost).out.split())
    assert "azure deletes a deployment that had no request for 15 days" in priced
    move.run(run)
    (move.run_id,) = (each.name for each in move.folder.rglob(".unitune/runs/*"))
    (created,) = move.azure.received("POST", "/fine_tuning/jobs$")
    assert created.json["trainingType"] == "GlobalStandard"
    assert created.json["model"] == "gpt-4.1-mini-2025-04-14"

    move.run(compare)
    (verdict,) = move.folder.rglob(".unitune/runs/*/evaluation/verdict.json")
    found = json.loads(verdict.read_text("utf-8"))
    assert (found["baseline"], found["candidate"], found["gate"]["passed"]) == (
        "old-model",
        "tuned",
        True,
    )
    (deployed,) = move.azure.received("PUT", "/subscriptions/")
    assert deployed.json["sku"] == {"name": "Standard", "capacity": 100}
    assert len(move.azure.received("DELETE", "/subscriptions/")) == 1, "only for the comparison"

    move.run(up)
    (kept,) = json.loads(move.unitune("deployments", "--json").out)["deployments"]
    with openai.OpenAI(base_url=f"{move.azure.url}/openai/v1", api_key=KEY) as client:
        asked = [{"role": "user", "content": QUESTIONS[-1]}]
        answer = client.chat.completions.create(model=kept["id"], messages=asked)
    assert answer.choices[0].message.content == "red"


def test_the_guides_prices_are_those_of_the_offer() -> None:
    tokens = Decimal(1000 * 100 * 3) / 1_000_000
    training = {
        row.tier: row.usd
        for row in registry.offer("azure").price_rows()
        if (row.model, row.kind) == ("gpt-4.1-mini-2025-04-14", "training")
    }
    for tier, at, sum_ in (
        ("regional/swedencentral", "6.05 (swedencentral)", "$1.82"),
        ("regional/northcentralus", "5.50 (northcentralus)", None),
        ("global", "| 5.00 |", "$1.50"),
        ("developer", "| 2.50 |", "$0.75"),
    ):
        assert f"{training[tier]:.2f}" in at
        assert at in SECTION
        if sum_ is not None:
            assert sum_ == f"${tokens * training[tier]:.2f}"
            assert sum_ in SECTION
