"""JSON lists and objects over several lines, as json.dump, pandas and jq write them."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import findings_in, rows_in

from unitune.data import file_formats
from unitune.data.dataset import Row
from unitune.data.load import load, read
from unitune.findings import Finding

ROWS: list[dict[str, Any]] = [
    {"prompt": 'a "quoted" [{', "completion": "}] \\", "id": 1},
    {"prompt": "ä 卡 😀\n\u2028", "completion": "b", "own": {"z": [[], {}, None, 1.5]}},
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
]


def items(path: Path) -> tuple[list[Row], list[Finding]]:
    return rows_in(path, use="any"), findings_in(path, use="any")


def write(folder: Path, text: str, name: str = "rows.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("indent", [None, 0, 2, "\t"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_list_holds_the_rows_of_the_same_json_lines(
    tmp_path: Path, *, indent: int | str | None, ascii_only: bool
) -> None:
    listed = write(tmp_path, json.dumps(ROWS, indent=indent, ensure_ascii=ascii_only))
    lines = write(tmp_path, "\n".join(map(json.dumps, ROWS)), "rows.jsonl")
    assert list(load(lines, use="any")) == list(load(listed, use="any"))


def test_rows_stand_on_the_lines_where_they_begin(tmp_path: Path) -> None:
    text = json.dumps(ROWS, indent=1)
    begins = [at for at, line in enumerate(text.split("\n"), start=1) if line == " {"]
    assert begins == [row.line for row in items(write(tmp_path, text))[0]]


def test_rows_of_a_list_without_line_breaks_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    pd.DataFrame({"question": ["q", "r", ""], "answer": ["a", "b", "c"]}).to_json(
        path, orient="records"
    )
    rows, (found,) = items(path)
    assert [row.line for row in rows] == [1, 2]
    assert (found.code, found.line) == ("empty-message", 3)


def test_objects_over_several_lines_are_rows(tmp_path: Path) -> None:
    """As `jq .` writes them."""
    path = write(tmp_path, "\n".join(json.dumps(row, indent=2) for row in ROWS))
    assert len(load(path, use="any")) == 3


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_rows_are_cut_wherever_the_buffer_ends(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_formats, "_CHUNK", chunk)
    path = write(tmp_path, "\ufeff" + json.dumps(ROWS, indent=1, ensure_ascii=False))
    assert len(load(path, use="any")) == 3


GOOD = '{"prompt": "q", "completion": "a"}'


@pytest.mark.parametrize(
    ("content", "rows", "lines"),
    [
        (f"[\n {GOOD},\n {{broken}},\n {GOOD}\n]", [2, 4], [3]),
        (f'[\n {GOOD},\n {{"prompt": "q,\n {GOOD}\n]', [2, 4], [3]),  # a quote is missing
        (f'[\n {GOOD},\n {{"prompt": "q",\n {GOOD}\n]', [2, 4], [3]),  # a bracket is missing
        (f'[\n {GOOD},\n {{"prompt": ["q",\n {GOOD},\n {GOOD}\n]', [2, 4, 5], [3]),
        (f"[\n {GOOD}\n {GOOD}\n]", [2, 3], [3]),  # a comma is missing
        (f"[\n {GOOD},\n {GOOD},\n]", [2, 3], [4]),
        (f"[\n {GOOD},\n 7,\n {GOOD}\n]", [2, 4], [3]),
        (f'[\n {GOOD},\n "{{",\n {GOOD}\n]', [2, 4], [3]),
        (f"[\n {GOOD},\n [{GOOD}],\n {GOOD}\n]", [2, 4], [3]),
        (f"[\n {GOOD},\n {GOOD}", [2, 3], [3]),
        (f"[\n {GOOD},\n {GOOD[:-5]}", [2], [3]),
        (f"[\n {GOOD}\n]\n{GOOD}\n", [2], [4]),
        (f"[{GOOD},{GOOD[:-1]},{GOOD}]", [1], [2, 3]),  # without lines, the rest is lost
        (f"[{GOOD}, NaN, {GOOD}]", [1, 3], [2]),
    ],
)
def test_a_bad_row_of_a_list_is_named_and_hides_no_other(
    tmp_path: Path, content: str, rows: list[int], lines: list[int]
) -> None:
    usable, found = items(write(tmp_path, content))
    assert rows == [row.line for row in usable]
    assert lines == sorted({each.line for each in found if each.line})


@pytest.mark.parametrize("content", ["[]", "[", "[\n]", "{\n", "[,]", "[[", '["', "[1", "{\n}"])
def test_a_list_without_rows_is_an_error(tmp_path: Path, content: str) -> None:
    rows, found = items(write(tmp_path, content))
    assert not rows
    assert "error" in {each.severity for each in found}


def test_rows_under_a_key_are_an_error_that_says_how_to_take_them_out(tmp_path: Path) -> None:
    _, (found,) = items(write(tmp_path, json.dumps({"version": 1, "data": ROWS})))
    assert found.code == "nested-rows"
    assert "jq '.[\"data\"]'" in found.fix


@given(text=st.text(st.sampled_from('[]{}",:\\\n 1a\u00e4'), max_size=60))
def test_no_content_raises(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_text("[" + text, encoding="utf-8")
    assert list(read(path))


@given(st.data())
def test_a_damaged_list_loses_only_what_is_damaged(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A byte taken out of one row, in a list with a row a line, leaves the others."""
    listed = [{"prompt": f"q{at}", "completion": ["{", "]", '"'][at % 3]} for at in range(8)]
    broken = data.draw(st.integers(0, 7))
    lines = [json.dumps(row) for row in listed]
    at = data.draw(st.integers(0, len(lines[broken]) - 1))
    lines[broken] = lines[broken][:at] + lines[broken][at + 1 :]
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_text("[\n " + ",\n ".join(lines) + "\n]\n", encoding="utf-8")
    rows, _ = items(path)
    kept = {row.line for row in rows}
    assert set(range(2, 10)) - {broken + 2} <= kept


def test_a_long_list_takes_the_memory_of_a_row(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - repeatable, not secret
    path = tmp_path / "long.json"
    with path.open("w", encoding="utf-8") as file:
        rows = (
            {"prompt": f"{at} {chance.random()}", "completion": "x" * 2000} for at in range(4000)
        )
        json.dump(list(rows), file)
    tracemalloc.start()
    assert sum(isinstance(item, Row) for item in read(path)) == 4000
    assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 3
    tracemalloc.stop()
