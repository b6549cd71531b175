"""Each method at OpenAI and at Azure from launch to verdict, by the commands that a user types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_line import Command
from support.job_files import write_rows
from vendors.openai.vendor import OpenAIVendor
from vendors.serving import VENDORS

from unitune.testing.vendor_setup import ServerBehavior, serve_vendor

CHATTY, THINKING = "gpt-4.1-2025-04-14", "o4-mini-2025-04-16"
TUNED_BEFORE = "ft:gpt-5-2025-08-07:loopback::00000001"
"""OpenAI's own list has no base for reinforcement any more; a tuned model may be tuned further."""
GRADER = {
    "type": "string_check",
    "name": "same",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
ANSWERS = {f"Case {number}: which colour?": "red" for number in range(40)}


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def _row(method: str, question: str) -> dict[str, Any]:
    turns = [_turn("user", question)]
    match method:
        case "dpo":
            good, bad = [_turn("assistant", "red")], [_turn("assistant", "blue")]
            prompt = {"messages": turns}
            return {"input": prompt, "preferred_output": good, "non_preferred_output": bad}
        case "rft":
            return {"messages": turns, "answer": "red"}
        case _:
            return {"messages": [*turns, _turn("assistant", "red")]}


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve a vendor whose tuned models know the answers, and return its name."""
    setup = VENDORS[request.param]
    if request.param == "openai":
        bases = (CHATTY, THINKING, TUNED_BEFORE)
        setup = replace(setup, vendor=partial(OpenAIVendor, bases=bases))
    with serve_vendor(setup, ServerBehavior(queued_polls=0, replies=ANSWERS)):
        yield request.param


def _job(folder: Path, backend: str, method: str, model: str) -> None:
    write_rows(
        folder / "train.jsonl", [_row(method, f"Row {at}: which colour?") for at in range(120)]
    )
    write_rows(folder / "test.jsonl", [_row("sft", question) for question in ANSWERS])
    options: Mapping[str, Any] = {"grader": GRADER} if method == "rft" else {}
    job = {
        "name": "colours",
        "model": model,
        "backend": backend,
        "method": method,
        "data": {"train": "train.jsonl", "test": "test.jsonl"},
        "options": {backend: options},
        "evaluate": {
            "scorers": ["exact"],
            "contenders": ["zero-shot", "tuned"],
            "prices": {name: {"input": 1, "output": 4} for name in ("zero-shot", "tuned")},
            "budget": {"usd": 50},
        },
    }
    (folder / "unitune.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")


def _verdict(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob(".unitune/runs/*/evaluation/verdict.json")
    return json.loads(path.read_text(encoding="utf-8"))


def _trained_and_compared(unitune: Command, folder: Path, backend: str) -> dict[str, Any]:
    run = unitune("run", "unitune.yaml", "--allow-unpriced", "--budget", "20")
    assert run.code == 0, run.err
    (name,) = (path.name for path in folder.glob(".unitune/runs/*"))
    if backend == "azure":
        deployed = unitune("deployments", "up", name, "--ttl", "1h", "--budget", "20")
        assert deployed.code == 0, deployed.err
    compared = unitune("compare", "unitune.yaml")
    assert compared.code == 0, compared.err
    if backend == "azure":
        undeployed = unitune("deployments", "down", name)
        assert undeployed.code == 0, undeployed.err
    verdict = _verdict(folder)
    (tuned,) = (each for each in verdict["contenders"] if each["name"] == "tuned")
    return {
        **verdict,
        "curve": tuned["curve"],
        "followed": run.err,
        "shown": unitune("runs", "show", name).out,
    }


@pytest.mark.parametrize("backend", ["openai", "azure"], indirect=True)
@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_a_training_with_losses_goes_from_launch_to_verdict(
    method: str, backend: str, unitune: Command, tmp_path: Path
) -> None:
    _job(tmp_path, backend, method, CHATTY)
    found = _trained_and_compared(unitune, tmp_path, backend)
    assert (found["verdict"], found["gained"]) == ("better", 40)
    assert found["curve"]["figure"] == "loss"


@pytest.mark.parametrize(
    ("backend", "model"), [("openai", TUNED_BEFORE), ("azure", THINKING)], indirect=["backend"]
)
def test_a_reinforcement_goes_from_launch_to_verdict_and_shows_its_rewards(
    backend: str, model: str, unitune: Command, tmp_path: Path
) -> None:
    _job(tmp_path, backend, "rft", model)
    found = _trained_and_compared(unitune, tmp_path, backend)
    assert (found["verdict"], found["gained"]) == ("better", 40)
    assert {name: found["curve"][name] for name in ("figure", "values")} == {
        "figure": "reward",
        "values": [0.5, 0.666667, 0.75, 0.8],
    }
    assert "reward 0.800" in found["followed"]
    assert "loss" not in found["followed"]
    assert re.search(r"Training reward +0.800 +0.500 at the first step", found["shown"])
    page = next(tmp_path.glob(".unitune/runs/*/evaluation/report.html")).read_text(encoding="utf-8")
    assert "Mean reward (as the grader gives it) by optimiser step" in page
    assert {one["errors"] for one in found["contenders"]} == {0}
    assert "zero-shot: requested without temperature, which the model rejects." in " ".join(
        found["notes"]
    )
    assert "tuned: reasons before it answers (320 reasoning tokens" in " ".join(found["notes"])
