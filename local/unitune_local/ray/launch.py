"""Define the launch that a create call sends to the cluster, and the options of its job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, JsonValue

from unitune.backends.options import job_options
from unitune.backends.protocol import Launch, Upload
from unitune.documents import Frozen
from unitune.job.job import Auto, Job
from unitune.models import Start, TunedModel
from unitune_local.options import LocalOptions

VARIABLE = "UNITUNE_RAY_LAUNCH"  # environment variable of the job at Ray with its launch


class RayOptions(LocalOptions):
    """Options under ``options: {ray: …}``: those of local training, and resources of the cluster.

    `device: auto` is a GPU if workers have one.
    """

    threads: Annotated[int, Field(ge=1)] | Auto = "auto"
    """CPU threads of a worker; `auto`: `cpus_per_worker`."""
    processes: Annotated[int, Field(ge=1)] | Auto = "auto"
    """Workers that share the rows of each batch, each with its own copy of the model, on any nodes;
    `auto`: 1."""
    cpus_per_worker: Annotated[int, Field(ge=1)] = 1
    """Cores that Ray reserves for a worker."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] = 0
    """GPUs that Ray reserves for a worker."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """Number of times that a training continues from the same checkpoint after losing a worker or a
    node; a new checkpoint resets the count."""
    runtime_env: dict[str, JsonValue] = {}  # noqa: RUF012 - pydantic copies it
    """Ray's description of the workers' environment: ``{pip: […]}``, ``{env_vars: {…}}``, …"""

    @property
    def workers(self) -> int:
        """Number of workers."""
        return 1 if self.processes == "auto" else self.processes


class StartFolder(Frozen):
    """Adapter that a training continues from, by its name in the storage."""

    ref: str
    run: str | None


class RayLaunch(Frozen):
    """Launch as it is sent to the cluster."""

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
    def options(self) -> RayOptions:
        """Options of the job for Ray."""
        return job_options(Job.model_validate(self.job), "ray", RayOptions)

    def local(self, folder: Path) -> Launch:
        """Return a launch of the local backend, whose files are in a folder."""
        options = self.options
        chosen = options.model_dump(include=set(LocalOptions.model_fields))
        chosen["processes"] = 1  # of a node: `prepare` checks its memory
        if options.threads == "auto":
            chosen["threads"] = options.cpus_per_worker
        if options.device == "auto" and not options.gpus_per_worker:
            chosen["device"] = "cpu"
        base = Job.model_validate(self.job).base_model
        job = Job.model_validate({**self.job, "backend": "local", "model": base})
        job = job.model_copy(update={"options": {"local": chosen}, "folder": folder})
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
