"""The fake's "vendor": a folder of files that are written once or only grow; faults on request."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel

from unitune.errors import BackendError, Unreachable
from unitune.testing.script import Fault


def vendor_folder(otherwise: Path) -> Path:
    """Return the vendor's folder: ``UNITUNE_FAKE_DIR`` when set, else ``fake`` in another."""
    chosen = os.environ.get("UNITUNE_FAKE_DIR")
    return Path(chosen).absolute() if chosen else otherwise.absolute() / "fake"


def create_call(faults: tuple[Fault, ...], calls: int, what: str, create: Callable[[], str]) -> str:
    """Create something, or do what the script says goes wrong; return its id.

    Args:
        faults: Of the first call, the second, …; none afterwards.
        calls: Calls so far, this one included.
        what: What is created, for messages.
        create: Does so.
    """
    fault = faults[calls - 1] if calls <= len(faults) else Fault.NONE
    if fault is Fault.REFUSE:
        raise BackendError(f"the fake refuses this {what}.", status=400)
    if fault is Fault.LOSE_REQUEST:
        raise Unreachable("the fake could not be reached.")
    if fault is Fault.DIE_BEFORE:
        _die()
    made = create()
    if fault is Fault.LOSE_ANSWER:
        raise Unreachable("the fake's answer was lost.")
    if fault is Fault.SERVER_ERROR:
        raise BackendError("the fake stumbled.", status=500)
    if fault is Fault.DIE_AFTER:
        _die()
    return made


def tick(file: Path) -> int:
    """Count one more, in a file that only grows, so that no process can lose another's count."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as growing:
        growing.write(b".")
        growing.flush()
        return growing.tell()


def count(file: Path) -> int:
    """Return how often it was counted."""
    return file.stat().st_size if file.exists() else 0


def write(file: Path, content: BaseModel) -> None:
    """Write a file whole or not at all."""
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(content.model_dump_json(), encoding="utf-8")
    draft.rename(file)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")
