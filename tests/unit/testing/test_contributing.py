"""CONTRIBUTING names every protocol that a backend may add, as the code has it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from unitune.backends import capabilities, exports, forecasts

TEXT = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def table() -> Iterator[str]:
    yield "| protocol | what it is | methods |"
    yield "|--|--|--|"
    for name, kind in {**vars(capabilities), **vars(exports), **vars(forecasts)}.items():
        if getattr(kind, "_is_protocol", False) and kind.__module__.startswith("unitune"):
            methods = [
                f"`{method}`" for method in vars(kind) if inspect.isfunction(vars(kind)[method])
            ]
            summary = inspect.getdoc(kind).partition("\n")[0].rstrip(".")
            own = [method for method in methods if not method.startswith("`_")]
            yield f"| `{name}` | {summary} | {', '.join(own)} |"


def test_contributing_lists_every_protocol_that_a_backend_may_add() -> None:
    listed = (
        TEXT.partition("<!-- protocols:")[2].partition("-->\n")[2].partition("\n<!-- end -->")[0]
    )
    assert "\n".join(table()) == listed
