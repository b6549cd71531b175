"""Write a few answered rows, questions without answers, and a test, from ../bank-intents.

Its rows are CC BY 4.0. Two answered rows for each of 10 topics are too few to learn from, and the
teacher answers the questions.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = HERE.parent / "bank-intents"
TOPICS, ANSWERED = 10, 2


def by_topic(file: str) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a file by their answer."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in (SOURCE / file).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found[row["messages"][-1]["content"]].append(row)
    return found


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as lines of JSON."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / name).write_text(text, encoding="utf-8")


train, test = by_topic("train.jsonl"), by_topic("test.jsonl")
topics = sorted(train, key=lambda topic: (-len(test[topic]), topic))[:TOPICS]
write("train.jsonl", [row for topic in topics for row in train[topic][:ANSWERED]])
rest = [row for topic in topics for row in train[topic][ANSWERED:]]
write("questions.jsonl", [{**row, "messages": row["messages"][:-1]} for row in rest])
write("test.jsonl", [row for topic in topics for row in test[topic]])
