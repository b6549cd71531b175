"""Write train.jsonl and test.jsonl from Disfl-QA, whose folder is the argument.

Disfl-QA (Gupta et al. 2021, arXiv 2106.04016) has questions with a false start, and as they were
meant.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).parent
TASK = "Repeat the question as it was finally meant, without the false start."
LONGEST = 130  # characters of a question with its false start


def questions(file: Path, count: int, seed: int) -> list[dict[str, str]]:
    """Draw short questions."""
    rows = json.loads(file.read_text(encoding="utf-8")).values()
    short = [row for row in rows if len(row["disfluent"]) <= LONGEST]
    return random.Random(seed).sample(short, count)


def write(name: str, rows: list[dict[str, str]], answers: dict[str, str]) -> None:
    """Write rows as lines of JSON, with answers under the given keys."""
    lines = [
        json.dumps(
            {
                "prompt": f"{TASK}\n\n{row['disfluent']}",
                **{key: row[value] for key, value in answers.items()},
            }
        )
        for row in rows
    ]
    (HERE / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


source = Path(sys.argv[1])
pairs = {"chosen": "original", "rejected": "disfluent"}
write("train", questions(source / "train.json", 160, 1), pairs)
write("test", questions(source / "test.json", 60, 2), {"completion": "original"})
