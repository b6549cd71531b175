"""A finding: what is wrong with a data file or a plan, and how to correct it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

SHOWN = 12  # findings in an error message
SHOWN_LINES = 3  # lines that are named of findings with one cause, besides the first
# Codes of findings that have one cause although their messages repeat a row's own values
_ABOUT_VALUES = frozenset(
    {
        *(
            "broken-json",
            "column-count",
            "contradiction",
            "duplicate",
            "encoding",
            "leak",
            "line-too-long",
            "overlap",
            "personal-data",
        ),
        *("secret", "unusable-expected", "wrong-value"),
    }
)
# Codes of errors that have a line, and are about all rows
_OF_FILES = frozenset({"line-too-long", "missing-column", "repeated-column"})
_VALUES = re.compile(r"""'[^']*'|"[^"]*"|0x\w+|(?<!\w)\d[\d,.]*""")  # quoted texts, and numbers
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

    @property
    def is_about_row(self) -> bool:
        """Whether it is an error of one row, so that the others can be used without that row."""
        return self.severity == "error" and self.line is not None and self.code not in _OF_FILES

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


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them: ``a, b and c``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def clip(value: object, longest: int = 60) -> str:
    """Return a value as Python writes it, cut in the middle when it is long."""
    text = repr(value)
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} … {text[-half:]}"


class Group(NamedTuple):
    """Findings of one cause: the first of them, how many, and the lines of the others."""

    finding: Finding
    size: int
    lines: tuple[int, ...]

    @property
    def more(self) -> str:
        """How many more there are: `` (and 149 more rows: lines 3, 4, 5, …)``; nothing for one."""
        if self.size == 1:
            return ""
        rows = f" (and {self.size - 1:,} more row{'s' if self.size > 2 else ''}"
        if not self.lines:
            return f"{rows})"
        known = ", ".join(str(line) for line in self.lines[:SHOWN_LINES])
        dots = ", …" if self.size - 1 > min(len(self.lines), SHOWN_LINES) else ""
        return f"{rows}: line{'s' if self.size > 2 else ''} {known}{dots})"


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Return findings by their cause: those that differ in lines, or a row's own values alone."""
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
    """Return the first finding of each row, as one row may have a cause several times."""
    rows = {each.line or -at: each for at, each in reversed([*enumerate(findings, 1)])}
    return [*reversed(rows.values())]


def of_runs(findings: Mapping[str, Iterable[Finding]]) -> tuple[Finding, ...]:
    """Return the findings about the runs of a sweep, by their names, each once.

    One that is not about all of them begins with the run that it is about.
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
    """Return findings as the lines of an error message: each once, and as many as fill a screen."""
    groups = grouped(findings)
    lines = [f"{group.finding}{group.more}" for group in groups[:SHOWN]]
    if more := len(groups) - len(lines):
        lines.append(f"… and {more:,} more; {command} shows them.")
    return lines
