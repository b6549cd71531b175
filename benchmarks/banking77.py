"""banking77, 10 intents: zero-shot, the best prompt and the tuned model, over several seeds.

    python benchmarks/banking77.py DATA [--seeds 3] [--out DIR]

DATA is a folder with banking77's train.csv and test.csv (Casanueva et al. 2020, arXiv 2003.04807,
CC-BY-4.0). Each seed draws 300 training and 200 test rows of the same 10 intents, trains and
compares through the public API, and prints each contender's exact match with its interval.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
from pathlib import Path

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
SYSTEM = "Classify the customer's message. Answer with one of: " + ", ".join(INTENTS) + "."


def draw(source: Path, target: Path, count: int, random_state: random.Random) -> None:
    """Write ``count`` rows, spread evenly over the intents, as chat rows."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["category"] in INTENTS]
    chosen: list[dict[str, str]] = []
    for intent in INTENTS:
        of_intent = [row for row in rows if row["category"] == intent]
        chosen += random_state.sample(of_intent, min(count // len(INTENTS), len(of_intent)))
    random_state.shuffle(chosen)
    with target.open("w", encoding="utf-8") as file:
        for row in chosen:
            messages = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": row["text"]},
                {"role": "assistant", "content": row["category"]},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def judge(data: Path, folder: Path, seed: int) -> None:
    """Train and compare for one seed, and print a line for each contender."""
    folder.mkdir(parents=True, exist_ok=True)
    random_state = random.Random(seed)
    draw(data / "train.csv", folder / "train.jsonl", 300, random_state)
    draw(data / "test.csv", folder / "test.jsonl", 200, random_state)
    job = Job.model_validate(
        {
            "name": f"banking77-{seed}",
            "model": "smollm2-135m-instruct",
            "backend": "local",
            "data": {"train": "train.jsonl", "test": "test.jsonl"},
            "tuning": {"epochs": 3, "seed": seed},
            # banking77 has near and exact duplicates across its split; they are taken out.
            "evaluate": {"leaks": "drop"},
            "folder": folder,
        }
    )
    comparison = compare(job, launch(job, again=True).wait(), out=folder / "evaluation")
    for result in comparison.contenders:
        low, high = result.interval
        print(
            f"seed {seed}  {result.name:<12} {result.score:6.1%}  [{low:.1%}, {high:.1%}]  "
            f"n={result.n}  {result.effort}"
        )
    low, high = comparison.interval
    print(
        f"seed {seed}  {comparison.verdict}: {comparison.candidate} minus {comparison.baseline} "
        f"{comparison.difference:+.1%} [{low:+.1%}, {high:+.1%}]  p={comparison.p_value:.2g}",
        flush=True,
    )


def main() -> None:
    """Read the arguments and judge every seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(tempfile.mkdtemp(prefix="banking77-")))
    arguments = parser.parse_args()
    for seed in range(arguments.seeds):
        judge(arguments.data, arguments.out / f"seed-{seed}", seed)


if __name__ == "__main__":
    main()
