"""Read the findings of the code, for the page on troubleshooting."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Functions that make a finding (`unitune.findings`, `unitune.data.validation_errors`)
SEVERITIES = {"bad": "error", "error": "error", "warning": "warning", "note": "note"}
CODE = re.compile(r"[a-z]+(-[a-z]+)*")


def findings() -> Iterator[tuple[str, str, str]]:
    """Yield code, severity and messages of each finding, sorted by code.

    Values are written as ``…``. A message that is put together elsewhere is left out.
    """
    found: dict[str, dict[str, str]] = {}
    for package in ("unitune", "providers", "local"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(call, ast.Call) and (made := _finding(call)):
                    code, severity, message = made
                    found.setdefault(code, {}).setdefault(message, severity)
    for code, messages in sorted(found.items()):
        severities = sorted({*messages.values()}, key=["error", "warning", "note"].index)
        yield code, ", ".join(severities), "<br>".join(list(messages)[:3])


def _finding(call: ast.Call) -> tuple[str, str, str] | None:
    severity = SEVERITIES.get(call.func.id) if isinstance(call.func, ast.Name) else None
    if severity is None or len(call.args) < 2:
        return None
    code, message = (_text(each) for each in call.args[:2])
    if code is None or not CODE.fullmatch(code) or message is None:
        return None
    return code, severity, message


def _text(part: ast.expr) -> str | None:
    """Return a text with ``…`` for its values; None for anything else."""
    if isinstance(part, ast.JoinedStr):
        texts = [each.value if isinstance(each, ast.Constant) else "…" for each in part.values]
        return "".join(map(str, texts))
    return part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else None
