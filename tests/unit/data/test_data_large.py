"""Large files: what is found and kept of them is the same, and hardly any of it is in memory."""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from support.rows import job_on, write_rows

from unitune.cost.tokens import counter_for
from unitune.data import dataset
from unitune.data.check import check_file, read_job
from unitune.data.dataset import Row, Spool
from unitune.data.example import Example
from unitune.planning.rows import Rows


def test_repeats_stand_beside_each_row(tmp_path: Path) -> None:
    """Duplicates, contradictions and repeated ids, reported in the order of the rows."""
    chance = random.Random(4)  # noqa: S311 - repeatable, not secret
    path = tmp_path / "rows.jsonl"
    lines: list[str] = []
    expected: list[tuple[int, str, int | None]] = []
    rows, answers, ids = dict[str, int](), dict[int, tuple[int, int]](), dict[str, int]()
    for line in range(1, 401):
        asked, answer = chance.randrange(60), chance.randrange(2)
        name = f"case {chance.randrange(120)}" if chance.random() < 0.5 else None
        if chance.random() < 0.1:
            lines.append("{broken")
            expected.append((line, "broken-json", None))
            continue
        row: dict[str, str] = {"prompt": f"question {asked}", "completion": f"answer {answer}"}
        equal = rows.setdefault(json.dumps(row), line)
        if equal != line:
            expected.append((line, "duplicate", equal))
        first, first_answer = answers.setdefault(asked, (line, answer))
        if first_answer != answer:
            expected.append((line, "contradiction", first))
        if name and ids.setdefault(name, line) != line and equal == line:
            expected.append((line, "repeated-id", ids[name]))
        lines.append(json.dumps(row | ({"id": name} if name else {})))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    whole = check_file(path)
    assert expected == [
        (found.line, found.code, int(said[0]) if (said := _lines_named(found.message)) else None)
        for found in whole.findings
    ]


def _lines_named(message: str) -> list[str]:
    _, _, after = message.partition("on line ")
    return [after.split(",")[0].rstrip(".")] if after else []


ROWS = [
    {
        "messages": [
            {"role": "user", "content": "ä 卡 😀 \u2028"},
            {"role": "assistant", "content": ""},
        ]
    },
    {
        "input": {"messages": [{"role": "user", "content": "a"}]},
        "preferred_output": [{"role": "assistant", "content": "b"}],
        "non_preferred_output": [{"role": "assistant", "content": "c"}],
        "own": {"z": [1, 2.5, None, True], "a": 10**30},
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "a"}, {"type": "text", "text": ""}],
            },
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "1", "tool_call_id": "x"},
            {"role": "assistant", "content": "b", "weight": 0},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "weight": 0.5,
        "id": "one",
        "required": True,
    },
    {"messages": [{"role": "user", "content": "x" * 700_000}]},
]


def test_rows_come_back_from_disk_as_they_were() -> None:
    rows = [Row(3 * at + 1, Example.model_validate(row)) for at, row in enumerate(ROWS * 3)]
    spool = Spool()
    for row in rows:
        spool.add(row)
    kept = spool.rows
    assert rows == list(kept) == [*kept]
    assert rows[::5] == list(kept[::5])
    assert list(kept.picked([2, 7, 8])) == [rows[2], rows[7], rows[8]]
    assert (rows[4], rows[-1], len(rows)) == (kept[4], kept[-1], len(kept))
    both = zip(kept, kept.picked(range(1, len(rows))), strict=False)
    assert [(one.line, other.line) for one, other in both] == [
        (one.line, other.line) for one, other in pairwise(rows)
    ]


def _bytes_a_row(tmp_path: Path, look: Callable[[Path], object]) -> float:
    """Return by how much the peak grows with a row, from 2,000 to 8,000 of them."""
    peaks: list[int] = []
    for count in (2000, 8000):
        prompts = (f"question {at} of many" for at in range(count))
        rows = ({"prompt": prompt, "completion": "an answer " * 20} for prompt in prompts)
        path = write_rows(tmp_path / f"{count}.jsonl", rows)
        gc.collect()
        tracemalloc.start()
        look(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return (peaks[1] - peaks[0]) / 6000


@pytest.fixture
def few_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "BLOCK_ROWS", 500)
    monkeypatch.setattr(dataset, "PART_ROWS", 1000)
    monkeypatch.setattr("unitune.data.split.MOST_ROWS", 500)


@pytest.mark.usefixtures("few_in_memory")
@pytest.mark.slow
def test_a_check_keeps_hardly_anything_of_a_row(tmp_path: Path) -> None:
    check_file(_warm(tmp_path))
    assert _bytes_a_row(tmp_path, check_file) < 5


@pytest.mark.usefixtures("few_in_memory")
@pytest.mark.slow
def test_a_plan_keeps_some_bytes_of_a_row(tmp_path: Path) -> None:
    """Most of them are the index of the tenth that is held out, which is searched in the rest."""

    def look(path: Path) -> None:
        job = job_on(tmp_path, {"train": path.name}, model="gpt-4.1-mini", backend="openai")
        rows = Rows(read_job(job))
        rows.written_in("openai-chat")
        rows.counted_for(job.base_model)

    counter_for("gpt-4.1-mini")
    look(_warm(tmp_path))
    assert _bytes_a_row(tmp_path, look) < 180


def _warm(tmp_path: Path) -> Path:
    """Return a small file, to be read before, so that what is loaded once is not counted."""
    rows = ({"prompt": f"question {at}", "completion": "an answer"} for at in range(300))
    return write_rows(tmp_path / "small.jsonl", rows)
