"""What tests of trainings at vendors of steps share: the job, its folder, and the double."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.tiny_model import save_tiny_model, write_rows
from support.warm import WARM_SUBPROCESS
from unitune.backends import registry
from unitune.backends.protocol import Launch
from unitune.job.job import Data, Job, Tuning
from unitune.job.prices import PriceEntry
from unitune.testing.contract_base import sha256_of
from unitune.testing.loopback import Server, serve
from unitune_local.job_folder import EventLog, JobFolder, Result
from unitune_local.steps.run import run_training
from unitune_local.training import worker

Environment = Callable[[str], Mapping[str, str]]  # by the address of the double


def launch(name: str, base: Path, folder: Path, *, price: str = "1000", **options: str) -> Launch:
    """Return the launch of four steps at a backend, with a price per million tokens."""
    backend = registry.backend(name)
    file = write_rows(folder / "train.jsonl", 8)
    prices = [{"backend": name, "training": int(price)}] if price else []
    job = Job(
        name="steps",
        model=str(base),
        backend=name,
        data=Data(train="train.jsonl"),
        tuning=Tuning(epochs=2, batch_size=4),
        options={name: {**options}},
        prices=(*map(PriceEntry.model_validate, prices),),
        folder=folder,
    )
    return Launch("r1-1", job, backend.upload(file, sha256_of(file)), None, folder)


def prepared(launch: Launch, folder: Path) -> JobFolder:
    """Write the specification of a launch into a job's folder."""
    there, backend = JobFolder(folder), registry.backend(launch.job.backend)
    there.path.mkdir(exist_ok=True)
    there.spec.write_text(backend.specify(launch))  # type: ignore[attr-defined]
    return there


def trained(there: JobFolder) -> Result:
    """Train in this process, and return the result with its model."""
    result = run_training(there, EventLog(there.events))
    assert result is not None
    assert result.model is not None
    return result


@contextmanager
def served(
    vendor: Any, environment: Environment, patch: pytest.MonkeyPatch | None = None
) -> Generator[Server]:
    """Serve a double, and set the environment that leads to it."""
    with serve(vendor) as server, pytest.MonkeyPatch.context() as own:
        server.late_seconds = 0.1
        for name, value in environment(server.url).items():
            (patch or own).setenv(name, value)
        yield server


@contextmanager
def contract_served(
    test: Any, vendor: Callable[..., Any], environment: Environment, models: Path
) -> Generator[None]:
    """Serve a double with a tiny model to a contract's test class, with warm workers."""
    test.model = str(save_tiny_model(models / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_CACHE", str(models / "cache"))
        patch.setattr(worker, "subprocess", WARM_SUBPROCESS)
        with served(vendor(models={test.model: 512}), environment, patch):
            yield
