"""Evidence cannot be gained by edits of the test: copies, dropped checks, blind scorers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.recorded_jobs import recorded_job

from unitune.data.dataset import Dataset, Row
from unitune.data.example import Example
from unitune.data.families import families
from unitune.errors import JobError, Leak
from unitune.evaluate.compare import compare
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.scoring.scorers import build, check_indulgence
from unitune.evaluate.task import clusters_of
from unitune.job.job import Gate
from unitune.scorers.json_text import ToolCalls
from unitune.scorers.text import Regex


def copies(count: int, **own: str) -> list[dict[str, Any]]:
    """Four cases, each so many times under other ids."""
    return [
        {"prompt": f"capital {at}?", "completion": "Paris", "id": f"{at}-{copy}"}
        | {key: f"{value}{copy}" for key, value in own.items()}
        for at in range(4)
        for copy in range(count)
    ]


@pytest.mark.parametrize("own", [{}, {"line": "n"}])
def test_copies_under_other_ids_are_no_further_evidence(
    tmp_path: Path, own: dict[str, str]
) -> None:
    """Three cases gained and one lost show nothing, forty times no more than once."""
    found: list[Comparison] = []
    for count in (1, 40):
        rows = copies(count, **own)
        lost = {row["id"]: row["id"].startswith("0-") for row in rows}
        folder = tmp_path / str(count)
        folder.mkdir()
        job = recorded_job(
            folder,
            rows,
            {name: "Paris" if gone else "Rome" for name, gone in lost.items()},
            {name: "Rome" if gone else "Paris" for name, gone in lost.items()},
        )
        found.append(compare(job, out=folder / "out"))
    assert [each.exit_code for each in found] == [3, 3]
    assert found[1].clusters == (4 if own else None)
    told = "The 160 test cases ask 4 different questions" if own else "156 test rows are copies"
    assert any(note.startswith(told) for note in found[1].notes)


def test_a_copy_that_is_pinned_pins_the_case(tmp_path: Path) -> None:
    rows = copies(2)
    rows[1]["required"] = True
    answers = {row["id"]: "Rome" for row in rows}
    gate = {"mode": "improve", "required_cases": ["3-1"]}
    found = compare(recorded_job(tmp_path, rows, answers, answers, gate=gate), out=tmp_path / "o")
    assert [case.id for case in found.cases if case.required] == ["0-0", "3-0"]


def row(text: str, **own: Any) -> Example:
    return Example.model_validate({"messages": [{"role": "user", "content": text}], **own})


def test_cases_that_ask_the_same_join_the_clusters_that_the_job_names() -> None:
    cases = [row("a", by="1"), row("b", by="2"), row(" A ", by="2"), row("c", by="3")]
    first, *rest = clusters_of(cases, families(cases), "by") or []
    assert [label == first for label in rest] == [True, True, False]
    other = [row("a"), row("b")]
    assert clusters_of(other, families(other), None) is None


@pytest.mark.parametrize("named", [True, False])
def test_a_pinned_case_that_leaks_is_never_dropped(tmp_path: Path, *, named: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": f"question {at * 104729} of {at * 31}?", "completion": "yes", "id": f"c{at}"}
        for at in range(30)
    ]
    gate: dict[str, Any] = {"mode": "improve"} | ({"required_cases": ["c0"]} if named else {})
    train = [{"prompt": rows[0]["prompt"], "completion": "yes"}]
    train += [{"prompt": f"zebra {at * 31337} row {at}", "completion": "no"} for at in range(80)]
    if not named:
        rows[0]["required"] = True
    answers = {each["id"]: "yes" for each in rows}
    job = recorded_job(tmp_path, rows, answers, answers, train, leaks="drop", gate=gate)
    with pytest.raises(Leak, match=r"test\.jsonl:1: the case c0 is required"):
        compare(job, out=tmp_path / "out")


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def telling(*cases: Example, spec: Any) -> None:
    rows = tuple(Row(line, case) for line, case in enumerate(cases, start=1))
    check_indulgence([build(spec)], Dataset("test.jsonl", rows))


def test_calls_are_not_looked_for_where_none_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="tool_calls could never reject an answer"):
        telling(row("a"), row("b"), spec=ToolCalls())
    telling(row("a"), row("b", tools=[TOOL]), spec=ToolCalls())
    rows, answers = copies(1), {f"{at}-0": "Paris" for at in range(4)}
    job = recorded_job(
        tmp_path, rows, answers, answers, scorers=["tool_calls"], gate={"mode": "no-regress"}
    )
    with pytest.raises(JobError, match="Every contender would score 100 %"):
        compare(job, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pattern", [".*", "x*", "(?i)a?", ""])
def test_a_pattern_that_is_found_everywhere_is_refused(pattern: str) -> None:
    with pytest.raises(JobError, match="matches every text"):
        telling(row("a"), spec=Regex(pattern=pattern))


@pytest.mark.parametrize("pattern", ["^$", r"\A\s*\Z", "^(?!.*sorry)", "(?<!a)$", "a+"])
def test_a_pattern_that_may_miss_is_not(pattern: str) -> None:
    telling(row("a"), spec=Regex(pattern=pattern))


def test_an_absolute_gate_asks_for_something() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        Gate(mode="absolute", threshold=0)
