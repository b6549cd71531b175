"""Define the launch that a create call sends to another machine, and the options of its job.

Job files may have these options without the extras of their backends.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue

from unitune.backends import registry
from unitune.backends.options import job_options
from unitune.backends.protocol import Launch, Upload
from unitune.documents import Frozen
from unitune.job.job import Auto, Job
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


Flavor = Literal[
    "cpu-basic",
    "cpu-upgrade",
    "cpu-performance",
    "cpu-xl",
    "t4-small",
    "t4-medium",
    "l4x1",
    "l40sx1",
    "a10g-small",
    "a10g-large",
    "a100-large",
    "h200",
    "rtx-pro-6000",
]


class HfJobsOptions(RemoteOptions):
    """Options under ``options: {hf-jobs: …}``: those of local training, and the machine."""

    flavor: Flavor = "l4x1"
    """Machine to rent, with one GPU or none; `unitune prices hf-jobs` shows their prices."""
    timeout_hours: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Hours after which Hugging Face ends the job; `auto`: `budget.hours`, or twice the high end of
    the forecast, at least 1 and 24 if the time is unknown. `budget.usd` shortens them."""
    processes: Literal[1] | Auto = "auto"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Processes that train; one."""


class SkyPilotOptions(RemoteOptions):
    """Options under ``options: {skypilot: …}``: those of local training, and the machine."""

    accelerators: Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]*(:1)?$")] | None = "L4:1"
    """GPU to rent, as SkyPilot names it; null: a machine without one."""
    infra: Annotated[str, Field(pattern=r"^[\w*][\w./*@:-]*$")] | None = None
    """Where to rent it, such as `aws`, `gcp/us-central1`, `kubernetes` or `slurm`; by default,
    wherever it is cheapest among the clouds that the server may use."""
    use_spot: bool = False
    """Rent a cheaper machine that the cloud may take back; the run then fails, and
    `unitune runs resume` continues from the newest checkpoint."""
    autostop_minutes: Annotated[int, Field(ge=1, le=1440)] = 10
    """Minutes without a job after which SkyPilot deletes the machine."""
    timeout_hours: Annotated[float, Field(gt=0)] | Auto = "auto"
    """Hours after which the training is ended; `auto`: `budget.hours`, or else 24."""
    processes: Literal[1] | Auto = "auto"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Processes that train; one."""


class RayOptions(RemoteOptions):
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
    runtime_env: dict[str, JsonValue] = {}  # noqa: RUF012 - pydantic copies it
    """Ray's description of the workers' environment: ``{pip: […]}``, ``{env_vars: {…}}``, …"""

    @property
    def workers(self) -> int:
        """Number of workers."""
        return 1 if self.processes == "auto" else self.processes

    def of_worker(self) -> dict[str, JsonValue]:
        """Return the options of local training, with the resources of a worker."""
        chosen = super().of_worker()
        if self.threads == "auto":
            chosen["threads"] = self.cpus_per_worker
        if self.device == "auto" and not self.gpus_per_worker:
            chosen["device"] = "cpu"
        return chosen
