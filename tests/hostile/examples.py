"""Valid things to begin with: rows, jobs and what their commands leave; all small."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from hostile.attempts import left_by
from hostile.values import as_json_lines

ANSWERS = ("Paris 1", "Rome 2", "Oslo 3")


def rows(prefix: str, count: int) -> list[dict[str, Any]]:
    """Return rows with prompt and completion, and keys of their own."""
    return [
        {
            "prompt": f"{prefix} {at * 7919}?",
            "completion": ANSWERS[at % 3],
            "id": f"{prefix}{at}",
            "answer": ANSWERS[at % 3],
            "topic": "ab"[at % 2],
        }
        for at in range(count)
    ]


TRAIN, VALIDATION, TEST = rows("train", 12), rows("dev", 4), rows("case", 5)
ANSWERED: list[dict[str, Any]] = [
    {"case": row["id"], "answer": row["completion"], "scores": {"match": 1.0}} for row in TEST
]
RECORDED = [
    {"type": "recorded", "name": "old", "answers": "old.jsonl", "role": "baseline"},
    {"type": "recorded", "name": "new", "answers": "new.jsonl", "role": "candidate"},
]
FILES = {
    "train.jsonl": as_json_lines(TRAIN),
    "dev.jsonl": as_json_lines(VALIDATION),
    "test.jsonl": as_json_lines(TEST),
    "old.jsonl": as_json_lines(ANSWERED),
    "new.jsonl": as_json_lines(ANSWERED),
    "table.csv": b"question,answer,note\nwhere?,here,a\nwhen?,now,b\nwho?,me,\nwhy?,so,c\n",
    "schema.json": b'{"type": "object", "properties": {"a": {"type": "string"}}}',
    "grader.json": b'{"type": "string_check", "name": "g", "operation": "eq", "input": '
    b'"{{sample.output_text}}", "reference": "{{item.answer}}"}',
    "checks.py": b"def score(answer, case):\n    return float(len(str(answer)) > 2)\n",
}
"""In the folder of every example."""


def job(**more: Any) -> dict[str, Any]:
    """Return a job that trains on the fake backend, with other values in some places."""
    data = {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"}
    return {"name": "demo", "model": "fakebase", "backend": "fake", "data": data, **more}


def comparison(*scorers: Any, **more: Any) -> dict[str, Any]:
    """Return a job that compares two files of recorded answers."""
    judged = {"scorers": list(scorers or ("exact",)), "contenders": RECORDED}
    return job(data={"test": "test.jsonl"}, evaluate={**judged, **more})


JOBS = {
    "recorded": comparison("exact", "contains", "numeric", "length", "consistency"),
    "scored": comparison(
        {"type": "choice", "options": list(ANSWERS)},
        {"type": "regex", "pattern": "^[A-Z]"},
        {"type": "json_schema", "definition": "schema.json"},
        {"type": "recorded_score", "key": "match"},
        {"type": "python", "function": "checks.py:score"},
        {"type": "grader", "grader": "grader.json"},
        "token_f1",
        "edit_distance",
        "rouge",
        {"type": "class_f1", "options": list(ANSWERS)},
        gate={"mode": "no-regress"},
        slices=["topic"],
    ),
    "fake": job(),
    "priced": job(
        model="gpt-4.1-mini-2025-04-14",
        backend="openai",
        prices=[{"backend": "openai", "training": 25}],
        budget={"usd": 20},
        usage={"requests_month": 1000, "rival": {"model": "gpt-4.1", "backend": "openai"}},
        tuning={"epochs": 2, "seed": 1},
        options={"openai": {"learning_rate_multiplier": 2}},
    ),
    "elsewhere": job(
        model={"together": "Qwen/Qwen3-8B", "local": "smollm2-135m-instruct"},
        backend="together",
        evaluate={
            "contenders": [
                "zero-shot",
                {"type": "few-shot", "shots": 2},
                {"type": "server", "url": "http://127.0.0.1:1/v1", "model": "m"},
                {"type": "model", "backend": "openai", "model": "gpt-4.1"},
                "tuned",
            ],
            "gate": {
                "mode": "absolute",
                "threshold": 0.5,
                "constraints": [{"metric": "exact", "at_least": 0.2}],
            },
            "budget": {"usd": 1},
        },
    ),
    "table": job(
        data={
            "train": "table.csv",
            "validation": 0.5,
            "columns": {"user": "question", "assistant": "answer"},
        }
    ),
}
"""Of many kinds; each is a file `job.yaml`."""


def as_file(tree: Any) -> bytes:
    """Write a job as YAML, of which JSON is a part."""
    return json.dumps(tree).encode()


@cache
def trained() -> dict[str, bytes]:
    """Return what a run of the fake, its comparison and another run leave."""
    files = {**FILES, "job.yaml": as_file(job()), "other.yaml": as_file(job(tuning={"seed": 3}))}
    return left_by(
        (
            ("run", "job.yaml", "--quiet"),
            ("models", "promote", "newest", "--as", "production", "--without-gate", "a test"),
            ("run", "other.yaml", "--quiet", "--detach"),
            ("compare", "job.yaml", "--quiet", "--output", "rows"),
        ),
        files,
    )


@cache
def compared() -> dict[str, bytes]:
    """Return what a comparison of recorded answers leaves, with a baseline."""
    gate = {"mode": "no-regress", "baseline": "baseline.jsonl", "min_cases": 1}
    files = {**FILES, "job.yaml": as_file(comparison(gate=gate))}
    compare = ("compare", "job.yaml", "--quiet", "--output", "rows")
    return left_by(((*compare, "--update-baseline"),), files)


@cache
def default_model() -> dict[str, bytes]:
    """Return a model cache in which a tiny model stands for the quickstart's."""
    from support.tiny_model import save_tiny_default  # noqa: PLC0415 - needs the extra `local`

    with tempfile.TemporaryDirectory() as folder:
        cache_folder = save_tiny_default(Path(folder, "cache", "unitune"))
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in cache_folder.rglob("*")
            if file.is_file()
        }


@cache
def planned() -> dict[str, bytes]:
    """Return a saved plan beside its job."""
    files = {**FILES, "job.yaml": as_file(job())}
    return left_by((("plan", "job.yaml", "-o", "plan.json"),), files)
