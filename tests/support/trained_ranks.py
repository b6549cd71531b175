"""Trainings in several ranks, of a tiny model.

Each rank is a thread with a process group of its own; but those that share a base
(`unitune_local.parallel.ranks`) are processes, which run this file:
``python trained_ranks.py MODEL FOLDER SETTINGS RANK``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch.distributed.tensor import DTensor

from support.tiny_model import write_pairs, write_rows
from support.tiny_training import Trained, fresh
from support.warm import WarmPopen
from unitune.data.dataset import Dataset, Row
from unitune.scorers.interface import Setting
from unitune.scorers.text import Regex
from unitune_local.data.batches import TrainingRow
from unitune_local.data.rows import read_rows, render_prompts, render_rows
from unitune_local.grading import Reward, RewardGrader
from unitune_local.job_folder import Kind
from unitune_local.models.model import load_tokenizer
from unitune_local.parallel.ranks import ALONE, Ranks, joined
from unitune_local.settings import Settings
from unitune_local.training.loop import TrainingContext, train
from unitune_local.training.run import trainable_model

T = TypeVar("T")
WAIT = timedelta(seconds=60)


def in_ranks(size: int, folder: Path, act: Callable[[Ranks], T]) -> list[T]:
    """Let each of several ranks act, and return what they return."""
    if size == 1:
        return [act(ALONE)]
    distributed, store = cast("Any", dist), folder / "store"

    def be(rank: int) -> T:
        group = distributed.ProcessGroupGloo(
            distributed.FileStore(str(store), size), rank, size, WAIT
        )
        return act(Ranks(group))

    store.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(size) as threads:
        return [future.result() for future in [threads.submit(be, rank) for rank in range(size)]]


def figures_of(done: Trained) -> dict[str, dict[str, float]]:
    """Return the figures of each step and validation."""
    kinds: tuple[Kind, ...] = ("step", "validation")
    return {
        f"{kind} {data['step']}": {name: float(value) for name, value in data.items()}
        for kind in kinds
        for data in done.noted(kind)
    }


def run(
    base: Path, folder: Path, size: int, settings: Settings, stop_after: int | None = None
) -> list[Trained]:
    rows, held_out = rows_of(base, folder.parent, settings)
    every = [Trained(fresh(base, settings)) for _ in range(size)]

    def act(own: Ranks) -> None:
        done, first = every[own.rank], every[0]
        context = TrainingContext(
            folder,
            done.note,
            lambda: len(first.steps) == stop_after,
            grader=grader_of(base),
            ranks=own,
        )
        done.finished = train(done.model, rows, held_out, settings, context)

    in_ranks(size, folder, act)
    return every


def run_sharded(base: Path, folder: Path, settings: Settings) -> dict[str, dict[str, float]]:
    """Train in two processes, each with half of the base, and return what the first one noted."""
    folder.mkdir()
    chosen = settings.model_copy(update={"processes": 2, "shard": True}).model_dump_json()
    command = [sys.executable, "-m", "support.trained_ranks", str(base), str(folder), chosen]
    with (folder / "log").open("wb") as log:
        started = [
            WarmPopen([*command, str(rank)], stdout=log.fileno(), stderr=log.fileno())
            for rank in range(2)
        ]
    assert [each.wait(60) for each in started] == [0, 0], (folder / "log").read_text()
    return json.loads((folder / "figures.json").read_text())


def be_sharded(base: Path, folder: Path, settings: Settings, rank: int) -> None:
    rows, held_out = rows_of(base, folder, settings)
    with joined(folder / "store", rank, settings) as own:
        done = Trained(trainable_model(base, settings, own))
        for name, weight in done.model.named_parameters():
            whole = not isinstance(weight, DTensor)
            assert whole == (weight.requires_grad or ".layers." not in name), name
        context = TrainingContext(
            folder, done.note, lambda: False, grader=grader_of(base), ranks=own
        )
        train(done.model, rows, held_out, settings, context)
    if own.is_first:
        (folder / "figures.json").write_text(json.dumps(figures_of(done)))


def grader_of(base: Path) -> RewardGrader:
    scorer = Regex(pattern="[a-z]").ready(Setting(), "")
    return RewardGrader(load_tokenizer(base), [Reward.of(scorer)])


def rows_of(
    base: Path, folder: Path, settings: Settings
) -> tuple[tuple[TrainingRow, ...], tuple[TrainingRow, ...]]:
    """Training rows, of which the last step has one alone, and held-out rows."""
    write = write_rows if settings.preference is None else write_pairs
    dataset = read_rows(write(folder / "rows.jsonl", 23))
    if settings.preference and settings.preference.loss == "kto":
        dataset = rated(read_rows(write_rows(folder / "rows.jsonl", 23)))
    render = render_prompts if settings.reward else render_rows
    rows = render(load_tokenizer(base), dataset, 512).rows
    return rows[6:], rows[:6]


def rated(dataset: Dataset) -> Dataset:
    return Dataset(
        dataset.name,
        tuple(
            Row(row.line, row.example.model_copy(update={"kto_tag": row.line % 2 == 0}))
            for row in dataset.rows
        ),
    )


if __name__ == "__main__":
    model_folder, training_folder, given, number = sys.argv[1:]
    be_sharded(
        Path(model_folder),
        Path(training_folder),
        Settings.model_validate_json(given),
        int(number),
    )
