"""A finding: what is wrong with a data file or a plan, and how to correct it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

SHOWN = 12
"""Findings in an error message."""
Severity = Literal["error", "warning", "note"]


class Finding(BaseModel):
    """What is wrong, where, and what to do."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    severity: Severity
    """error: cannot go on. warning: probably not what was meant. note: good to know."""
    code: str
    """Stable name, e.g. ``broken-json``; tools may rely on it."""
    message: str
    """What is wrong, with the value."""
    fix: str = ""
    """What is allowed and what to do."""
    file: str | None = None
    line: int | None = None
    """Line in the file, counted from 1."""

    @property
    def location(self) -> str:
        """``file:line``, ``file`` or nothing."""
        line = f":{self.line}" if self.line is not None else ""
        return f"{self.file}{line}" if self.file else ""

    def at(self, *, file: str | None = None, line: int | None = None) -> Self:
        """Return the same finding at this location; what is not given stays."""
        given = {"file": file, "line": line}
        return self.model_copy(
            update={key: value for key, value in given.items() if value is not None}
        )

    def __str__(self) -> str:
        """One line for a terminal or an error message."""
        prefix = f"{self.location}: " if self.location else ""
        return f"{prefix}{self.message}{' ' + self.fix if self.fix else ''}"


def error(code: str, message: str, fix: str = "") -> Finding:
    """Return a finding that stops the work, without a location yet."""
    return Finding(severity="error", code=code, message=message, fix=fix)


def warning(code: str, message: str, fix: str = "") -> Finding:
    """Return a finding about what was probably not meant, without a location yet."""
    return Finding(severity="warning", code=code, message=message, fix=fix)


def note(code: str, message: str, fix: str = "") -> Finding:
    """Return a finding that is good to know, without a location yet."""
    return Finding(severity="note", code=code, message=message, fix=fix)


def clip(value: object, longest: int = 60) -> str:
    """Return a value as Python writes it, cut in the middle when it is long."""
    text = repr(value)
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"


def grouped(findings: Iterable[Finding]) -> list[tuple[Finding, int]]:
    """Return each finding once, at its first location, with its count."""
    first: dict[tuple[str, ...], Finding] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    for finding in findings:
        what = (finding.severity, finding.code, finding.message, finding.fix, finding.file or "")
        first.setdefault(what, finding)
        counts[what] += 1
    return [(finding, counts[what]) for what, finding in first.items()]


def also(count: int) -> str:
    """Return how many more of a finding there are: `` (and 149 more rows)``; nothing for once."""
    if count == 1:
        return ""
    return f" (and {count - 1:,} more row{'s' if count > 2 else ''})"


def shown(findings: Iterable[Finding]) -> list[str]:
    """Return findings as the lines of an error message: each once, and as many as fill a screen."""
    each = grouped(findings)
    lines = [f"{finding}{also(count)}" for finding, count in each[:SHOWN]]
    if more := len(each) - len(lines):
        lines.append(f"… and {more:,} more; `unitune plan` on the job shows them.")
    return lines
