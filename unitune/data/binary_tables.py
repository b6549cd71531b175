"""Read Parquet, Arrow and Excel files, and data sets of `datasets` (extra `data`).

Dates and decimals become strings, ClassLabel numbers their names; bytes are left out.

Folders saved by `datasets` are read, and data sets of the Hugging Face Hub:

    hf://owner/name                    its train split
    hf://owner/name/test               another split
    hf://owner/name/config/test        a split of a configuration
    hf://owner/name@revision/test      at a commit, a tag or a branch

A data set is downloaded once into the cache of `datasets`, which runs no code of it.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from unitune.data.records import CheckHeader, Flat, Record, TableRow, bad
from unitune.data.tables import records_of
from unitune.files.filesystem import opened
from unitune.findings import Finding, error, note
from unitune.text import clip
from unitune.workspace.install import install_command
from unitune.workspace.progress import counted, counted_file

BATCH_ROWS = 256
_STATES = ("state.json", "dataset_dict.json")


def package(name: str, what: str) -> Any:
    """Import a package of the extra `data`; raises `BadRow` if it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        needed = f"{what} need the package {name.partition('.')[0]}, which is not installed."
        raise bad("missing-package", needed, f"Install it: {install_command('data')}") from None


def parquet_records(stream: BufferedReader, _: CheckHeader) -> Iterator[Record | Finding]:
    """Read a Parquet file."""
    parquet = package("pyarrow.parquet", "Parquet files").ParquetFile(stream, pre_buffer=False)
    batches = parquet.iter_batches(batch_size=BATCH_ROWS)
    yield from arrow_rows(batches, parquet.schema_arrow, "a Parquet file")


def arrow_records(stream: BufferedReader, _: CheckHeader) -> Iterator[Record | Finding]:
    """Read an Arrow file or stream."""
    ipc = package("pyarrow.ipc", "Arrow files")
    if stream.peek(6).startswith(b"ARROW1"):
        file = ipc.open_file(stream)
        batches = (file.get_batch(at) for at in range(file.num_record_batches))
    else:
        file = batches = ipc.open_stream(stream)
    yield from arrow_rows(batches, file.schema, "an Arrow file")


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `datasets` saved this folder."""
    return any((folder / name).is_file() for name in _STATES)


def saved_records(folder: Path) -> Iterator[Record | Finding]:
    """Read one split of a folder that `datasets` saved (`save_to_disk`)."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = " or ".join(
            f"{folder / name}" for name in json.loads(splits.read_bytes())["splits"]
        )
        what = "the folder holds a dataset with several splits."
        yield error("several-splits", what, f"Name one of them: {names}.")
        return
    row = 0
    for file in json.loads((folder / "state.json").read_bytes())["_data_files"]:
        with opened(folder / Path(file["filename"]).name) as stream:
            content = counted_file(stream, f"reading {file['filename']}")
            for record in arrow_records(content, lambda _: None):
                if isinstance(record, Record):
                    row += 1
                    yield Record(row, record.value, file_format="a dataset's folder")


def arrow_rows(batches: Iterable[Any], schema: Any, file_format: str) -> Iterator[Record]:
    """Yield the rows of Arrow batches or tables."""
    labels = _labels(schema)
    number = 0
    for batch in batches:
        batch.validate(full=True)  # a damaged file could otherwise crash the process
        for start in range(0, batch.num_rows, BATCH_ROWS):
            for row in batch.slice(start, BATCH_ROWS).to_pylist(maps_as_pydicts="lossy"):
                number += 1
                for name, names in labels.items():
                    at = row.get(name)
                    row[name] = names[at] if isinstance(at, int) and 0 <= at < len(names) else None
                yield Record(number, cast("Flat", _json(row)), file_format=file_format)


def _labels(schema: Any) -> dict[str, list[str]]:
    features: dict[str, dict[str, Any]] = {}
    with suppress(KeyError, TypeError, ValueError):
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    return {
        name: feature["names"]
        for name, feature in features.items()
        if feature.get("_type") == "ClassLabel"
    }


def _json(value: object) -> JsonValue:
    if isinstance(value, Mapping):
        named = cast("Mapping[str, object]", value)
        return {
            str(key): _json(inner)
            for key, inner in named.items()
            if not isinstance(inner, bytes | None)
        }
    if isinstance(value, list):
        return [_json(inner) for inner in cast("list[object]", value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    return value.isoformat() if isinstance(value, date) else str(value)


def sheet_records(stream: BufferedReader, check_header: CheckHeader) -> Iterator[Record | Finding]:
    """Read the first sheet of an Excel file (.xlsx) that has rows."""
    book = package("openpyxl", "Excel files").load_workbook(stream, read_only=True, data_only=True)
    sheets = [sheet for sheet in book.worksheets if sheet.max_row]
    if others := [repr(sheet.title) for sheet in sheets[1:]]:
        what = f"only the sheet {sheets[0].title!r} was read, not {', '.join(others)}."
        yield note("other-sheets", what, "Save the other sheets as separate files.")
    rows = _sheet_rows(sheets[0]) if sheets else iter(())
    yield from records_of(rows, check_header, "an Excel sheet", ragged=True)


def _sheet_rows(sheet: Any) -> Iterator[TableRow]:
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        values = [_cell(value) for value in cells]
        while values and not values[-1]:
            values.pop()
        if values:
            yield TableRow(number, values, [])


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return value.isoformat(sep=" ").removesuffix(" 00:00:00")
    return "" if value is None else str(value)


SCHEME = "hf://"
_NAME = re.compile(
    r"hf://(?P<path>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<config>[^/]+))??(/(?P<split>[^/]+))?"
)


def source_name(path: str | os.PathLike[str]) -> str:
    """Return a file or data set name; a `Path` has lost a slash of ``hf://``."""
    return re.sub(r"^hf:/+", SCHEME, os.fspath(path))


def hub_records(name: str) -> Iterator[Record]:
    """Read a split of a data set; raises `BadRow` if it cannot be loaded."""
    match = _NAME.fullmatch(name)
    if match is None:
        forms = "hf://owner/name, hf://owner/name/split or hf://owner/name/config/split"
        raise bad("wrong-name", f"{clip(name)} is not the name of a data set.", f"Write {forms}.")
    path, revision, config, split = match.group("path", "revision", "config", "split")
    datasets = package("datasets", "data sets of the Hub")
    if Path(path).exists():  # `datasets` would read it instead
        what = f"the name is ambiguous: there is also a folder {path!r} here."
        raise bad("two-meanings", what, "Name a file in it, or work in another folder.")
    try:
        loaded = datasets.load_dataset(path, config, split=split or "train", revision=revision)
    except Exception as failure:
        reason = str(failure).partition("\n")[0].rstrip(".")
        raise bad(
            "unreachable-dataset",
            f"the data set could not be loaded: {reason}.",
            "Check the name, its split and your connection to huggingface.co. A private data set "
            "needs HF_TOKEN. A folder written by `save_to_disk` is read offline.",
        ) from failure
    batches = loaded.with_format("arrow").iter(batch_size=BATCH_ROWS)
    rows = arrow_rows(batches, loaded.features.arrow_schema, "a data set of the Hub")
    yield from counted(rows, f"reading {name}", loaded.num_rows)
