"""CONTRIBUTING names every protocol that a backend may add, as the code has it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from unitune.backends import capabilities, local_capabilities, registry

TEXT = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def table() -> Iterator[str]:
    yield "| protocol | what it is | methods |"
    yield "|--|--|--|"
    kinds = {**vars(capabilities), **vars(local_capabilities), **vars(local_capabilities)}
    for name, methods in registry.protocols().items():
        summary = (inspect.getdoc(kinds[name]) or "").partition("\n")[0].rstrip(".")
        yield f"| `{name}` | {summary} | {', '.join(f'`{method}`' for method in methods)} |"


def test_contributing_lists_every_protocol_that_a_backend_may_add() -> None:
    listed = (
        TEXT.partition("<!-- protocols:")[2].partition("-->\n")[2].partition("\n<!-- end -->")[0]
    )
    assert "\n".join(table()) == listed
