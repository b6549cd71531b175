"""Measure checking, planning, searching for near duplicates and listing runs as data grow.

    python benchmarks/scale.py [--rows 1000 10000 100000] [--texts 1000 2000 4000 8000]
                               [--runs 10000 100000] [--banking77 FOLDER] [--source CHECKOUT]

Three tables of CPU seconds (user) and peak MiB, each figure from its own process.

    rows    `unitune check FILE`, `unitune check JOB`, `unitune plan JOB` (openai) and `unitune
            convert FILE` on rows of about 350 bytes: "tmpl" made from a template, "near" as near
            copies of sentences of Python's documentation, "both" alternating. The job has 1,000
            test cases. The exponent of growth is relative to the line above.
    texts   The search for near duplicates where cases and rows grow together: questions of 25 words
            out of 25 and out of 100, which share nearly all their pieces; with --banking77 its
            train.csv against its test.csv.
    runs    `unitune runs` in a ledger of so many runs.

--source measures another checkout, e.g. one before a change. Add 1000000 to --rows for the largest
file (350 MB and some minutes).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics

HERE = Path(__file__).parents[1]
CASES = 1000
SYSTEM = "You answer customers of a bank with the one label that fits their message."
LABELS = ("card_arrival", "top_up_failed", "exchange_rate", "lost_or_stolen_card", "refund")
VOCABULARY = (
    "card account transfer refund balance limit pin cash charge fee declined pending app phone "
    "address currency exchange rate top up order track lost stolen verify"
)
COMMANDS = (
    "check train.jsonl",
    "check unitune.yaml",
    "plan unitune.yaml",
    "convert train.jsonl --to vertex-sft --output written.jsonl",
)
JOB = """\
version: 1
name: scale
backend: openai
model: gpt-4.1-mini-2025-04-14
data: {train: train.jsonl, test: test.jsonl}
evaluate: {scorers: [exact], leaks: allow}
"""
SEARCH = """
import csv, sys, time
from unitune.data.dataset import Row
from unitune.data.example import Example, Message
from unitune.data.overlap import Search

def rows(name):
    with open(name, encoding="utf-8") as file:
        for line, row in enumerate(csv.reader(file), 1):
            turns = (Message(role="user", content=row[0]), Message(role="assistant", content="x"))
            yield Row(line, Example(messages=turns))

train, cases = (list(rows(name)) for name in sys.argv[1:])
begin = time.process_time()
search = Search(cases)
search.compare_rows(train, "train")
print(len(search.shared_cases()), time.process_time() - begin)
"""
FIRST_RUN = """
import time
from pathlib import Path
from unitune.workspace.home import make_home
from unitune.ledger import Ledger, RunRecord

folder = Path(".unitune").resolve()
make_home(folder)
now = time.time()
Ledger(folder).add(
    RunRecord(id="r0000000000", name="scale", backend="openai", base_model="gpt-4.1-mini",
              method="sft", fingerprint="0" * 64, created=now, updated=now, host="here")
)
"""
MORE_RUNS = """
INSERT INTO runs ({columns})
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count} - 1)
SELECT {values} FROM runs, n
"""


@dataclass(frozen=True, slots=True)
class Took:
    """Cost of a process."""

    seconds: float
    mib: float
    said: str

    def __str__(self) -> str:
        return f"{self.seconds:8.1f} {self.mib:6.0f}"


def taken(source: Path, folder: Path, *command: str) -> Took:
    """Run Python on a checkout, and return its cost."""
    folders = (source, source / "providers", source / "local")
    home = str(folder / "home")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders)), "HOME": home}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
        output.seek(0)
        said = output.read().decode()
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)[:80]}: failed: {said}")
    return Took(used.ru_utime, used.ru_maxrss / 1024, said)


def sentences() -> list[str]:
    """Return sentences of Python's documentation of 100 to 200 letters."""
    text = " ".join(" ".join(topics[name].split()) for name in sorted(topics))
    return [one for one in text.split(". ") if 100 <= len(one) <= 200]


def questions(kind: str, count: int, seed: int) -> Iterator[str]:
    """Yield questions by seed: from a template, near copies of sentences, or alternating."""
    if kind == "both":
        halves = (questions(half, count // 2, seed) for half in ("tmpl", "near"))
        yield from chain.from_iterable(zip(*halves, strict=True))
        return
    chance = random.Random(seed)
    words, known = VOCABULARY.split(), sentences()
    for number in range(count):
        if kind == "tmpl":
            asked = " ".join(chance.choices(words, k=12))
            told = f"Reference {chance.randrange(10**9)}, message {number}."
            yield f"Hello, about my {asked}: what can I do? {told}"
        else:
            copy = chance.choice(known).split(" ")
            for _ in range(3):
                copy[chance.randrange(len(copy))] = f"{chance.choice(words)}{number % 1000}"
            yield " ".join(copy)


def write_rows(path: Path, asked: Iterable[str]) -> None:
    """Write training rows with these questions."""
    with path.open("w", encoding="utf-8") as file:
        for number, text in enumerate(asked):
            turns = (
                ("system", SYSTEM),
                ("user", text),
                ("assistant", LABELS[number % len(LABELS)]),
            )
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"messages": messages}) + "\n")


def write_texts(path: Path, texts: Iterable[str]) -> None:
    """Write one text a line, as a table of one column."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([text] for text in texts)


def rows_table(source: Path, counts: Iterable[int]) -> None:
    """Print the cost of commands that read rows."""
    print("| command | rows | CPU s | MiB | exponent |")
    for kind in ("tmpl", "near", "both"):
        last: dict[str, tuple[int, float]] = {}
        for count in counts:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "home").mkdir()
                write_rows(folder / "train.jsonl", questions(kind, count, 1))
                write_rows(folder / "test.jsonl", questions(kind, CASES, 2))
                (folder / "unitune.yaml").write_text(JOB, encoding="utf-8")
                for command in COMMANDS:
                    took = taken(source, folder, "-m", "unitune", *command.split())
                    rows, seconds = last.get(command, (0, 0.0))
                    growth = math.log(took.seconds / seconds, count / rows) if rows else math.nan
                    print(f"| {command} ({kind}) | {count:,} | {took} | {growth:.2f} |", flush=True)
                    last[command] = count, took.seconds


def random_texts(count: int, words: list[str], seed: int) -> Iterator[str]:
    """Yield texts of 25 words."""
    chance = random.Random(seed)
    return (" ".join(chance.choices(words, k=25)) for _ in range(count))


def texts_table(source: Path, counts: Sequence[int], banking77: Path | None) -> None:
    """Print the cost of the search for near duplicates."""
    print("| texts | cases and rows | found | CPU s |")
    few: list[str] = [*VOCABULARY.split()]
    more: list[str] = [*few, *(one + other for one in few[:9] for other in few[9:18])][:100]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, cases = folder / "rows.csv", folder / "cases.csv"
        for words in (few, more):
            for count in counts:
                write_texts(rows, random_texts(count, words, 1))
                write_texts(cases, random_texts(count, words, 2))
                said = taken(source, folder, "-c", SEARCH, str(rows), str(cases)).said.split()
                print(f"| {len(words)} words | {count:,} | {said[0]} | {float(said[1]):.2f}")
        if banking77 is not None:
            files = (str((banking77 / name).resolve()) for name in ("train.csv", "test.csv"))
            said = taken(source, folder, "-c", SEARCH, *files).said.split()
            print(f"| banking77 | train, test | {said[0]} | {float(said[1]):.2f}")


def runs_table(source: Path, counts: Iterable[int]) -> None:
    """Print the cost of listing runs."""
    print("| command | runs | CPU s | MiB |")
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "home").mkdir()
            taken(source, folder, "-c", FIRST_RUN)
            with sqlite3.connect(folder / ".unitune" / "ledger.db") as ledger:
                told = ledger.execute("PRAGMA table_info(runs)")
                columns = [str(row[1]) for row in told]
                values: dict[str, str] = {"id": "printf('r%010d', i)", "created": "created + i"}
                ledger.execute(
                    MORE_RUNS.format(
                        columns=", ".join(columns),
                        count=count,
                        values=", ".join(values.get(column, column) for column in columns),
                    )
                )
            for command in (["runs"], ["runs", "--json"]):
                took = taken(source, folder, "-m", "unitune", *command)
                print(f"| {' '.join(command)} | {count:,} | {took}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="What grows with data, and how.")
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--texts", type=int, nargs="*", default=[1000, 2000, 4000, 8000])
    parser.add_argument("--runs", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--banking77", type=Path)
    parser.add_argument("--source", type=Path, default=HERE)
    given = parser.parse_args()
    source = given.source.resolve()
    if given.rows:
        rows_table(source, given.rows)
    if given.texts:
        texts_table(source, given.texts, given.banking77)
    if given.runs:
        runs_table(source, given.runs)


if __name__ == "__main__":
    main()
