"""Calibrate a job: let a process of its own rehearse its training, and keep the figures.

The rows to rehearse are chosen here, of every length that the job has and with the longest among
them. The process is started as a worker is (`unitune_local.worker`), so that it computes alike, and
its folder is removed with all that it wrote.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from unitune.data.dataset import Dataset
from unitune.errors import BackendError, DataError
from unitune.job.job import Job
from unitune_local import cost_model, store
from unitune_local.adapter import checked_prompts
from unitune_local.batches import TrainingRow
from unitune_local.cost_model import Figures
from unitune_local.forecast import look_ahead, require_room
from unitune_local.profile_run import VALIDATED_ROWS, Rehearsal, every
from unitune_local.spec import DataFile, Spec
from unitune_local.worker import environment

ROWS = 512
"""Rows to choose from; of them a few dozen are trained on."""


def calibrate(job: Job, folder: Path, train: Dataset, validation: Dataset) -> Figures:
    """Time a few steps of a job's training, and keep what they took.

    Args:
        job: What to tune and how.
        folder: Of the base model.
        train: Rows to learn from.
        validation: Rows to measure on; may be empty.

    Raises:
        DataError: No row can be learnt from.
        Unsupported: The training would not fit into memory.
        BackendError: The process died.
    """
    outlook = look_ahead(job, folder, train, validation)
    if not outlook.rows:
        raise DataError("no row can be learnt from; `unitune plan` without --calibrate says why.")
    require_room(outlook.forecast)
    nothing = DataFile(path=folder, sha256="")
    rehearsal = Rehearsal(
        spec=Spec(
            base=job.base_model,
            base_path=folder,
            base_fingerprint=store.fingerprint(folder),
            training=nothing,
            validation=None,
            data_fingerprint="",
            settings=outlook.settings,
        ),
        shape=outlook.shape,
        rows=_by_length(outlook.rows, outlook.settings.batch_size),
        validation=tuple(every(outlook.validation, VALIDATED_ROWS)),
        prompts=tuple(checked_prompts(outlook.rows, outlook.validation)),
        weight_file_bytes=store.weight_bytes(folder),
    )
    measured = _rehearsed(rehearsal)
    cost_model.keep(measured, outlook.shape, outlook.settings)
    return measured


def _by_length(rows: tuple[TrainingRow, ...], batch_size: int) -> tuple[TrainingRow, ...]:
    """Return enough rows of every length, the longest batch among them."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return tuple(every(ordered[:-batch_size], ROWS) + ordered[-batch_size:])


def _rehearsed(rehearsal: Rehearsal) -> Figures:
    with tempfile.TemporaryDirectory(prefix="unitune-calibration-") as scratch:
        folder = Path(scratch)
        (folder / "rehearsal.json").write_text(rehearsal.model_dump_json(), encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "unitune_local.profile_run", str(folder)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=environment(rehearsal.spec.settings.threads),
        )
        if done.returncode != 0:
            last = done.stderr.strip().rpartition("\n")[2] or f"signal {-done.returncode}"
            raise BackendError(f"the calibration ended without a result: {last}")
        return Figures.model_validate_json((folder / "figures.json").read_text(encoding="utf-8"))
