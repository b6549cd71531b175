"""What one training is, written once into its folder: base, files, settings, fingerprints."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from unitune_local.settings import Settings


class DataFile(BaseModel):
    """A file of rows, and what it held when the run was submitted."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    path: Path
    sha256: str


class Spec(BaseModel):
    """All that the worker reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    base: str
    """Name of the base model, as the job has it."""
    base_path: Path
    base_fingerprint: str
    training: DataFile
    validation: DataFile | None
    data_fingerprint: str
    settings: Settings
