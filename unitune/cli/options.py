"""Options that many commands share; imports nothing heavy, so that ``--help`` stays fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only the result; no progress.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
JobFile = Annotated[Path, typer.Argument(metavar="FILE", help="A job file, e.g. unitune.yaml.")]
RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or the first letters of it.")
]
