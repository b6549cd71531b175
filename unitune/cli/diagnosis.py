"""What `unitune doctor` finds."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from rich.text import Text

import unitune
from unitune.backends import registry
from unitune.backends.capabilities import ReportsEnvironment
from unitune.cli.hosting import unwatched
from unitune.cli.output import console, facts
from unitune.errors import UnituneError, UserError
from unitune.run.deploying import without_reaper
from unitune.workspace.home import home


class BackendDiagnosis(BaseModel):
    """Whether a backend can be used, and what it found."""

    name: str
    ready: bool
    problem: str | None = None
    facts: dict[str, str] = {}


class Diagnosis(BaseModel):
    """This machine as unitune sees it."""

    schema_version: int = 1
    unitune: str
    python: str
    system: str
    ledger: str | None
    """Folder of the ledger; None where one is found that is not used."""
    ledger_problem: str | None = None
    warnings: tuple[str, ...] = ()
    backends: tuple[BackendDiagnosis, ...]


def examine() -> Diagnosis:
    """Look at Python, the ledger and every installed backend."""
    ledger = _examine_ledger()
    return Diagnosis(
        unitune=unitune.__version__,
        python=f"{platform.python_version()} at {sys.executable}",
        system=platform.platform(),
        ledger=None if isinstance(ledger, UserError) else str(ledger),
        ledger_problem=str(ledger) if isinstance(ledger, UserError) else None,
        warnings=() if isinstance(ledger, UserError) else tuple(_warnings()),
        backends=tuple(_examine_backend(name) for name in registry.backend_names()),
    )


def _examine_ledger() -> Path | UserError:
    try:
        return home()
    except UserError as error:
        return error


def _warnings() -> Iterator[str]:
    """Yield what costs money and is not watched, or why that cannot be seen."""
    try:
        yield from map(unwatched, without_reaper())
    except UnituneError as error:
        yield str(error)


def _examine_backend(name: str) -> BackendDiagnosis:
    try:
        backend = registry.backend(name)
        found = (
            backend.report_environment()
            if isinstance(backend, ReportsEnvironment)
            else _needs(name)
        )
    except UnituneError as error:
        return BackendDiagnosis(name=name, ready=False, problem=str(error))
    return BackendDiagnosis(name=name, ready=True, facts=found)


def _needs(name: str) -> dict[str, str]:
    """Return what a hosted backend finds in the environment; nobody is called to try it."""
    needs = registry.offer(name).needs
    return {"needs": "\n".join(needs)} if needs else {}


def print_diagnosis(found: Diagnosis) -> None:
    """Print a diagnosis for a person."""
    console().print(
        facts(
            {
                "unitune": found.unitune,
                "python": found.python,
                "system": found.system,
                "ledger": found.ledger or found.ledger_problem or "",
            }
        )
    )
    for warning in found.warnings:
        console().print(f"\n{warning}", soft_wrap=True)
    for backend in found.backends:
        state = ("installed", "green") if backend.ready else ("not installed", "yellow")
        console().print(Text.assemble("\n", (backend.name, "bold"), "  ", state))
        if backend.problem:
            console().print(f"  {backend.problem}")
        if backend.facts:
            console().print(facts({f"  {key}": value for key, value in backend.facts.items()}))
