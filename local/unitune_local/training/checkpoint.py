"""Write and read checkpoints, from which a training continues with the same losses.

A checkpoint is a folder ``step-N`` with ``tensors.safetensors`` (adapter and optimiser),
``state.json`` and ``manifest.json`` with the hashes of both. The latest is the highest step with
matching hashes.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import torch as safetensors
from torch import Tensor, nn

from unitune.documents import Closed
from unitune.errors import RunFailed
from unitune.files.filesystem import sha256, whole_folder
from unitune.observability.logs import Log
from unitune_local.job_folder import saved_steps
from unitune_local.training.optimizers import Optimizers
from unitune_local.training.selection import NONE_YET, Selection

log = Log(__name__)
TABLES = ("qmap1", "qmap2")
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"


class Position(Closed):
    """State of a training in a checkpoint, in addition to tensors."""

    step: int
    """Number of optimiser steps done; with seed and data, it determines the next rows."""
    selection: Selection = NONE_YET
    evaluated: bool = True
    """True if the selection includes the evaluation due after the step."""
    scaler: dict[str, int | float] = {}  # noqa: RUF012 - pydantic copies it
    """State of the loss scaler of a training in float16."""


class Checkpoint(NamedTuple):
    """A checkpoint that was read."""

    position: Position
    tensors: dict[str, Tensor]


def save(
    folder: Path,
    position: Position,
    weights: dict[str, nn.Parameter],
    optimizer: Optimizers,
    kept: int = 2,
) -> Path:
    """Write a checkpoint, remove all but the newest `kept` and the best, and return its folder."""
    done = folder / f"step-{position.step}"
    if done.exists():  # from before a crash, or from before the step was evaluated
        shutil.rmtree(done)
    tensors = {f"weight.{name}": weight.detach().cpu() for name, weight in weights.items()}
    for name, weight in weights.items():
        for key, value in cast("dict[str, Any]", optimizer.state[weight]).items():
            saved = torch.as_tensor(value).cpu()  # bitsandbytes counts steps in integers
            # Its tables are one tensor for all weights, which safetensors refuses.
            tensors[f"optimizer.{name}.{key}"] = saved.clone() if key in TABLES else saved
    with whole_folder(done) as draft:
        cast("Any", safetensors).save_file(tensors, draft / TENSORS)
        position = position.model_copy(update={"scaler": optimizer.scaler.state_dict()})
        (draft / STATE).write_text(position.model_dump_json(), encoding="utf-8")
        hashes = {name: sha256(draft / name) for name in (TENSORS, STATE)}
        (draft / MANIFEST).write_text(json.dumps(hashes), encoding="utf-8")
    newest, older = _steps(folder)[:kept], _steps(folder)[kept:]
    positions = [_position(folder / f"step-{each}") for each in newest]
    best = {position.selection.best_step for position in positions if position is not None}
    for old in set(older) - best:
        shutil.rmtree(folder / f"step-{old}")
    return done


class Saver:
    """State after the last whole step, which any thread can save at any moment."""

    def __init__(
        self, folder: Path, weights: dict[str, nn.Parameter], optimizer: Optimizers, kept: int = 2
    ) -> None:
        self.folder, self._weights, self._optimizer = folder, weights, optimizer
        self._kept = kept
        self._lock = threading.Lock()
        self._position: Position | None = None
        self._saved: Position | None = None

    def restore(self, saved: Checkpoint) -> None:
        """Restore weights and optimiser from a checkpoint."""
        restore(saved, self._weights, self._optimizer)
        self._position = self._saved = saved.position

    @contextmanager
    def changing(self, step: int, selection: Selection) -> Generator[None]:
        """Hold back saves while the body makes a step.

        Weights of a failed body belong to no step, and are never saved.
        """
        with self._lock:
            self._position = None
            yield
            self._position = Position(step=step, selection=selection, evaluated=False)

    def move(self, position: Position) -> None:
        """Record a position that the weights have reached without a change."""
        with self._lock:
            self._position = position

    def save(self) -> None:
        """Write a checkpoint, unless it exists or no step is whole."""
        with self._lock:
            self._write()

    def save_and_stop(self) -> None:
        """Save, and block every further step, because this process ends."""
        self._lock.acquire()  # never released
        self._write()

    def _write(self) -> None:
        if self._position is not None and self._position != self._saved:
            done = save(self.folder, self._position, self._weights, self._optimizer, self._kept)
            log.info("wrote the checkpoint %s", done)
            self._saved = self._position


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint, or None without one."""
    return next(filter(None, (_read(folder, step) for step in _steps(folder))), None)


def restore_weights(folder: Path, step: int, weights: dict[str, nn.Parameter]) -> None:
    """Restore weights from an earlier checkpoint; raises RunFailed if it is not whole."""
    if (saved := _read(folder, step)) is None:
        raise RunFailed(
            f"the checkpoint of step {step}, which was the best, is damaged or missing in "
            f"{folder}. Train again. If the disk may be faulty, set tuning.keep to last."
        )
    for name, weight in weights.items():
        weight.data.copy_(saved.tensors[f"weight.{name}"])


def restore(
    checkpoint: Checkpoint, weights: dict[str, nn.Parameter], optimizer: Optimizers
) -> None:
    """Restore weights and optimiser from a checkpoint."""
    if checkpoint.position.scaler:
        optimizer.scaler.load_state_dict(checkpoint.position.scaler)
    tensors = checkpoint.tensors
    for name, weight in weights.items():
        weight.data.copy_(tensors[f"weight.{name}"])
        prefix = f"optimizer.{name}."
        # Counters and moments are on the device where torch's own optimiser puts them.
        optimizer.state[weight] = {
            key.removeprefix(prefix): value.item()
            if value.dtype is torch.int64
            else value.to(weight.device, copy=True)
            for key, value in tensors.items()
            if key.startswith(prefix)
        }


def _read(folder: Path, step: int) -> Checkpoint | None:
    place = folder / f"step-{step}"
    try:
        hashes = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        whole = all(sha256(place / name) == hashes[name] for name in (TENSORS, STATE))
    except (OSError, ValueError, KeyError):
        return None
    if not whole or (position := _position(place)) is None:
        return None
    return Checkpoint(position, cast("Any", safetensors).load_file(place / TENSORS))


def _position(place: Path) -> Position | None:
    try:
        return Position.model_validate_json((place / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # ValueError: torn, or written by another version
        return None


def remove_damaged(folder: Path, step: int) -> list[int]:
    """Remove checkpoints after the newest whole one (0 without one), and return their steps."""
    damaged = sorted(number for number in saved_steps(folder) if number > step)
    for number in damaged:
        place = folder / f"step-{number}"
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    return damaged


def _steps(folder: Path) -> list[int]:
    return sorted(saved_steps(folder), reverse=True)
