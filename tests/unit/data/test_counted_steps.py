"""What long steps report of themselves: bytes of files, rows that are searched; nothing unasked."""

from __future__ import annotations

import gzip
import io
import json
import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from support.rows import job_on

from unitune.data.check import read_job
from unitune.data.load import load
from unitune.workspace.progress import counted, counted_file, report, shown_by

Seen = list[tuple[str, int, int]]
ROWS = [
    {"prompt": f"the question of number {number}", "completion": str(number % 7)}
    for number in range(3000)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = "prompt,completion\n" + "".join(f"{row['prompt']},{row['completion']}\n" for row in ROWS)


def test_nothing_is_counted_where_no_one_waits(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x")
    with file.open("rb") as stream:
        assert counted_file(stream, "reading a") is stream
    assert counted(ROWS, "searching", len(ROWS)) is ROWS
    report("fetching a model")


def test_items_are_counted_to_the_last() -> None:
    seen: Seen = []
    with shown_by(lambda *step: seen.append(step)):
        assert list(range(1000)) == list(counted(range(1000), "searching", 1000))
        report("fetching")
    assert [step for at, step in enumerate(seen) if step not in seen[:at]] == [
        *(("searching", done, 1000) for done in range(10, 1001, 10)),
        ("fetching", 0, 0),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES),
        ("rows.json", json.dumps(ROWS).encode()),
        ("rows.jsonl.gz", gzip.compress(LINES)),
        ("rows.csv", TABLE.encode()),
        ("rows.csv", TABLE.encode("utf-16")),
    ],
    ids=["lines", "list", "gzip", "table", "utf-16"],
)
def test_a_file_is_read_byte_by_byte_whatever_it_holds(
    name: str, content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    seen: Seen = []
    with shown_by(lambda *step: seen.append(step)):
        rows = load(file, use="sft").rows
    assert len(ROWS) == len(rows)
    steps = [done for _, done, _ in seen]
    assert {(what, total) for what, _, total in seen} == {(f"reading {name}", len(content))}
    assert (sorted(steps), len(content)) == (steps, steps[-1])
    assert rows == load(file, use="sft").rows


def test_parquet_is_counted_too(tmp_path: Path) -> None:
    """Its reader begins with the file's end, which names its columns."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra data")
    arrow = pytest.importorskip("pyarrow", reason="needs the extra data")
    file = tmp_path / "rows.parquet"
    table = arrow.Table.from_pylist([{**row, "own": os.urandom(30).hex()} for row in ROWS])
    parquet.write_table(table, file, row_group_size=500)
    seen: Seen = []
    with shown_by(lambda *step: seen.append(step)):
        assert len(ROWS) == len(load(file, use="sft").rows)
    _, end, *steps = dict.fromkeys(done for _, done, _ in seen)
    assert file.stat().st_size == end
    group = end / (len(ROWS) / 500)  # whose columns are read in any order
    assert all(after > before - group for before, after in pairwise(steps))
    assert len(steps) > 5


def test_a_pipe_has_no_total(tmp_path: Path) -> None:
    pipe, seen = tmp_path / "rows.jsonl", Seen()
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[LINES])
    writer.start()
    with shown_by(lambda *step: seen.append(step)):
        assert len(ROWS) == len(load(pipe, use="sft").rows)
    writer.join()
    assert seen[-1] == ("reading rows.jsonl", len(LINES), 0)


def test_a_job_that_cuts_its_test_shows_the_search_for_leaks(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(LINES)
    data = {"train": "train.jsonl", "test": 0.2, "validation": 0.1}
    job = job_on(tmp_path, data)
    seen: Seen = []
    with shown_by(lambda *step: seen.append(step)):
        read_job(job)
    assert [*dict.fromkeys(step[0] for step in seen)] == [
        "reading train.jsonl",
        "looking for leaks",
    ]
    assert seen[-1] == ("looking for leaks", 2400, 2400)


def test_a_file_that_is_sent_again_from_its_start_is_not_more_than_whole(tmp_path: Path) -> None:
    file, seen = tmp_path / "a", Seen()
    file.write_bytes(b"x" * 10_000)
    with file.open("rb") as stream, shown_by(lambda *step: seen.append(step)):
        content = counted_file(stream, "uploading a")
        for _ in range(2):
            content.seek(0)
            assert len(content.read(1 << 16)) == 10_000
        assert content.seek(0, io.SEEK_END) == 10_000
    assert seen[-1] == ("uploading a", 10_000, 10_000)
