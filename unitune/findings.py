"""Describe problems of a data file or a plan, and how to correct them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

SHOWN = 12  # findings in an error message
SHOWN_LINES = 3  # further lines listed for findings with one cause
# Codes whose findings have one cause although their messages repeat a row's own values
_ABOUT_VALUES = frozenset(
    {
        "broken-json",
        "column-count",
        "contradiction",
        "duplicate",
        "encoding",
        "leak",
        "line-too-long",
        "overlap",
        "personal-data",
        "secret",
        "unusable-expected",
        "wrong-value",
    }
)
# Codes of errors that have a line but concern all rows
_OF_FILES = frozenset({"line-too-long", "missing-column", "repeated-column"})
_VALUES = re.compile(r"""'[^']*'|"[^"]*"|0x\w+|(?<!\w)\d[\d,.]*""")  # quoted texts and numbers
Severity = Literal["error", "warning", "note"]


class Finding(BaseModel):
    """A problem, its location and what to do about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    severity: Severity
    """error: stops the work. warning: probably a mistake. note: information."""
    code: str
    """Stable name, e.g. ``broken-json``; tools may rely on it."""
    message: str
    """Problem, with the value."""
    fix: str = ""
    """Allowed values and what to do."""
    file: str | None = None
    line: int | None = None
    """Line in the file, counted from 1."""

    @property
    def location(self) -> str:
        """``file:line``, ``file`` or an empty string."""
        line = f":{self.line}" if self.line is not None else ""
        return f"{self.file}{line}" if self.file else ""

    @property
    def is_about_row(self) -> bool:
        """True for an error of a single row; the other rows can be used without it."""
        return self.severity == "error" and self.line is not None and self.code not in _OF_FILES

    def at(self, *, file: str | None = None, line: int | None = None) -> Self:
        """Return the finding with this file or line; omitted arguments keep their value."""
        given = {"file": file, "line": line}
        return self.model_copy(
            update={key: value for key, value in given.items() if value is not None}
        )

    def __str__(self) -> str:
        """Return one line for a terminal or an error message."""
        prefix = f"{self.location}: " if self.location else ""
        return f"{prefix}{self.message}{' ' + self.fix if self.fix else ''}"


def error(code: str, message: str, fix: str = "") -> Finding:
    """Return an error finding without a location."""
    return Finding(severity="error", code=code, message=message, fix=fix)


def warning(code: str, message: str, fix: str = "") -> Finding:
    """Return a warning finding without a location."""
    return Finding(severity="warning", code=code, message=message, fix=fix)


def note(code: str, message: str, fix: str = "") -> Finding:
    """Return a note finding without a location."""
    return Finding(severity="note", code=code, message=message, fix=fix)


class Group(NamedTuple):
    """Findings with one cause: the first finding, their number and the lines of the others."""

    finding: Finding
    size: int
    lines: tuple[int, ...]

    @property
    def more(self) -> str:
        """Text about the others, `` (and 149 more rows: lines 3, 4, 5, …)``; empty if none."""
        if self.size == 1:
            return ""
        rows = f" (and {self.size - 1:,} more row{'s' if self.size > 2 else ''}"
        if not self.lines:
            return f"{rows})"
        known = ", ".join(str(line) for line in self.lines[:SHOWN_LINES])
        dots = ", …" if self.size - 1 > min(len(self.lines), SHOWN_LINES) else ""
        return f"{rows}: line{'s' if self.size > 2 else ''} {known}{dots})"


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Group findings that differ only in their lines or in a row's own values."""
    causes: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        text = finding.message
        text = _VALUES.sub("…", text) if finding.code in _ABOUT_VALUES else text + finding.fix
        cause = (finding.severity, finding.code, text, finding.file or "")
        causes.setdefault(cause, []).append(finding)
    return [
        Group(first, 1 + len(more), tuple(each.line for each in more if each.line is not None))
        for first, *more in map(_once_a_row, causes.values())
    ]


def _once_a_row(findings: Sequence[Finding]) -> Sequence[Finding]:
    """Return the first finding of each row; a row may have one cause several times."""
    rows = {each.line or -at: each for at, each in reversed([*enumerate(findings, 1)])}
    return [*reversed(rows.values())]


def of_runs(findings: Mapping[str, Iterable[Finding]]) -> tuple[Finding, ...]:
    """Merge findings of a sweep's runs, listed by run name, so that each appears once.

    A finding that does not concern all runs begins with the name of its first run.
    """
    names: dict[Finding, list[str]] = {}
    for run, about in findings.items():
        for finding in dict.fromkeys(about):
            names.setdefault(finding, []).append(run)
    return tuple(
        finding
        if len(runs) == len(findings)
        else finding.model_copy(update={"message": f"{_first_of(runs)}: {finding.message}"})
        for finding, runs in names.items()
    )


def _first_of(runs: list[str]) -> str:
    more = f" (and {len(runs) - 1} more run{'s' if len(runs) > 2 else ''})"
    return f"run {runs[0]}{more if len(runs) > 1 else ''}"


def shown(findings: Iterable[Finding], command: str = "`unitune plan` on the job") -> list[str]:
    """Return findings as lines of an error message, grouped and limited to `SHOWN`."""
    groups = grouped(findings)
    lines = [f"{group.finding}{group.more}" for group in groups[:SHOWN]]
    if more := len(groups) - len(lines):
        lines.append(f"… and {more:,} more; {command} shows them.")
    return lines
