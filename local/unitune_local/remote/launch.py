"""Define the launch that a create call sends to another machine, and the options of its job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, JsonValue

from unitune.backends import registry
from unitune.backends.options import job_options
from unitune.backends.protocol import Launch, Upload
from unitune.documents import Frozen
from unitune.job.job import Job
from unitune.models import Start, TunedModel
from unitune_local.options import LocalOptions

VARIABLE = "UNITUNE_LAUNCH"  # environment variable of the job with its launch


class RemoteOptions(LocalOptions):
    """Options of a backend that trains on other machines, with those of local training."""

    max_failures: Annotated[int, Field(ge=0)] = 3
    """Number of times that a training continues from the same checkpoint after losing a worker or a
    node; a new checkpoint resets the count."""

    def of_worker(self) -> dict[str, JsonValue]:
        """Return the options of local training in one worker."""
        chosen = self.model_dump(mode="json", include=set(LocalOptions.model_fields))
        return {**chosen, "processes": 1}  # of a node: `prepare` checks its memory


class StartFolder(Frozen):
    """Adapter that a training continues from, by its name in the storage."""

    ref: str
    run: str | None


class RemoteLaunch(Frozen):
    """Launch sent to the machine that trains."""

    key: str
    storage: str
    job: dict[str, JsonValue]
    training: Upload
    validation: Upload | None
    start: StartFolder | None = None

    @classmethod
    def of(cls, launch: Launch, storage: str, start: str | None = None) -> Self:
        """Return a launch with the address of the storage that holds its files."""
        return cls(
            key=launch.key,
            storage=storage,
            job=launch.job.model_dump(mode="json", exclude_defaults=True),
            training=launch.training,
            validation=launch.validation,
            start=StartFolder(ref=start, run=launch.start.run) if start and launch.start else None,
        )

    @property
    def options(self) -> RemoteOptions:
        """Options of the job for its backend, whose offer names their model."""
        job = Job.model_validate(self.job)
        kind = registry.options_of(registry.offer(job.backend).options or "")
        if not issubclass(kind, RemoteOptions):
            kind = RemoteOptions  # a job for this machine that is sent to another one
        return job_options(job, job.backend, kind)

    def local(self, folder: Path) -> Launch:
        """Return a launch of the local backend, whose files are in a folder."""
        base = Job.model_validate(self.job).base_model
        job = Job.model_validate({**self.job, "backend": "local", "model": base})
        options = {"local": self.options.of_worker()}
        job = job.model_copy(update={"options": options, "folder": folder})
        training, validation = (
            file and replace(file, ref=str(folder / file.ref))
            for file in (self.training, self.validation)
        )
        assert training is not None, "only validation rows may be missing"
        start = None
        if self.start is not None:
            model = TunedModel(backend="local", name=str(folder / self.start.ref), base=base)
            start = Start(run=self.start.run, model=model)
        return Launch(self.key, job, training, validation, folder, start)
