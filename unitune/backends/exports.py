"""What a backend that exports is asked for, and what it hands back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import unitune
from unitune.models import Request, TunedModel
from unitune.security.spec import Frozen

# What an export is made for
ExportForm: TypeAlias = Literal["adapter", "merged", "gguf", "gguf-lora", "ollama", "mlx", "vllm"]


@dataclass(frozen=True, slots=True)
class ExportSpec:
    """How a tuned model is to be exported.

    Args:
        form: What it is made for.
        folder: That it becomes; not there yet.
        name: Of the model in there, such as a file may have.
        requests: To which it must answer, greedily, as the run's own model does.
        quantization: What its weights are rounded to, by GGUF's name; None: the form's usual.
        temperature: Of the evaluation's requests.
        system: The system message that all training rows share; None: there is none.
    """

    form: ExportForm
    folder: Path
    name: str
    requests: Sequence[Request]
    quantization: str | None = None
    temperature: float = 0.0
    system: str | None = None


ABOUT = "unitune.json"  # describes what an adapter or an export was made from


def describe_export(
    folder: Path, model: TunedModel, form: ExportForm, quantization: str | None = None
) -> None:
    """Write down what an export was made of, and its files.

    An adapter of this machine brings the former along.
    """
    about: dict[str, Any]
    if (folder / ABOUT).exists():
        about = json.loads((folder / ABOUT).read_bytes())
    else:
        about = {
            "unitune": unitune.__version__,
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
    """An export that stands."""

    form: ExportForm
    folder: Path
    files: dict[str, int]
    """Bytes by path in the folder."""
    seconds: float
    """For writing it, without its verification."""
    program: str
    """Which loaded it and answered, with its version."""
    rows: int = 0
    """Rows that it answered; 0: it was not verified, as the notes say."""
    equal: int = 0
    """Rows with the run's own answer, to the letter."""
    use: str = ""
    """A command that uses it."""
    notes: tuple[str, ...] = ()


@runtime_checkable
class Exports(Protocol):
    """A backend that writes tuned models in the forms that other programs load."""

    def export(self, model: TunedModel, spec: ExportSpec) -> Exported:
        """Write a tuned model into a folder that is whole and verified, or not there.

        `Unsupported` says that this model cannot be written in this form as it is; a `Mismatch`,
        that what was written answers otherwise.
        """
        ...
