"""The tests of a promptfoo config, as promptfoo counts them.

They stand in the config or in files (YAML, JSON, JSON Lines, CSV); `defaultTest` is added to each;
a variable that is a list of texts makes a test for each of them. What makes tests by code, or
fetches them, is refused for the whole file.

Source: promptfoo 0.121.20, src/util/testCaseReader.ts, src/csv.ts and src/evaluator.ts, as
installed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue

from unitune.errors import DataError
from unitune.findings import clip
from unitune.importers.foreign import json_file, json_lines, text_file
from unitune.importers.promptfoo.assertions import from_cell
from unitune.importers.promptfoo.scorers import Test
from unitune.importers.promptfoo.yaml12 import lines_of, read_yaml

Config: TypeAlias = Mapping[str, JsonValue]

MOST_TESTS = 100_000
"""Ten variables of ten texts each would be ten thousand million."""
LET_PROMPTFOO = (
    "Let promptfoo make the cases, which asks no model: `promptfoo eval -c {file} --providers echo "
    "-o results.json`, and import promptfoo:results.json."
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A test as it is written, before variables are multiplied."""

    value: Config
    file: Path
    line: int | None


def tests_of(config: Config, path: Path, text: str) -> tuple[Test, ...]:
    """Return all tests of a config.

    Args:
        config: Its content.
        path: Its file; other files are found from its folder.
        text: The same file as text, for the lines of its tests.

    Raises:
        DataError: A file cannot be read, or tests are made by code.
    """
    if config.get("scenarios"):
        raise refusal(path, "it has `scenarios`")
    default = config.get("defaultTest") or {}
    if isinstance(default, str):
        default = read_yaml(_local(default, path), "a default test of promptfoo")
    if not isinstance(default, dict):
        raise refusal(path, f"`defaultTest` is {clip(default)}")
    made: list[Test] = []
    for entry in _entries(config.get("tests"), path, lines_of(text, "tests")):
        for values in _combinations(entry, {**_object(default, "vars"), **_vars(entry)}):
            made.append(_test(len(made) + 1, entry, default, values))
            if len(made) > MOST_TESTS:
                raise refusal(path, f"its lists of variables make more than {MOST_TESTS:,} tests")
    return tuple(made)


def refusal(path: Path, what: str) -> DataError:
    """Return the error about something in a config that only promptfoo can do."""
    return DataError(f"{path}: {what}. {LET_PROMPTFOO.format(file=path.name)}")


def _local(reference: str, config: Path) -> Path:
    """Return a file that a config names, if it is one to read."""
    name = reference.removeprefix("file://")
    if "://" in name or name.endswith((".js", ".ts", ".mjs", ".cjs", ".py", ".xlsx", ".xls")):
        raise refusal(config, f"it takes tests from {reference!r}")
    return config.parent / name


def _entries(tests: JsonValue, config: Path, lines: list[int]) -> Iterator[Entry]:
    if isinstance(tests, str):
        yield from _from_files(tests, config)
        return
    if not isinstance(tests, list):
        raise refusal(config, f"`tests` is {clip(tests)}")
    for at, test in enumerate(tests):
        if isinstance(test, str):
            yield from _from_files(test, config)
        elif isinstance(test, dict) and "path" not in test:
            yield Entry(test, config, lines[at] if at < len(lines) else None)
        else:
            raise refusal(config, f"one of `tests` is {clip(test)}")


def _from_files(reference: str, config: Path) -> Iterator[Entry]:
    path = _local(reference, config)
    pattern = reference.removeprefix("file://") if "*" in reference else ""
    try:
        found = sorted(config.parent.glob(pattern)) if pattern else [path]
    except (ValueError, NotImplementedError) as failure:
        raise refusal(config, f"`tests` has the pattern {reference!r}: {failure}") from failure
    if not found:
        raise DataError(f"{config}: no file matches {reference!r}. Mend the pattern in `tests`.")
    for file in found:
        yield from _from_file(file, config)


def _from_file(file: Path, config: Path) -> Iterator[Entry]:
    what = "tests of promptfoo"
    match file.suffix:
        case ".csv":
            yield from _from_csv(file)
        case ".jsonl":
            for number, test in json_lines(file, what):
                yield _entry(test, file, number)
        case ".json" | ".yaml" | ".yml":
            value = json_file(file, what) if file.suffix == ".json" else read_yaml(file, what)
            for test in value if isinstance(value, list) else [value]:
                yield _entry(test, file, None)
        case _:
            raise refusal(config, f"it takes tests from {file.name!r}")


def _entry(test: JsonValue, file: Path, line: int | None) -> Entry:
    if not isinstance(test, dict):
        where = f"{file}:{line}" if line else str(file)
        raise DataError(f"{where}: {clip(test)} is no test. Write objects with `vars`.")
    return Entry(test, file, line)


def _from_csv(file: Path) -> Iterator[Entry]:
    rows = csv.DictReader(io.StringIO(text_file(file, "a table of tests"), newline=""))
    try:
        for number, row in enumerate(rows, start=1):
            yield Entry({"description": f"Row #{number}", **_from_row(row)}, file, rows.line_num)
    except csv.Error as failure:
        raise DataError(f"{file}:{rows.line_num + 1} is no CSV: {failure}.") from failure


def _from_row(row: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return the test that a row of a table is; columns that begin with __ are not variables."""
    cells = {key.strip(): value or "" for key, value in row.items() if key}
    asserted = [
        dict(from_cell(value.strip()))
        for key, value in cells.items()
        if key.startswith("__expected") and value.strip()
    ]
    test: dict[str, JsonValue] = {
        "vars": {key: value for key, value in cells.items() if not key.startswith("__")},
        "assert": [*asserted],
        "options": {key: cells[f"__{key}"] for key in ("prefix", "suffix") if f"__{key}" in cells},
    }
    if cells.get("__description"):
        test["description"] = cells["__description"]
    if cells.get("__threshold", "").strip():
        test["threshold"] = cells["__threshold"]
    return test


def _vars(entry: Entry) -> dict[str, JsonValue]:
    values = entry.value.get("vars") or {}
    if isinstance(values, str):
        values = read_yaml(_local(values, entry.file), "variables of a test")
    if not isinstance(values, dict):
        raise refusal(entry.file, f"the `vars` of a test are {clip(values)}")
    return values


def _object(value: Config, key: str) -> dict[str, JsonValue]:
    found = value.get(key) or {}
    return found if isinstance(found, dict) else {}


def _combinations(entry: Entry, values: dict[str, JsonValue]) -> Iterator[dict[str, JsonValue]]:
    """Yield the variables once for each combination of those that are lists of texts."""
    if _object(entry.value, "options").get("disableVarExpansion"):
        yield values
        return
    choices = [
        value if isinstance(value, list) and value and isinstance(value[0], str) else [value]
        for value in values.values()
    ]
    for chosen in product(*choices):
        yield {name: _read(value, entry) for name, value in zip(values, chosen, strict=True)}


def _read(value: JsonValue, entry: Entry) -> JsonValue:
    """Return a variable as a template gets it: from its file, and without one last line break."""
    if not isinstance(value, str):
        return value
    if not value.startswith("file://"):
        return value.removesuffix("\n")
    path = entry.file.parent / value.removeprefix("file://")
    if path.suffix not in (".txt", ".md"):
        raise refusal(entry.file, f"a variable comes from {value!r}")
    return text_file(path, "the text of a variable").strip()


def _test(number: int, entry: Entry, default: Config, values: Mapping[str, JsonValue]) -> Test:
    options = {**_object(default, "options"), **_object(entry.value, "options")}
    own, shared = entry.value.get("assert") or [], default.get("assert") or []
    if not isinstance(own, list) or not isinstance(shared, list):
        raise refusal(entry.file, "`assert` of a test is no list")
    described = entry.value.get("description")
    return Test(
        number=number,
        values=values,
        assertions=[*([] if options.get("disableDefaultAsserts") else shared), *own],
        options=options,
        threshold=entry.value.get("threshold", default.get("threshold")),
        description=described if isinstance(described, str) else None,
        file=str(entry.file),
        line=entry.line,
    )
