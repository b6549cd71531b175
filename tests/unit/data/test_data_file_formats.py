"""Files as pandas, pyarrow, openpyxl, datasets, gzip and zstd write them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet
from support.rows import findings_in, rows_in

from unitune.data.check import check_file
from unitune.data.dataset import Row
from unitune.data.load import load, read, read_records
from unitune.data.records import Record
from unitune.findings import Finding
from unitune.job.job import Columns, Data

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TABLE = pd.DataFrame({"question": ["ä, 卡", "r"], "answer": ['a\n"b"', "c"], "year": [1999, 2001]})
COLUMNS = Data(train="t", columns=Columns(user="question", assistant="answer"))
CHAT: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": "q"},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "content": "x", "tool_call_id": "1"},
            {"role": "assistant", "content": "a", "weight": 1},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "parameters": {"properties": {"a": {"type": "number"}}}},
            },
            {
                "type": "function",
                "function": {"name": "g", "parameters": {"properties": {"b": {"enum": ["c"]}}}},
            },
        ],
    },
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
]


def texts(path: Path, data: Data | None = None) -> list[list[str]]:
    return [[turn.text for turn in example.messages] for example in load(path, data)]


def _sheet(path: Path) -> None:
    pytest.importorskip("openpyxl")
    TABLE.to_excel(path, index=False)


WRITERS: dict[str, Callable[[Path], object]] = {
    "rows.csv": lambda path: TABLE.to_csv(path, index=False),
    "semicolons.csv": lambda path: TABLE.to_csv(path, sep=";", index=False),
    "rows.tsv": lambda path: TABLE.to_csv(path, sep="\t", index=False),
    "utf-16.csv": lambda path: TABLE.to_csv(path, sep="\t", index=False, encoding="utf-16"),
    "unicode.txt": lambda path: TABLE.to_csv(path, sep="\t", index=False, encoding="utf-16"),
    "utf-32.csv": lambda path: TABLE.to_csv(path, index=False, encoding="utf-32"),
    "bom.csv": lambda path: TABLE.to_csv(path, index=False, encoding="utf-8-sig"),
    "rows.json": lambda path: TABLE.to_json(path, orient="records"),
    "indented.json": lambda path: TABLE.to_json(path, orient="records", indent=2),
    "rows.jsonl": lambda path: TABLE.to_json(path, orient="records", lines=True),
    "utf-16.jsonl": lambda path: path.write_text(TABLE.to_json(orient="records"), "utf-16"),
    "rows.jsonl.gz": lambda path: TABLE.to_json(path, orient="records", lines=True),
    "rows.csv.gz": lambda path: TABLE.to_csv(path, index=False),
    "rows.csv.zst": lambda path: path.write_bytes(
        zstd.compress(TABLE.to_csv(index=False).encode())
    ),
    "rows.parquet": lambda path: TABLE.to_parquet(path, index=False),
    "named-otherwise": lambda path: TABLE.to_parquet(path, index=False),
    "rows.feather": TABLE.to_feather,
    "rows.xlsx": _sheet,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("data", [None, COLUMNS])
def test_what_other_tools_write_is_the_same_rows(
    tmp_path: Path, name: str, data: Data | None
) -> None:
    WRITERS[name](tmp_path / name)
    assert texts(tmp_path / name, data) == [["ä, 卡", 'a\n"b"'], ["r", "c"]]
    (first, _) = load(tmp_path / name, data)
    assert str((first.model_extra or {})["year"]) == "1999"


def _stream(table: pa.Table, path: Path) -> None:
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)


@pytest.mark.parametrize(
    "write",
    [
        parquet.write_table,
        feather.write_feather,
        _stream,
    ],
)
def test_structs_hold_what_each_row_says_and_no_nulls(
    tmp_path: Path, write: Callable[[pa.Table, Path], None]
) -> None:
    """A column of structs has the fields of all its rows, with nulls where a row has none."""
    path = tmp_path / "rows"
    write(pa.Table.from_pylist(CHAT), path)
    assert [example.content for example in load(path)] == CHAT


def test_a_folder_that_datasets_saved_is_read(tmp_path: Path) -> None:
    Dataset.from_list(CHAT * 3).save_to_disk(tmp_path / "saved", num_shards=2)
    assert [example.content for example in load(tmp_path / "saved")] == CHAT * 3


def test_a_saved_choice_of_rows_is_that_choice(tmp_path: Path) -> None:
    Dataset.from_pandas(TABLE).select([1]).save_to_disk(tmp_path / "saved")
    assert texts(tmp_path / "saved") == [["r", "c"]]


def test_of_several_splits_one_is_named(tmp_path: Path) -> None:
    splits = {"train": Dataset.from_pandas(TABLE), "test": Dataset.from_pandas(TABLE)}
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    (found,) = findings_in(tmp_path / "saved")
    assert f"{tmp_path / 'saved' / 'train'} or" in found.fix
    assert len(load(tmp_path / "saved" / "test")) == 2


@pytest.mark.parametrize("name", ["saved", "rows.parquet"])
def test_labels_are_read_as_their_names(tmp_path: Path, name: str) -> None:
    features = Features({"prompt": Value("string"), "completion": ClassLabel(names=["no", "yes"])})
    made = Dataset.from_dict({"prompt": ["q", "r"], "completion": [1, 0]}, features=features)
    path = tmp_path / name
    made.save_to_disk(path) if name == "saved" else made.to_parquet(path)
    assert texts(path) == [["q", "yes"], ["r", "no"]]


def test_values_that_json_has_not_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    row = {
        "prompt": "q",
        "completion": "a",
        "day": date(2024, 5, 1),
        "score": float("nan"),
        "raw": b"\xff",
        "of": [{"x": None, "y": 1}],
    }
    parquet.write_table(pa.Table.from_pylist([row]), path)
    (example,) = load(path)
    assert example.model_extra == {"day": "2024-05-01", "score": None, "of": [{"y": 1}]}


def test_a_sheet_with_a_title_a_blank_column_and_a_total_is_read(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for cells in (
        (None, "Software catalogue"),
        (),
        (None, "prompt", "completion", "size"),
        *((None, f"q {at}", "a", at) for at in range(25)),
        (None, "Total", None, 300),
    ):
        book.active.append(cells)
    book.save(tmp_path / "rows.xlsx")
    assert list(range(4, 29)) == [row.line for row in rows_in(tmp_path / "rows.xlsx")]
    assert [(each.code, each.line) for each in findings_in(tmp_path / "rows.xlsx")][:2] == [
        ("title-lines", 3),
        ("total-lines", 29),
    ]


def test_a_sheet_is_read_as_it_shows(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "Rows"
    for cells in (
        (None, None, None),
        ("prompt", "completion", "day"),
        (7, True, datetime(2024, 5, 1)),  # noqa: DTZ001 - Excel knows no zones
        (None, None, None),
        ("q", 2.5, None),
        ("q", "a", None, "behind"),
        ("q", None, None),
    ):
        book.active.append(cells)
    book.create_sheet("Notes").append(["a note"])
    book.save(tmp_path / "rows.xlsx")
    rows = rows_in(tmp_path / "rows.xlsx")
    assert [(row.line, [turn.text for turn in row.example.messages]) for row in rows] == [
        (3, ["7", "TRUE"]),
        (5, ["q", "2.5"]),
    ]
    assert rows[0].example.model_extra == {"day": "2024-05-01"}
    assert [(each.code, each.line) for each in findings_in(tmp_path / "rows.xlsx")][:3] == [
        ("other-sheets", None),
        ("column-count", 6),
        ("empty-answer", 7),
    ]


@pytest.mark.parametrize(
    "name", [name for name in WRITERS if name.endswith((".gz", ".zst", ".parquet", ".xlsx", "er"))]
)
def test_a_file_that_was_cut_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "error" in {found.severity for found in findings_in(path)}


@given(head=st.sampled_from([b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"PK\x03\x04", b"\x1f\x8b"]))
def test_a_file_that_only_begins_so_is_an_error(
    tmp_path_factory: pytest.TempPathFactory, head: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_bytes(head + b"\x08\x00 and nothing of it")
    (found,) = findings_in(path)
    assert found.severity == "error"


def test_broken_utf_16_is_an_error_of_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = '{"prompt": "q", "completion": "a"}\n'
    path.write_bytes((good + good).encode("utf-16") + b"\x00\xd8\x0a")
    (found,) = findings_in(path)
    assert (found.code, found.line) == ("encoding", 3)


@pytest.mark.parametrize(
    ("name", "package"),
    [("rows.parquet", "pyarrow"), ("rows.xlsx", "openpyxl"), ("rows.csv.zst", "backports")],
)
def test_a_missing_package_gives_the_line_that_installs_it(
    tmp_path: Path, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[name](tmp_path / name)
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, module, None)
    (found,) = findings_in(tmp_path / name)
    assert (found.code, package in found.message) == ("missing-package", True)
    assert "pip install" in found.fix
    assert "[data]" in found.fix


def test_records_of_any_file_can_be_looked_at(tmp_path: Path) -> None:
    """What shows a user their columns reads them so."""
    WRITERS["rows.parquet"](tmp_path / "rows.parquet")
    records = [item for item in read_records(tmp_path / "rows.parquet") if isinstance(item, Record)]
    assert json.loads(TABLE.to_json(orient="records")) == [record.value for record in records]


@pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.parquet", "rows.xlsx"])
def test_json_is_json_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"prompt": "q", "completion": "a"}\n')
    assert texts(tmp_path / name) == [["q", "a"]]


def test_text_under_a_binary_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.xlsx").write_text("question,answer\nq,a\n")
    (found,) = findings_in(tmp_path / "rows.xlsx")
    assert found.code == "broken-file"


READ_AS = {
    "semicolons.csv": "a table separated by semicolons: pairs from question, answer; metadata year",
    "rows.json": "a JSON list on one line (rows are numbered): pairs from question, answer; "
    "metadata year",
    "rows.parquet": "a Parquet file: pairs from question, answer; metadata year",
    "rows.jsonl.gz": "JSON Lines: pairs from question, answer; metadata year",
}


@pytest.mark.parametrize("name", READ_AS)
def test_a_check_says_what_a_file_is_read_as(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert READ_AS[name] == check_file(tmp_path / name).files[0].read_as


SMALL = ("semicolons.csv", "utf-16.csv", "indented.json", "rows.csv.gz", "rows.csv.zst")


@pytest.mark.parametrize("name", [*SMALL, "rows.parquet", "rows.feather", "rows.xlsx"])
def test_a_file_with_spoiled_bytes_is_read_or_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)  # once: what pandas writes holds the time
    good = path.read_bytes()
    spoiled = st.dictionaries(
        st.integers(0, len(good) - 1), st.integers(0, 255), min_size=1, max_size=3
    )

    @given(bytes_at=spoiled)
    def check(bytes_at: dict[int, int]) -> None:
        content = bytearray(good)
        for at, byte in bytes_at.items():
            content[at] = byte
        path.write_bytes(content)
        items = list(read(path))
        assert items
        assert all(item.file == str(path) for item in items if isinstance(item, Finding))

    check()


ROW_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "from"]), inner)
    ),
    max_leaves=6,
)
ROW_KEYS = st.sampled_from(
    [
        *("messages", "conversations", "instruction", "input", "output", "history", "tools"),
        *("prompt", "chosen", "rejected", "question", "answer", "system", "contents", "label"),
        *("schemaVersion", "completions", "context", "id", "systemInstruction"),
    ]
)


@given(rows=st.lists(st.dictionaries(ROW_KEYS, ROW_VALUES, max_size=4), min_size=1, max_size=4))
def test_every_row_that_is_no_row_is_named(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "odd-rows.json"
    path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]", encoding="utf-8")
    items = list(read(path, use="any"))
    lines = {item.line for item in items if isinstance(item, Row) or item.severity == "error"}
    assert set(range(2, len(rows) + 2)) == lines
