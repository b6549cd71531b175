"""A model that thinks, or calls tools, is compared for what it answers, wherever it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_line import Command
from support.job_files import write_rows
from vendors.openai.azure import AzureVendor
from vendors.openai.vendor import KEY, OpenAIVendor
from vendors.serving import VENDORS

from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve
from unitune.testing.vendor_setup import ServerBehavior, serve_vendor

THINKING = "gpt-6-luna"
CASES = 40
BFCL = Path(__file__).parents[4] / "shared" / "data" / "bfcl-function-calling"


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve a vendor whose models say "red", after more thoughts than answers have room for."""
    red = ServerBehavior(otherwise="red")
    openai, azure = (
        replace(VENDORS[name], vendor=partial(vendor, reasoning_tokens=3000))
        for name, vendor in (("openai", OpenAIVendor), ("azure", AzureVendor))
    )
    with serve_vendor(azure, red), serve_vendor(openai, red) as served:
        monkeypatch.setenv("SERVER_KEY", KEY)
        monkeypatch.setenv("UNITUNE_ALLOW_KEYS", f"SERVER_KEY@{served.server.url}")
        yield served.server


def _job(folder: Path, evaluate: Mapping[str, Any]) -> None:
    job = {
        "name": "colours",
        "model": "gpt-4.1-2025-04-14",
        "backend": "openai",
        "data": {"test": "test.jsonl"},
        "evaluate": {
            **evaluate,
            "prices": {"m": {"input": 1, "output": 4}, THINKING: {"input": 1, "output": 4}},
            "budget": {"usd": 50},
        },
    }
    (folder / "unitune.yaml").write_text(yaml.safe_dump(job), encoding="utf-8")


def _colours(folder: Path) -> dict[str, Any]:
    """Write cases, and answers half of which are right; return the contender that gives them."""
    write_rows(
        folder / "test.jsonl",
        [{"id": f"c{n}", "prompt": f"{n}?", "completion": "red"} for n in range(CASES)],
    )
    answers = [{"case": f"c{n}", "answer": "red" if n % 2 else "blue"} for n in range(CASES)]
    write_rows(folder / "answers.jsonl", answers)
    return {"type": "recorded", "answers": "answers.jsonl", "name": "half", "role": "candidate"}


def _thinking(kind: str, server: Server) -> dict[str, Any]:
    where = (
        {"type": "server", "url": f"{server.url}/v1", "api_key_variable": "SERVER_KEY"}
        if kind == "server"
        else {"type": "model", "backend": kind}
    )
    return {**where, "model": THINKING, "name": "thinker", "prompt": "zero-shot"}


def _verdict(unitune: Command, folder: Path) -> dict[str, Any]:
    ended = unitune("compare", "unitune.yaml", "--output", "out")
    assert ended.code == 0, ended.err
    return json.loads((folder / "out" / "verdict.json").read_text(encoding="utf-8"))


def _rows(folder: Path, contender: str) -> list[dict[str, Any]]:
    lines = (folder / "out" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["contender"] == contender]


@pytest.mark.parametrize("kind", ["server", "openai", "azure"])
@pytest.mark.parametrize("role", ["baseline", "candidate"])
def test_a_model_that_thinks_is_judged_by_its_answers(
    role: str, kind: str, vendor: Server, unitune: Command, tmp_path: Path
) -> None:
    half = _colours(tmp_path) | {"role": "baseline" if role == "candidate" else "candidate"}
    thinker = {**_thinking(kind, vendor), "role": role}
    _job(tmp_path, {"scorers": ["exact"], "contenders": [half, thinker]})
    found = _verdict(unitune, tmp_path)
    scores = {one["name"]: (one["score"], one["errors"]) for one in found["contenders"]}
    assert scores == {"half": (0.5, 0), "thinker": (1.0, 0)}
    assert ("worse" if role == "baseline" else "better") == found["verdict"]
    rows = _rows(tmp_path, "thinker")
    assert {
        (row["text"], row["finish_reason"], row["reasoning_tokens"], tuple(row["left_out"]))
        for row in rows
    } == {("red", "stop", 3000, ("temperature",))}
    assert all(row["max_tokens"] > 25_000 for row in rows)
    assert "Its answers are not greedy." in " ".join(found["notes"])
    again = unitune("compare", "unitune.yaml", "--output", "out", "--replay")
    assert again.code == 0, again.err


@pytest.mark.parametrize("kind", ["server", "openai"])
def test_a_temperature_that_the_job_sets_and_a_model_refuses_is_an_error(
    kind: str, vendor: Server, unitune: Command, tmp_path: Path
) -> None:
    contenders = [_colours(tmp_path), {**_thinking(kind, vendor), "role": "baseline"}]
    _job(tmp_path, {"scorers": ["exact"], "contenders": contenders, "temperature": 0})
    ended = unitune("compare", "unitune.yaml", "--output", "out")
    assert ended.code == 2
    assert "evaluate.temperature is 0" in ended.err
    assert "Remove evaluate.temperature" in " ".join(ended.err.split())


def test_a_limit_that_the_job_sets_is_kept_to(
    vendor: Server, unitune: Command, tmp_path: Path
) -> None:
    contenders = [_colours(tmp_path), {**_thinking("server", vendor), "role": "baseline"}]
    _job(tmp_path, {"scorers": ["exact"], "contenders": contenders, "max_tokens": 50})
    unitune("compare", "unitune.yaml", "--output", "out")
    rows = _rows(tmp_path, "thinker")
    assert {(row["text"], row["finish_reason"], row["max_tokens"]) for row in rows} == {
        ("", "length", 50)
    }


class Caller:
    """A server that makes every call right, by the last user message, where it has the room.

    Args:
        calls: The expected calls.
    """

    def __init__(self, calls: Mapping[str, list[dict[str, Any]]]) -> None:
        self.calls = calls

    def answer(self, asked: VendorRequest) -> VendorResponse:
        calls = self.calls[asked.json["messages"][-1]["content"]]
        fits = asked.json["max_tokens"] >= len(json.dumps(calls)) // 4
        message = {"role": "assistant", "content": None, "tool_calls": calls if fits else None}
        ended = "tool_calls" if fits else "length"
        return VendorResponse(
            {"choices": [{"index": 0, "finish_reason": ended, "message": message}]}
        )


class Reasoner:
    """A server that shows why it answers "red"; "blue" is only in its reasoning."""

    def answer(self, _: VendorRequest) -> VendorResponse:
        message = {"role": "assistant", "content": "red", "reasoning_content": "Not blue <b>."}
        usage = {"prompt_tokens": 5, "completion_tokens": 9}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        return VendorResponse({"choices": [choice], "usage": usage})


def test_reasoning_is_kept_apart_shown_on_demand_and_paid(unitune: Command, tmp_path: Path) -> None:
    half = _colours(tmp_path) | {"role": "baseline"}
    with serve(Reasoner()) as server:
        reasoner = {"type": "server", "url": f"{server.url}/v1", "model": "m", "name": "reasoner"}
        reasoner |= {"prompt": "zero-shot", "role": "candidate"}
        _job(tmp_path, {"scorers": ["exact", "contains"], "contenders": [half, reasoner]})
        found = _verdict(unitune, tmp_path)
    rows = _rows(tmp_path, "reasoner")
    assert {(row["text"], row["reasoning"]) for row in rows} == {("red", "Not blue <b>.")}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<summary><b>reasoning</b></summary>" in page
    assert "Not blue &lt;b&gt;." in page
    tokens = {one["name"]: one["completion_tokens"] for one in found["contenders"]}
    assert tokens["reasoner"] == 9 * CASES, "of answer and reasoning"


def _first(values: list[Any]) -> Any:
    return next(value for value in values if value != "")


@pytest.mark.skipif(not BFCL.exists(), reason="needs ../shared/data/bfcl-function-calling")
@pytest.mark.parametrize("name", ["simple_python", "parallel"])
def test_a_server_that_makes_every_call_right_is_right_everywhere(
    name: str, unitune: Command, tmp_path: Path
) -> None:
    rows, known = _bfcl(name)
    write_rows(tmp_path / "test.jsonl", rows)
    with serve(Caller(known)) as caller, serve(Caller({key: [] for key in known})) as silent:
        contenders = [
            {"type": "server", "url": f"{one.url}/v1", "model": "m", "name": name, "role": role}
            | {"prompt": "zero-shot"}
            for one, name, role in ((silent, "silent", "baseline"), (caller, "caller", "candidate"))
        ]
        _job(tmp_path, {"scorers": ["tool_calls"], "contenders": contenders})
        found = _verdict(unitune, tmp_path)
    scores = {one["name"]: one["score"] for one in found["contenders"]}
    assert scores == {"silent": 0.0, "caller": 1.0}
    assert found["verdict"] == "better"
    assert all(row["tool_calls"] for row in _rows(tmp_path, "caller"))


def _bfcl(name: str) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Return 60 cases of the leaderboard as chat rows with tools, and their calls by question."""
    asked = (BFCL / f"BFCL_v4_{name}.json").read_text(encoding="utf-8").splitlines()[:60]
    right = (BFCL / "possible_answer" / f"BFCL_v4_{name}.json").read_text(encoding="utf-8")
    truth = {row["id"]: row["ground_truth"] for row in map(json.loads, right.splitlines())}
    rows: list[dict[str, Any]] = []
    known: dict[str, list[dict[str, Any]]] = {}
    for row in map(json.loads, asked):
        calls = [
            {
                "id": f"call_{at}",
                "type": "function",
                "function": {
                    "name": function.replace(".", "_"),
                    "arguments": json.dumps({key: _first(some) for key, some in given.items()}),
                },
            }
            for at, one in enumerate(truth[row["id"]])
            for function, given in one.items()
        ]
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in row["question"][0]]
        tools = [
            {
                "type": "function",
                "function": {"name": one["name"].replace(".", "_"), "description": ""},
            }
            for one in row["function"]
        ]
        answer = {"role": "assistant", "tool_calls": calls}
        rows.append({"id": row["id"], "messages": [*turns, answer], "tools": tools})
        known[turns[-1]["content"]] = calls
    return rows, known
