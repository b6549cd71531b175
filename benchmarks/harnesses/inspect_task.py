"""Define the same cases as a task of inspect; run by ``inspect eval``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import exact
from inspect_ai.solver import generate


@task
def cases() -> Task:
    """Return the task."""
    rows = Path(os.environ["BENCH_CASES"]).read_text(encoding="utf-8").splitlines()
    samples = [
        Sample(input=row["question"], target=row["expected"]) for row in map(json.loads, rows)
    ]
    config = GenerateConfig(max_tokens=16, temperature=0)
    return Task(dataset=samples, solver=generate(), scorer=exact(), config=config)
