"""Track runs as TensorBoard event files, in a folder per run below ``.unitune/tensorboard``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unitune.backends.protocol import State
from unitune.errors import UserError
from unitune.tracking.interface import Point, Results, TrackedRun


class TensorBoardTracker:
    """Folder of a run's event files.

    Each process writes its own file. It first reads the files of other processes and skips their
    points. A file that a kill truncated is read up to the truncation.
    """

    def __init__(self, run: TrackedRun) -> None:
        folder = run.home / "tensorboard" / run.id
        self.where = str(folder)
        if folder.is_symlink() or folder.parent.is_symlink():
            raise UserError(f"{folder} is a symbolic link, and nothing is written to it.")
        self._written = _points_in(folder)
        self._event: Any = import_module("tensorboard.compat.proto.event_pb2").Event
        self._summary: Any = import_module("tensorboard.compat.proto.summary_pb2").Summary
        module = import_module("tensorboard.summary.writer.event_file_writer")
        self._writer: Any = module.EventFileWriter(str(folder))

    def log(self, points: Sequence[Point]) -> None:
        """Write figures as scalars by step."""
        for point in points:
            self._write(point.step, point.time, point.values)
        self._writer.flush()

    def add(self, results: Results) -> None:
        """Write the metrics of a comparison as scalars; TensorBoard stores no files."""
        self._write(0, results.time, results.values)

    def close(self, state: State) -> None:
        """Close the file; TensorBoard stores no final state."""
        del state
        self._writer.close()

    def _write(self, step: int, time: float, values: dict[str, float]) -> None:
        for tag, value in values.items():
            if (tag, step, time) not in self._written:
                self._written.add((tag, step, time))
                scalar = self._summary(value=[self._summary.Value(tag=tag, simple_value=value)])
                self._writer.add_event(self._event(wall_time=time, step=step, summary=scalar))


def _points_in(folder: Path) -> set[tuple[str, int, float]]:
    if not folder.is_dir():
        return set()
    module = import_module("tensorboard.backend.event_processing.event_accumulator")
    reader: Any = module.EventAccumulator(str(folder), size_guidance={module.SCALARS: 0})
    reader.Reload()
    return {
        (tag, scalar.step, scalar.wall_time)
        for tag in reader.Tags()[module.SCALARS]
        for scalar in reader.Scalars(tag)
    }
