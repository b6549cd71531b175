"""The command line run within the test's own process, and programs run in processes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitune.cli import output


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def forget_consoles() -> None:
    """Make the next command open its own, as wide as COLUMNS is then."""
    output.console.cache_clear()
    output.aside.cache_clear()


def ran(command: Sequence[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever its exit code, and keep what it printed."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)
