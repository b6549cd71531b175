"""What proxies and cut files do to a batch: each question is answered once, and nothing is paid for
twice without a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vendors.serving import serve_vendor

from unitune.backends import registry
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.inference import batch_runner
from unitune.job.job import Job
from unitune.testing.loopback import Fault, Server, VendorRequest, VendorResponse

CASES = 6
CREATE = r"/batches$"
Lines = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(batch_runner, "LONGEST_POLL_SECONDS", 0.01)
    monkeypatch.setattr(batch_runner, "BREATH_SECONDS", 0.01)
    offer = registry.offer("openai").model_copy(update={"settle_seconds": 3.0})
    monkeypatch.setattr(registry, "offer", lambda _: offer)


@pytest.fixture
def played() -> Iterator[Any]:
    with serve_vendor("openai") as own:
        own.server.late_seconds = 0.5
        yield own


def job(folder: Path, model: str) -> Job:
    rows = [
        {"id": f"c{n}", "prompt": f"{n}?", "completion": "I do not know."} for n in range(CASES)
    ]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"case": f"c{n}", "answer": "Paris"} for n in range(CASES)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    recorded = {"type": "recorded", "name": "old", "role": "baseline", "answers": "a.jsonl"}
    zero = {"type": "zero-shot", "name": "zero", "role": "candidate"}
    return Job.model_validate(
        {
            "name": "faults",
            "model": model,
            "backend": "openai",
            "data": {"test": "test.jsonl"},
            "evaluate": {"contenders": [recorded, zero], "scorers": ["exact"]},
            "folder": folder,
        }
    )


def compared(played: Any, folder: Path, told: list[str]) -> Comparison:
    return compare(
        job(folder, played.setup.model),
        out=folder / "out",
        batch=True,
        announce=told.append,
        allow_unpriced=True,
    )


def rows_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "out" / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row.get("contender") == "zero" and "case" in row]


def batches(played: Any) -> list[dict[str, Any]]:
    return list(played.server.vendor.batches.values())


@pytest.mark.parametrize(
    "fault",
    [
        Fault.RATE_LIMITED,
        Fault.RATE_LIMITED_AFTER,
        Fault.CONFLICT_AFTER,
        Fault.ERROR_AFTER,
        Fault.CUT,
        Fault.LATE,
    ],
)
def test_a_create_call_that_something_spoils_makes_one_batch(
    fault: Fault, played: Any, tmp_path: Path
) -> None:
    told: list[str] = []
    played.server.inject_fault(fault, "POST", CREATE)
    compared(played, tmp_path, told)
    sent = len(played.server.received("POST", CREATE))
    assert (2 if fault is Fault.RATE_LIMITED else 1) == sent
    assert [f"c{n}" for n in range(CASES)] == sorted(row["case"] for row in rows_of(tmp_path))
    assert [line for line in told if "twice" in line] == []


def test_a_create_call_that_was_sent_twice_is_told_and_its_double_cancelled(
    played: Any, tmp_path: Path
) -> None:
    told: list[str] = []
    played.server.inject_fault(Fault.TWICE, "POST", CREATE)
    compared(played, tmp_path, told)
    assert len(rows_of(tmp_path)) == CASES
    assert sum("one call was sent twice" in line for line in told) == 1, told
    assert len(batches(played)) == 2


def changing(server: Server, change: Callable[[Lines], Lines], times: int = 99) -> None:
    """Let the files of answers be others, so many times."""
    left = [times]

    def changed(asked: VendorRequest, answer: VendorResponse) -> VendorResponse:
        if not asked.path.endswith("/content") or not isinstance(answer.content, bytes):
            return answer
        lines = [json.loads(line) for line in answer.content.splitlines()]
        if not lines or "response" not in lines[0] or not left[0]:
            return answer
        left[0] -= 1
        text = "".join(json.dumps(line) + "\n" for line in change(lines))
        return replace(answer, content=text.encode())

    server.change = changed


def alien(lines: Lines) -> Lines:
    return [*lines, {**lines[0], "custom_id": "somebody-elses-1"}]


@pytest.mark.parametrize(
    "change",
    [lambda lines: lines * 2, lambda lines: lines[::-1], alien],
    ids=["all twice", "out of order", "one of another's"],
)
def test_results_in_any_order_and_number_answer_each_question_once(
    change: Callable[[Lines], Lines], played: Any, tmp_path: Path
) -> None:
    changing(played.server, change)
    found = compared(played, tmp_path, [])
    assert {one.errors for one in found.contenders} == {0}
    assert [f"c{n}" for n in range(CASES)] == sorted(row["case"] for row in rows_of(tmp_path))


def test_results_that_were_cut_between_two_lines_are_fetched_again(
    played: Any, tmp_path: Path
) -> None:
    changing(played.server, lambda lines: lines[:2], times=2)
    found = compared(played, tmp_path, [])
    assert {one.errors for one in found.contenders} == {0}
    assert len(rows_of(tmp_path)) == CASES


def test_answers_that_never_come_are_errors_of_their_questions_alone(
    played: Any, tmp_path: Path
) -> None:
    changing(played.server, lambda lines: lines[1:])
    found = compared(played, tmp_path, [])
    assert sorted(one.errors for one in found.contenders) == [0, 1]
    (lost,) = [row["error"] for row in rows_of(tmp_path) if row.get("error")]
    assert "without an answer to this request" in lost
    played.server.change = None
    compared(played, tmp_path, [])
    assert [
        len(line["cases"])
        for line in map(json.loads, (tmp_path / "out" / "batches.jsonl").read_text().splitlines())
        if "cases" in line
    ] == [CASES, 1], "only the lost one is asked again"
