"""Calibration: a training is profiled on some of its micro-batches, in a process of its own.

    python -m unitune_local.training.profile_run FOLDER

reads ``profile.json`` in the folder and writes ``cost_model.json``. The process is started as a
worker is, so that it computes alike. It loads the model, trains on the job's largest micro-batch
and on others of every size, each twice (the first time makes its kernels), and saves and checks the
adapter. Memory is the process's own high-water mark.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel

from unitune.data.dataset import Dataset
from unitune.errors import BackendError, DataError, Unsupported
from unitune.job.job import Job
from unitune.security.spec import Closed
from unitune.workspace.filesystem import replacing
from unitune.workspace.today import today
from unitune_local import machine
from unitune_local.data.batches import TrainingRow
from unitune_local.forecasting import memory
from unitune_local.forecasting.cost_model import (
    CostModel,
    calibration,
    different_sizes,
    fit,
    part_work,
    steps_bytes,
)
from unitune_local.forecasting.forecast import forecast, require_memory
from unitune_local.inference.answer_cost import keep
from unitune_local.models import store
from unitune_local.models.adapter import check_adapter, checked_prompts, save_adapter
from unitune_local.models.model import load_tokenizer
from unitune_local.objectives.loss import Form, form_of, loss_sum
from unitune_local.settings import DataFile, Spec
from unitune_local.training.loop import LONGEST_GRADIENT
from unitune_local.training.run import trainable_model
from unitune_local.training.worker import busy_share, environment

PARTS, FEWEST_PARTS = 16, 2
"""Micro-batches to time, beside the largest."""
PARTS_SECONDS = 16.0
"""After which no more than the fewest are timed."""


class ProfileRun(Closed):
    """What to profile."""

    spec: Spec
    """Of the training; its files of rows are not read."""
    parts: tuple[tuple[TrainingRow, ...], ...]
    """Micro-batches: the largest, then some of the training's."""
    prompts: tuple[tuple[int, ...], ...]
    """For the check of the adapter."""


def calibrate(
    job: Job, folder: Path, train: Dataset, validation: Dataset, start: Path | None = None
) -> CostModel:
    """Profile a job's training, and keep what it took.

    Raises:
        DataError: No row can be learnt from.
        Unsupported: The training would not fit into memory, or into one process.
        BackendError: The process died.
    """
    expected = forecast(job, folder, train, validation, start)
    if not expected.rows:
        raise DataError(
            "no row has anything to train on; `unitune plan` without --calibrate says why."
        )
    require_memory(expected.summary)
    settings = expected.batching.settings
    if settings.shard:
        raise Unsupported(
            "a calibration times one process, which cannot hold this base; its training spreads it "
            "over several (options.local.shard). Plan without --calibrate."
        )
    busy = busy_share()
    run = ProfileRun(
        spec=Spec(
            base=job.base_model,
            base_path=folder,
            base_fingerprint=store.fingerprint(folder),
            training=DataFile(path=folder, sha256=""),
            validation=None,
            data_fingerprint="",
            settings=settings,
        ),
        # The epoch's order is random, so its beginning has micro-batches of every kind.
        parts=tuple(map(tuple, (expected.batching.largest, *expected.batching.parts[:PARTS]))),
        prompts=tuple(checked_prompts(expected.rows, expected.validation)),
    )
    with tempfile.TemporaryDirectory(prefix="unitune-calibration-") as scratch:
        (Path(scratch) / "profile.json").write_text(run.model_dump_json(), encoding="utf-8")
        ended = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "unitune_local.training.profile_run", scratch],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=environment(settings.threads),
        )
        if ended.returncode != 0:
            last = ended.stderr.strip().rpartition("\n")[2] or f"signal {-ended.returncode}"
            raise BackendError(f"the calibration ended without a result: {last}")
        text = (Path(scratch) / "cost_model.json").read_text(encoding="utf-8")
    measured = CostModel.model_validate_json(text).model_copy(update={"busy_share": busy})
    keep(measured, calibration(expected.shape, settings))
    return measured


def profile(run: ProfileRun, folder: Path) -> CostModel:
    """Time the parts of a training and return what they take."""
    spec, settings = run.spec, run.spec.settings
    tokenizer = load_tokenizer(spec.base_path)
    model = trainable_model(spec.base_path, settings)
    rows = [row for part in run.parts for row in part]
    form = form_of(model, rows, settings)
    start_seconds = machine.process_seconds()

    shape = memory.shape_of(model)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(weights.values(), lr=0.0, fused=True)
    # The first time with new memory and kernels.
    first, again = (_seconds(model, optimizer, form, run.parts[0]) for _ in range(2))
    work_of = partial(part_work, shape, form=form, twice=settings.gradient_checkpointing)
    timed = [(work_of(run.parts[0]), again)]
    before = time.perf_counter()
    for part in run.parts[1:]:
        if len(timed) > FEWEST_PARTS and time.perf_counter() - before > PARTS_SECONDS:
            break
        _seconds(model, optimizer, form, part)
        timed.append((work_of(part), _seconds(model, optimizer, form, part)))
    part_seconds, flop_seconds = fit(timed)

    before = time.perf_counter()
    save_adapter(model, tokenizer, spec, folder / "adapter")
    check_adapter(model, spec, folder / "adapter", run.prompts)
    end_seconds = time.perf_counter() - before
    peak = machine.peak_of_process(settings.device)

    meta = memory.meta_model(spec.base_path, settings)
    part_bytes = memory.held_bytes(meta, form, run.parts[0])
    sizes = different_sizes([work for work, _ in timed])
    return CostModel(
        measured_on=today(),
        packed=form.kind == "packed",
        start_seconds=start_seconds + max(0.0, first - again),
        part_seconds=part_seconds,
        flop_seconds=flop_seconds,
        end_seconds=end_seconds,
        held_bytes=peak - steps_bytes(settings, part_bytes, sizes),
    )


def _seconds(
    model: PeftModel, optimizer: torch.optim.Optimizer, form: Form, rows: Sequence[TrainingRow]
) -> float:
    """Return what a step of one micro-batch takes."""
    model.train()
    before = time.perf_counter()
    loss = loss_sum(model, form.batch(rows, cast("torch.device", model.device)))
    torch.autograd.backward(loss)
    loss.item()  # waits for a GPU
    weights = optimizer.param_groups[0]["params"]
    torch.nn.utils.clip_grad_norm_(weights, LONGEST_GRADIENT).item()
    cast("Any", optimizer).step()
    optimizer.zero_grad()
    return time.perf_counter() - before


if __name__ == "__main__":
    where = Path(sys.argv[1])
    profile_text = (where / "profile.json").read_text(encoding="utf-8")
    measured = profile(ProfileRun.model_validate_json(profile_text), where)
    with replacing(where / "cost_model.json") as file:
        file.write(measured.model_dump_json(indent=2))
