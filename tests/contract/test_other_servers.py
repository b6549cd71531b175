"""Servers that speak OpenAI's wire and are not OpenAI's: what they keep of a launch key varies.

A launch whose create call got no answer must never come to two jobs there; where nothing that the
server tells carries the key, the run is held as uncertain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from vendors.openai.vendor import KEY, OpenAIVendor

from unitune.backends import registry
from unitune.backends.offer import Offer
from unitune.backends.protocol import State
from unitune.job.job import Data, Job
from unitune.run.run import launch
from unitune.testing.loopback import Fault, Server, VendorRequest, VendorResponse, serve
from unitune.workspace.user_settings import current

CREATE = r"/fine_tuning/jobs$"
NEITHER = ("metadata", "user_provided_suffix")


class Forgetful:
    """A server that gives some fields of its jobs back as null, and filters by nothing.

    Args:
        forgets: The fields.
    """

    def __init__(self, *forgets: str) -> None:
        self.vendor = OpenAIVendor()
        self.forgets = forgets

    def answer(self, asked: VendorRequest) -> VendorResponse:
        if "metadata" in self.forgets:
            query = {name: told for name, told in asked.query.items() if "metadata" not in name}
            asked = VendorRequest(asked.method, asked.path, query, asked.headers, asked.body)
        answer = self.vendor.answer(asked)
        if isinstance(answer.content, dict):
            content = cast("dict[str, Any]", answer.content)
            listed = content["data"] if content.get("object") == "list" else [content]
            for one in listed:
                one.update({name: None for name in self.forgets if name in one})
        return answer


@contextmanager
def served(vendor: Forgetful, patch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(vendor) as server:
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setenv("UNITUNE_ALLOW_KEYS", f"OPENAI_API_KEY@{server.url}")
        current().backends.clear()
        yield server
        current().backends.clear()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    original = registry.offer

    def offer(name: str) -> Offer:
        return original(name).model_copy(update={"settle_seconds": 0.2})

    monkeypatch.setattr(registry, "offer", offer)


def job(folder: Path, server: Server, named_by: str, patch: pytest.MonkeyPatch, first: int) -> Job:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {number} plus one?"},
                {"role": "assistant", "content": str(number + 1)},
            ]
        }
        for number in range(first, first + 60)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    url = f"{server.url}/v1"
    if named_by == "environment":
        patch.setenv("OPENAI_BASE_URL", url)
    return Job(
        name="elsewhere",
        model="gpt-4.1-mini-2025-04-14",
        backend="openai",
        data=Data(train="train.jsonl"),
        options={"openai": {} if named_by == "environment" else {"base_url": url}},
        folder=folder,
    )


@pytest.mark.parametrize("named_by", ["environment", "option"])
@pytest.mark.parametrize("fault", [Fault.CUT, Fault.SERVER_ERROR])
@pytest.mark.parametrize("forgets", [(), ("metadata",), NEITHER], ids=["nothing", "one", "both"])
def test_a_create_call_without_an_answer_never_makes_two_jobs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named_by: str,
    fault: Fault,
    forgets: tuple[str, ...],
) -> None:
    vendor = Forgetful(*forgets)
    with served(vendor, monkeypatch) as server:
        server.inject_fault(fault, "POST", CREATE)
        run = launch(job(tmp_path, server, named_by, monkeypatch, first=0))
        made = 1 if fault is Fault.CUT else 0
        assert made == len(vendor.vendor.jobs)
        found = fault is Fault.CUT and forgets != NEITHER
        assert (State.QUEUED if found else State.UNCERTAIN) is run.state
        if not found:
            assert f"unitune runs resume {run.id} --adopt" in str(run.error)
        if made and not found:
            (theirs,) = vendor.vendor.jobs
            mark = f"@{server.url}/v1" if named_by == "option" else ""
            assert theirs + mark == run.resume(adopt=theirs + mark).job_id


@pytest.mark.parametrize("named_by", ["environment", "option"])
@pytest.mark.parametrize(
    ("forgets", "state"),
    [((), State.QUEUED), (("metadata",), State.QUEUED), (NEITHER, State.UNCERTAIN)],
)
def test_a_server_whose_list_has_shown_a_launch_key_is_searched_and_asked_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named_by: str,
    forgets: tuple[str, ...],
    state: State,
) -> None:
    vendor = Forgetful(*forgets)
    with served(vendor, monkeypatch) as server:
        launch(job(tmp_path, server, named_by, monkeypatch, first=0))
        server.inject_fault(Fault.SERVER_ERROR, "POST", CREATE)
        run = launch(job(tmp_path, server, named_by, monkeypatch, first=100))
    assert state is run.state
    assert (2 if state is State.QUEUED else 1) == len(vendor.vendor.jobs)


def test_the_launch_key_is_the_suffix_wherever_the_server_is_not_openais(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(Forgetful(), monkeypatch) as server:
        run = launch(job(tmp_path, server, "environment", monkeypatch, first=0))
        (sent,) = server.received("POST", CREATE)
    assert (run.launch_key, {"unitune": run.launch_key}) == (
        sent.json["suffix"],
        sent.json["metadata"],
    )
