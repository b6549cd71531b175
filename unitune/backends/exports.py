"""Define the request for an export of a tuned model and its result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from unitune._version import __version__
from unitune.documents import Frozen
from unitune.models import Request, TunedModel

ExportForm: TypeAlias = Literal["adapter", "merged", "gguf", "gguf-lora", "ollama", "mlx", "vllm"]


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """Request for an export of a tuned model."""

    form: ExportForm  # form of the export
    folder: Path  # folder to create
    name: str  # name of the model in it, valid as a file name
    # Requests that it must answer, greedily, as the run's own model does
    requests: Sequence[Request]
    # Rounding of the weights, by GGUF's name; None for the form's default
    quantization: str | None = None
    temperature: float = 0.0  # temperature of the evaluation's requests
    system: str | None = None  # system message shared by all training rows, if any


ABOUT = "unitune.json"  # describes what an adapter or an export was made from


def describe_export(
    folder: Path, model: TunedModel, form: ExportForm, quantization: str | None = None
) -> None:
    """Record the origin and the files of an export; a local adapter already has its origin."""
    about: dict[str, Any]
    if (folder / ABOUT).exists():
        about = json.loads((folder / ABOUT).read_bytes())
    else:
        about = {
            "unitune": __version__,
            "form": form,
            "quantization": quantization,
            "base": model.base,
            "base_fingerprint": model.base_fingerprint,
            "data_fingerprint": model.data_fingerprint,
        }
    about["files"] = [
        file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()
    ]
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


class Exported(Frozen):
    """A finished export."""

    form: ExportForm
    folder: Path
    files: dict[str, int]  # size in bytes by path in the folder
    seconds: float  # time of writing it, without its verification
    program: str  # program that loaded it and answered, with its version
    rows: int = 0  # number of rows that it answered; 0 if it was not verified
    equal: int = 0  # number of rows with exactly the run's own answer
    use: str = ""  # command that uses it
    notes: tuple[str, ...] = ()


@runtime_checkable
class Exports(Protocol):
    """A backend that exports tuned models for other programs."""

    def export(self, model: TunedModel, spec: ExportSpec) -> Exported:
        """Export a tuned model into a folder that is complete and verified, or not created.

        Raise `Unsupported` if the model cannot be exported in this form, and `Mismatch` if the
        export answers differently.
        """
        ...
