"""Compare the search for near duplicates with an earlier commit's, and measure its growth.

    python benchmarks/near_duplicates.py [--banking77 FOLDER] [--before COMMIT] [--texts 10000 ...]

Two tables, in CPU seconds of this process; the shortest of five alternating runs.

    banking77  Its 10,003 training questions against its 3,080 test questions: both searches must
               find the same pairs.
    growth     All pairs within 10,000 texts and more, with the exponent of growth between lines:
               "varied" are near copies of sentences of Python's documentation; "template" are
               questions of 12 words out of 25 with a number; "slots" one sentence with three slots,
               from 50 words each.

The exit code is 1 when the two searches differ.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType

from scale import VOCABULARY, questions

from unitune.data import near
from unitune.data.questions import Templates, normal, text_of

HERE = Path(__file__).parents[1]
BEFORE = "c602cead"
"""Last commit that compared all pairs with enough common rare pieces in Python."""
RUNS = 5
TOGETHER = 1024
Pairs = set[tuple[int, int]]


def earlier(commit: str) -> ModuleType:
    """Return the module of an earlier commit."""
    command = ("git", "-C", str(HERE), "show", f"{commit}:unitune/data/near.py")
    source = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    module = ModuleType("near_before")
    sys.modules[module.__name__] = module
    exec(compile(source, "near.py", "exec"), module.__dict__)  # noqa: S102 - of this repository
    return module


def questions_of(path: Path) -> list[str]:
    """Return the unique questions of a file, as the search for leaks compares them."""
    with path.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    turns = dict.fromkeys((normal(text),) for text in texts)
    templates = Templates(turns)
    return list(dict.fromkeys(text_of(templates.own_words(each)) for each in turns))


def pairs_of(module: ModuleType, cases: list[str], rows: list[str]) -> Pairs:
    """Return the near duplicates of rows among cases, some thousand rows at a time."""
    index = module.NearIndex(cases)
    return {
        (start + double.text, double.indexed)
        for start in range(0, len(rows), TOGETHER)
        for double in index.doubles(rows[start : start + TOGETHER])
    }


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of a function call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def against_before(folder: Path, commit: str) -> bool:
    """Print both searches on banking77, and return whether they find the same pairs."""
    rows, cases = (questions_of(folder / name) for name in ("train.csv", "test.csv"))
    searches = {f"before ({commit})": earlier(commit), "now": near}
    taken: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(RUNS):
        for name, module in searches.items():
            taken[name].append(seconds(lambda module=module: pairs_of(module, cases, rows)))
    pairs = [pairs_of(module, cases, rows) for module in searches.values()]
    print("| banking77 | pairs | CPU s |\n|--|--|--|")
    for name, found in zip(searches, pairs, strict=True):
        print(f"| {name} | {len(found)} | {min(taken[name]):.3f} |")
    first, last = (min(some) for some in taken.values())
    print(f"\n{first / last:.1f} times as fast; the same pairs: {pairs[0] == pairs[1]}\n")
    return pairs[0] == pairs[1]


def slots(count: int) -> Iterator[str]:
    """Yield one sentence with three slots that few words fill, and a number."""
    chance, words = random.Random(1), VOCABULARY.split()
    names = [one + other for one in words for other in ("", "ing")]
    for _ in range(count):
        first, second = chance.choices(names, k=2)
        yield f" Hello {first}, your order {chance.randrange(10**6)} from {second} town is late "


def growth(counts: Iterable[int]) -> None:
    """Print the cost of finding all pairs within texts."""
    kinds = {
        "varied": lambda count: questions("near", count, 1),
        "template": lambda count: questions("tmpl", count, 1),
        "slots": slots,
    }
    print("| texts | number | candidates | CPU s | exponent |\n|--|--|--|--|--|")
    for kind, make in kinds.items():
        last: tuple[int, float] | None = None
        for count in counts:
            texts = list(dict.fromkeys(make(count)))
            begin = time.process_time()
            index = near.NearIndex(texts)
            pairs = sum(len(others) for _, others in index.candidates_within())
            took = time.process_time() - begin
            exponent = math.log(took / last[1]) / math.log(count / last[0]) if last else math.nan
            print(f"| {kind} | {count:,} | {pairs:,} | {took:.2f} | {exponent:.2f} |", flush=True)
            last = count, took


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="The search for near duplicates.")
    parser.add_argument("--banking77", type=Path)
    parser.add_argument("--before", default=BEFORE)
    parser.add_argument("--texts", type=int, nargs="*", default=[10_000, 20_000, 40_000, 80_000])
    given = parser.parse_args()
    same = given.banking77 is None or against_before(given.banking77, given.before)
    growth(given.texts)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
