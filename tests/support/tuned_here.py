"""Trainings of the local backend in this process, from a job to the tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from unitune.backends.protocol import Launch, Upload
from unitune.files.filesystem import private_folder, sha256
from unitune.job.job import Job
from unitune.models import Start, TunedModel
from unitune_local.job_folder import EventLog, JobFolder, read_events
from unitune_local.training.run import prepare, run_training


def local_job(
    base: Path | str = "tiny", options: Mapping[str, object] = {}, **given: object
) -> Job:
    """Return a job of the local backend on one thread in float32."""
    named = {
        "name": "demo",
        "model": str(base),
        "backend": "local",
        "data": {"train": "train.jsonl"},
    }
    own = {"threads": 1, "dtype": "float32", **options}
    return Job.model_validate({**named, "options": {"local": own}, **given})


def job_for(base: Path, data: Path, **tuning: object) -> Job:
    """Return a job that trains a base on a file by the method that the file's name tells."""
    return local_job(
        base,
        {"device": "cpu"},
        method={"pairs.jsonl": "dpo", "raw.jsonl": "cpt"}.get(data.name, "sft"),
        data={"train": str(data)},
        tuning={"epochs": 1, "learning_rate": 2e-3, **tuning},
        folder=data.parent,
    )


def tune(job: Job, folder: Path, start: str | None = None) -> TunedModel:
    """Train a job in this process, as its worker does."""
    data = Path(job.data.files("train")[0])
    model = TunedModel(backend="local", name=start or "", base=job.base_model)
    began = Start(model=model) if start else None
    launch = Launch("run-1", job, Upload(str(data), sha256(data)), None, folder, began)
    place = JobFolder(folder / "run-1")
    private_folder(place.path)
    place.spec.write_text(prepare(launch).model_dump_json())
    made = run_training(place, EventLog(place.events))
    assert made is not None
    return made


def noted(folder: Path, name: str) -> list[JsonValue]:
    events = read_events(JobFolder(folder / "run-1").events, "").events
    return [event.data[name] for event in events if name in event.data]
