"""The example that `unitune init` writes: copied from the package, or from a checkout of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from unitune.cli.outfile import replacing
from unitune.errors import UserError

FILES = ("unitune.yaml", "train.jsonl", "test.jsonl", "README.md")


class Written(BaseModel):
    """What `unitune init --json` prints."""

    schema_version: int = 1
    directory: Path
    files: tuple[Path, ...]


def write_example(directory: Path) -> list[Path]:
    """Copy the support-triage example into a folder, which is made when it is not there.

    Raises:
        UserError: A file of that name stands there with other content; nothing is written.
    """
    source = _source()
    for name in FILES:
        target = directory / name
        if target.exists() and target.read_bytes() != (source / name).read_bytes():
            raise UserError(
                f"{target} exists and differs from the example. Nothing was written. "
                "Name another folder: unitune init DIR"
            )
    directory.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        with replacing(directory / name) as file:
            file.write((source / name).read_bytes())
    return [directory / name for name in FILES]


def _source() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "examples" / "support-triage"
    return installed if installed.is_dir() else package.parent / "examples" / "support-triage"
