"""Compare a ladder of prompts with a tuned model, on public data and the default model.

    python benchmarks/ladders.py DATA [--only NAME]... [--seeds 1] [--out DIR]

DATA holds the folders banking77 (Casanueva et al. 2020, arXiv 2003.04807, CC-BY-4.0) and disfl-qa
(Gupta et al. 2021, arXiv 2106.04016, CC-BY-4.0). Each task draws its rows by seed, trains and
compares through the public API, and prints the scores with intervals and the verdict.
`banking77-tiny` has 60 rows, of which 30 choose the prompts. This is too little to learn from, so
its tuned model must not be found better.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from unitune import Job, compare, launch

INTENTS = [
    "activate_my_card",
    "age_limit",
    "cash_withdrawal_charge",
    "card_arrival",
    "change_pin",
    "contactless_not_working",
    "exchange_rate",
    "lost_or_stolen_card",
    "pending_transfer",
    "top_up_failed",
]
CLASSIFY = "Classify the customer's message. Answer with one of: " + ", ".join(INTENTS) + "."
REPAIR = "Rewrite the question without its slips of the tongue. Answer with the question alone."

Pair: TypeAlias = tuple[str, str]
"""A question and its expected answer."""


def of_banking77(folder: Path, split: str) -> list[Pair]:
    """Return the rows of `INTENTS`."""
    with (folder / "banking77" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [(row["text"], row["category"]) for row in rows if row["category"] in INTENTS]


def of_disfl_qa(folder: Path, split: str) -> list[Pair]:
    """Return disfluent questions with their fluent form."""
    rows = json.loads((folder / "disfl-qa" / f"{split}.json").read_text(encoding="utf-8"))
    return [(row["disfluent"], row["original"]) for row in rows.values()]


@dataclass(frozen=True)
class Task:
    """Training data and scoring of a task."""

    rows: Callable[[Path, str], list[Pair]]
    system: str
    train: int
    test: int
    scorers: tuple[str, ...]
    epochs: int
    max_tokens: int


TASKS = {
    "banking77": Task(of_banking77, CLASSIFY, 300, 200, ("exact",), 3, 16),
    "disfl-qa": Task(of_disfl_qa, REPAIR, 600, 200, ("exact", "token_f1"), 2, 48),
    "banking77-tiny": Task(of_banking77, CLASSIFY, 60, 100, ("exact",), 1, 16),
}
LADDER = [
    "zero-shot",
    "instructed",
    {"type": "few-shot", "name": "few-shot random", "choose": "random"},
    {"type": "few-shot", "name": "few-shot nearest", "choose": "nearest"},
    "tuned",
    {"type": "tuned", "name": "tuned, prompted", "role": "reference", "prompt": "baseline"},
]


def write(pairs: list[Pair], system: str, path: Path) -> None:
    """Write pairs as chat rows."""
    with path.open("w", encoding="utf-8") as file:
        for question, answer in pairs:
            messages = [
                {"role": "system", "content": system},
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def judge(name: str, data: Path, folder: Path, seed: int) -> None:
    """Train and compare for one seed, and print a line for each contender."""
    task = TASKS[name]
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    write(draw.sample(task.rows(data, "train"), task.train), task.system, folder / "train.jsonl")
    write(draw.sample(task.rows(data, "test"), task.test), task.system, folder / "test.jsonl")
    job = Job.model_validate(
        {
            "name": f"{name}-{seed}",
            "model": "smollm2-135m-instruct",
            "backend": "local",
            "data": {"train": "train.jsonl", "test": "test.jsonl"},
            "tuning": {"epochs": task.epochs, "seed": seed},
            "evaluate": {
                "scorers": list(task.scorers),
                "contenders": LADDER,
                "max_tokens": task.max_tokens,
                # Both sets have exact and near duplicates across their splits.
                "leaks": "drop",
            },
            "folder": folder,
        }
    )
    comparison = compare(job, launch(job, allow_duplicate=True).wait(), out=folder / "evaluation")
    for result in comparison.contenders:
        low, high = result.interval
        print(
            f"{name} {seed}  {result.name:<18} {result.score:6.1%}  [{low:.1%}, {high:.1%}]  "
            f"n={result.n}  {result.effort}"
        )
    low, high = comparison.interval
    print(
        f"{name} {seed}  {comparison.verdict}: {comparison.candidate} minus {comparison.baseline} "
        f"{comparison.difference:+.1%} [{low:+.1%}, {high:+.1%}]  p={comparison.p_value:.2g}  "
        f"{time.monotonic() - started:.0f} s",
        flush=True,
    )


def main() -> None:
    """Read the arguments, and run every task and seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", action="append", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(tempfile.mkdtemp(prefix="ladders-")))
    arguments = parser.parse_args()
    for name in arguments.only or TASKS:
        for seed in range(arguments.seeds):
            judge(name, arguments.data, arguments.out / f"{name}-{seed}", seed)


if __name__ == "__main__":
    main()
