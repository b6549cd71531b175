"""Define the options of a job on a Ray cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from unitune.job.job import Auto
from unitune_local.remote.launch import RemoteOptions


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
