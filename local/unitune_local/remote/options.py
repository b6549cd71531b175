"""Options of the backends that rent machines, which job files may have without their extras."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from unitune.job.job import Auto
from unitune_local.remote.launch import RemoteOptions

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
