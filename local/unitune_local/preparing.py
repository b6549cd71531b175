"""From a launch to a spec: all is decided, checked and written down before a worker starts."""

from __future__ import annotations

import platform
from pathlib import Path

import peft
import torch
import transformers

from unitune.backends.protocol import Launch, Upload
from unitune.data.dataset import Dataset
from unitune.errors import DataError
from unitune_local import machine, store
from unitune_local.forecast import forecast, require_memory
from unitune_local.rows import read_rows
from unitune_local.spec import DataFile, Spec


def prepare(launch: Launch) -> Spec:
    """Return the spec of a training.

    Args:
        launch: What was submitted.

    Raises:
        DataError: Rows cannot be trained on; the findings say which and why.
        Unsupported: It will not fit into memory.
        UnknownName: There is no such base model.
    """
    job = launch.job
    base = store.resolve(job.base_model)
    train = read_rows(Path(launch.training.ref))
    held_out = launch.validation
    validation = read_rows(Path(held_out.ref)) if held_out else Dataset("validation", ())
    expected = forecast(job, base, train, validation)
    wrong = tuple(one for one in expected.summary.findings if one.severity == "error")
    if wrong:
        raise DataError(f"{len(wrong)} rows cannot be trained on; first: {wrong[0]}", wrong)
    require_memory(expected.summary)
    return Spec(
        base=job.base_model,
        base_path=base,
        base_fingerprint=store.fingerprint(base),
        training=_file(launch.training),
        validation=_file(held_out) if held_out else None,
        data_fingerprint=train.fingerprint,
        settings=expected.batching.settings,
    )


def diagnose() -> dict[str, str]:
    """Return what this machine computes with, by name."""
    device = machine.device()
    return {
        "device": device.type,
        "cores": str(machine.cores()),
        "dtype": str(machine.best_dtype(device)).removeprefix("torch."),
        "memory free": f"{machine.available_bytes(device.type) / 1e9:.1f} GB",
        "processor": platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "models": ", ".join(model.name for model in store.stored()) or "none yet",
    }


def _file(upload: Upload) -> DataFile:
    return DataFile(path=Path(upload.ref), sha256=upload.sha256)
