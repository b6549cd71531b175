"""Calibrate a training: make a few of its steps in a new process, and store their speed.

    python -m unitune_local.training.profile_run FOLDER

reads ``profile.json`` in the folder. It trains twice on the largest step and some others, as the
first pass prepares kernels. Sampled answers are replaced by stand-ins.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

from unitune.data.dataset import Dataset
from unitune.documents import Closed
from unitune.errors import BackendError, DataError, Unsupported
from unitune.job.job import Job
from unitune_local.data.batches import TrainingRow
from unitune_local.forecasting.cost import StepClock
from unitune_local.forecasting.forecast import TrainingForecast, forecast, require_memory
from unitune_local.forecasting.memory_fit import fit_batches
from unitune_local.job_folder import drop_note
from unitune_local.settings import SelectionSettings, Settings
from unitune_local.spec import SpeedBasis
from unitune_local.training.loop import TrainingContext, train
from unitune_local.training.run import trainable_model
from unitune_local.training.worker import busy_share, environment

STEPS = 3  # in addition to the largest one
LONG_ENOUGH_SECONDS = 20.0  # after which a second step is the last


class ProfileRun(Closed):
    """Training of a few steps."""

    base_path: Path
    settings: Settings
    rows: tuple[TrainingRow, ...]
    basis: SpeedBasis
    busy_share: float


def calibrate(
    job: Job, folder: Path, train: Dataset, validation: Dataset, start: Path | None = None
) -> None:
    """Make a few steps of a job's training, and store their speed for later forecasts.

    Raises:
        DataError: No row can be learnt from.
        Unsupported: The training does not fit into memory, or into one process.
        BackendError: The process died.
    """
    expected = forecast(job, folder, train, validation, start)
    if not expected.rows:
        raise DataError("no row can be trained on; `unitune plan` without --calibrate shows why.")
    require_memory(expected.summary)
    if expected.batching.settings.shard:
        raise Unsupported(
            "a calibration runs in one process, which cannot hold this base model: its training "
            "spreads it over several (options.local.shard). Run unitune plan without --calibrate."
        )
    run = _profile_run(expected, folder)
    with tempfile.TemporaryDirectory(prefix="unitune-calibration-") as scratch:
        (Path(scratch) / "profile.json").write_text(run.model_dump_json(), encoding="utf-8")
        ended = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "unitune_local.training.profile_run", scratch],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=environment(run.settings.threads),
        )
    if ended.returncode != 0:
        last = ended.stderr.strip().rpartition("\n")[2] or f"signal {-ended.returncode}"
        raise BackendError(f"the calibration ended without a result: {last}")


def _profile_run(expected: TrainingForecast, folder: Path) -> ProfileRun:
    batching = expected.batching
    changes = {"epochs": 2, "max_steps": None, "processes": 1, "reward": None}
    changes |= {"selection": SelectionSettings(), "evaluate_every": None}
    settings = batching.settings.model_copy(update=changes)
    some = [*chain.from_iterable(batching.parts)][: STEPS * settings.batch_size]
    rows = (*batching.largest_step, *some)
    steps = fit_batches(expected.cost, settings, rows, available=sys.maxsize)
    return ProfileRun(
        base_path=folder,
        settings=settings,
        rows=rows,
        basis=steps.basis(expected.cost),
        busy_share=busy_share(),
    )


def profile(run: ProfileRun, folder: Path) -> None:
    """Train, and store the speed."""
    model = trainable_model(run.base_path, run.settings)
    clock, before = StepClock(drop_note), time.monotonic()

    def stop() -> bool:
        return len(clock.steps) > 1 and time.monotonic() - before > LONG_ENOUGH_SECONDS

    train(model, run.rows, (), run.settings, TrainingContext(folder, clock.note, stop))
    clock.keep(run.basis, run.settings.device, run.busy_share)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    text = (where / "profile.json").read_text(encoding="utf-8")
    profile(ProfileRun.model_validate_json(text), where)
