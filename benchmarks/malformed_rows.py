"""Read many malformed rows in every form, and check that exactly these are named by line.

    python benchmarks/malformed_rows.py [--rows 100000] [--seed 0]

Writes files of 40 rows, half of them spoilt in one of the ways of `SPOILERS`, as JSON Lines, a JSON
list or gzip, and tables as CSV, TSV, Parquet or Excel. They are read as training rows; each form
and way gets a line. The exit code is 1 when reading raises, a spoilt row is not named by file and
line, or an intact one has an error.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from openpyxl import Workbook

from unitune.data.load import read
from unitune.data.rows import Use
from unitune.findings import Finding

ROWS_A_FILE = 40
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Form:
    """A form of rows.

    Args:
        row: An intact row.
        question: Path of its question.
        answer: Path of its answer.
        turns: Path of its list of turns; empty without one.
        use: Purpose that it is read for.
    """

    row: dict[str, Any]
    question: Path_
    answer: Path_
    turns: Path_ = ()
    use: Use = "sft"

    @property
    def is_table(self) -> bool:
        """True if all of its values are strings."""
        return all(isinstance(value, str) for value in self.row.values())


def turns(user: str, assistant: str, text: str = "content", role: str = "role") -> list[Any]:
    """Return a question and its answer as turns."""
    return [{role: user, text: "A question?"}, {role: assistant, text: "An answer."}]


FORMS = {
    "chat": Form(
        {"messages": turns("user", "assistant")},
        ("messages", 0, "content"),
        ("messages", 1, "content"),
        ("messages",),
    ),
    "chat with tools": Form(
        {
            "messages": [
                {"role": "user", "content": "A question?"},
                {"role": "assistant", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "1", "content": "it"},
                {"role": "assistant", "content": "An answer."},
            ],
            "tools": [TOOL],
        },
        ("messages", 0, "content"),
        ("messages", 3, "content"),
        ("messages",),
    ),
    "ShareGPT": Form(
        {"conversations": turns("human", "gpt", "value", "from")},
        ("conversations", 0, "value"),
        ("conversations", 1, "value"),
        ("conversations",),
    ),
    "Anthropic": Form(
        {"system": "Be brief.", "messages": turns("user", "assistant")},
        ("messages", 0, "content"),
        ("messages", 1, "content"),
        ("messages",),
    ),
    "Gemini": Form(
        {
            "contents": [
                {"role": "user", "parts": [{"text": "A question?"}]},
                {"role": "model", "parts": [{"text": "An answer."}]},
            ]
        },
        ("contents", 0, "parts", 0, "text"),
        ("contents", 1, "parts", 0, "text"),
        ("contents",),
    ),
    "Nova": Form(
        {
            "schemaVersion": "bedrock-conversation-2024",
            "messages": [
                {"role": "user", "content": [{"text": "A question?"}]},
                {"role": "assistant", "content": [{"text": "An answer."}]},
            ],
        },
        ("messages", 0, "content", 0, "text"),
        ("messages", 1, "content", 0, "text"),
        ("messages",),
    ),
    "OpenAI preference": Form(
        {
            "input": {"messages": [{"role": "user", "content": "A question?"}]},
            "preferred_output": [{"role": "assistant", "content": "An answer."}],
            "non_preferred_output": [{"role": "assistant", "content": "No."}],
        },
        ("input", "messages", 0, "content"),
        ("preferred_output", 0, "content"),
        ("input", "messages"),
        use="dpo",
    ),
    "TRL preference": Form(
        {"prompt": "A question?", "chosen": "An answer.", "rejected": "No."},
        ("prompt",),
        ("chosen",),
        use="dpo",
    ),
    "Alpaca": Form(
        {"instruction": "A question?", "input": "", "output": "An answer."},
        ("instruction",),
        ("output",),
    ),
    "pairs": Form(
        {"prompt": "A question?", "completion": "An answer."}, ("prompt",), ("completion",)
    ),
}


def put(row: dict[str, Any], path: Path_, value: Any) -> str:
    """Return a row as JSON with another value at a path."""
    changed = json.loads(json.dumps(row))
    holder: Any = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return json.dumps(changed)


def spoil_call(form: Form, key: str, value: str) -> str | None:
    """Return a row with another value in its call, or None if the form has no calls."""
    if "tools" not in form.row:
        return None
    return put(form.row, ("messages", 1, "tool_calls", 0, "function", key), value)


def without(form: Form, path: Path_) -> str:
    """Return a row without its first key."""
    return json.dumps({key: value for key, value in form.row.items() if key != path[0]})


SPOILERS: dict[str, Callable[[Form], str | None]] = {
    "cut off": lambda form: json.dumps(form.row)[: -len(json.dumps(form.row)) // 3],
    "no object": lambda form: json.dumps([form.row]),
    "not a number": lambda form: put(form.row, ("more",), float("nan")),
    "no question": lambda form: put(form.row, form.question, ""),
    "a question that is a number": lambda form: put(form.row, form.question, {"a": 1}),
    "no answer": lambda form: put(form.row, form.answer, " "),
    "an answer that is a list": lambda form: put(form.row, form.answer, [[1]]),
    "turns that are text": lambda form: put(form.row, form.turns, "hm") if form.turns else None,
    "an empty list of turns": lambda form: put(form.row, form.turns, []) if form.turns else None,
    "an unknown turn": lambda form: put(form.row, (*form.turns, 0), 3) if form.turns else None,
    "a key missing": lambda form: without(form, form.answer),
    "arguments that are not JSON": lambda form: spoil_call(form, "arguments", "{a: 1"),
    "a call of another tool": lambda form: spoil_call(form, "name", "g"),
}
CELLS = {"no question": "question", "no answer": "answer"}
"""Ways to spoil a row of a table."""


def write_json(path: Path, lines: list[str]) -> dict[int, int]:
    """Write rows as JSON, and return the line of each by its position."""
    text = "\n".join(lines) + "\n"
    if path.suffix == ".json":
        text = "[\n" + ",\n".join(lines) + "\n]\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return {at: at + (2 if path.suffix == ".json" else 1) for at in range(len(lines))}


def write_table(path: Path, rows: list[dict[str, str]]) -> dict[int, int]:
    """Write rows as a table, and return the line of each by its position."""
    header = list(rows[0])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return {at: at + 1 for at in range(len(rows))}
    if path.suffix == ".xlsx":
        book = Workbook()
        sheet = book.active
        assert sheet is not None
        for values in (header, *([row[key] for key in header] for row in rows)):
            sheet.append(values)
        book.save(path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            mark = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, header, delimiter=mark)
            writer.writeheader()
            writer.writerows(rows)
    return {at: at + 2 for at in range(len(rows))}


def faults_of(
    path: Path, form: Form, lines: dict[int, int], spoilt: dict[int, str]
) -> dict[str, list[str]]:
    """Read a file, and return the errors in its findings, by the way of spoiling."""
    faults: dict[str, list[str]] = {}
    try:
        findings = [item for item in read(path, use=form.use) if isinstance(item, Finding)]
    except Exception as error:  # noqa: BLE001 - the benchmark counts every exception
        return {"raised": [repr(error)]}
    named = {finding.line for finding in findings}
    wrong = {finding.line: finding for finding in findings if finding.severity == "error"}
    for at, line in lines.items():
        if at in spoilt and line not in named:
            faults.setdefault(spoilt[at], []).append(f"{path.name}:{line} is not named")
        if at not in spoilt and line in wrong:
            faults.setdefault("whole", []).append(str(wrong[line]))
    return faults


def throw(
    form: Form, folder: Path, chance: random.Random
) -> tuple[Counter[str], dict[str, list[str]]]:
    """Read one file of a form; return how it was spoilt, and the faults."""
    spoilt: dict[int, str] = {}
    places = range(1, ROWS_A_FILE, 2)  # the first row may determine the reading of a list
    kinds = ["rows.jsonl", "rows.json", "rows.jsonl.gz"]
    kinds += ["rows.csv", "rows.tsv", "rows.parquet", "rows.xlsx"] if form.is_table else []
    path = folder / chance.choice(kinds)
    if path.name.split(".", 1)[1] in ("csv", "tsv", "parquet", "xlsx"):
        rows = [dict(form.row) for _ in range(ROWS_A_FILE)]
        for at in places:
            spoilt[at] = chance.choice(list(CELLS))
            place = form.question if spoilt[at] == "no question" else form.answer
            rows[at][str(place[0])] = " "
        return Counter(spoilt.values()), faults_of(path, form, write_table(path, rows), spoilt)
    lines = [json.dumps(form.row)] * ROWS_A_FILE
    ways = {name: text for name, make in SPOILERS.items() if (text := make(form)) is not None}
    if path.suffix == ".json":
        del ways["cut off"]  # nothing after it can be read
    for at in places:
        spoilt[at] = chance.choice(list(ways))
        lines[at] = ways[spoilt[at]]
    return Counter(spoilt.values()), faults_of(path, form, write_json(path, lines), spoilt)


def main() -> int:
    """Read all files, print the counts, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    spoilt: Counter[tuple[str, str]] = Counter()
    faults: dict[tuple[str, str], list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        while spoilt.total() < given.rows:
            form = chance.choice(list(FORMS))
            counts, wrong = throw(FORMS[form], Path(name), chance)
            spoilt.update({(form, way): count for way, count in counts.items()})
            for way, texts in wrong.items():
                faults.setdefault((form, way), []).extend(texts)
    for form, way in sorted({*spoilt, *faults}):
        some = faults.get((form, way), [])
        said = f"{len(some):,} FAULTS: {some[0]}" if some else "all named"
        print(f"{form:18} {way:28} {spoilt[form, way]:6,}  {said}")
    print(f"{spoilt.total():,} malformed rows, {sum(map(len, faults.values())):,} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
