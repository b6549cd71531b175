"""Converted rows on their way out: held back until it is known that all of them may go.

`take` writes rows into a temporary file, so that memory stays small, and counts what does not come
along; `deliver` sends them to standard output or puts a file in place, whole or not at all. What
is converted, and how, is the business of `unitune.backends.conversion`.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.text import Text

from unitune.backends import registry
from unitune.backends.conversion import Converted
from unitune.cli.outfile import replacing
from unitune.cli.output import COLOURS, aside, facts, print_json_text
from unitune.cli.streams import output_failed
from unitune.errors import DataError
from unitune.findings import Finding

SHOWN_ROWS = 20
"""Refused rows that are named; more of them are counted."""


@dataclass(slots=True)
class Told:
    """What a conversion has to say beside its rows.

    Args:
        converted: Rows that can go.
        refused: Rows that cannot.
        findings: About the first of the refused, and whatever else was found in the file.
        left_out: Rows that lost a key that no training reads, by key.
    """

    converted: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    left_out: Counter[str] = field(default_factory=Counter[str])

    def add(self, finding: Finding) -> None:
        """Note a finding.

        Raises:
            DataError: It is about the whole file.
        """
        if finding.severity == "error" and finding.line is None:
            raise DataError(str(finding), (finding,))
        self.refused += finding.severity == "error"
        if finding.severity != "error" or self.refused <= SHOWN_ROWS:
            self.findings.append(finding)

    def print_to_stderr(self, *, dropped: bool) -> None:
        """Say what was refused and what was left out.

        Args:
            dropped: Whether refused rows are left out, or stop the conversion.
        """
        advised: set[str] = set()
        for finding in self.findings:
            colour = COLOURS[finding.severity]
            advice = "" if finding.code in advised else f" {finding.fix}"
            advised.add(finding.code)
            line = Text.assemble(
                (f"{finding.severity:<7}", colour),
                (f" {finding.place}", "dim"),
                f" {finding.message}",
                (advice, "dim"),
            )
            aside().print(line, soft_wrap=True)
        if self.refused > SHOWN_ROWS:
            aside().print(f"        … and {self.refused - SHOWN_ROWS:,} more")
        if self.refused:
            aside().print(self._outcome(dropped=dropped))
        for key, count in self.left_out.items():
            aside().print(f"{_rows(count)} had `{key}`, which no training reads: left out.")

    def _outcome(self, *, dropped: bool) -> str:
        of_all = f"of {_rows(self.converted + self.refused)}"
        if dropped:
            return f"Left out {self.refused:,} {of_all}."
        return (
            f"{self.refused:,} {of_all} cannot be converted; nothing was written. Mend them, or "
            "leave them out with --drop."
        )


def take(items: Iterable[Converted | Finding], rows: IO[bytes]) -> Told:
    """Write converted rows into a file, and return what else there is to say.

    Args:
        items: From `unitune.backends.conversion`.
        rows: Where the rows go.

    Raises:
        DataError: The file that they come from cannot be read.
    """
    told = Told()
    for item in items:
        if isinstance(item, Finding):
            told.add(item)
            continue
        rows.write(f"{item.text}\n".encode())
        told.converted += 1
        told.left_out.update(item.left_out)
    return told


def deliver(rows: IO[bytes], output: Path | None) -> None:
    """Send rows to their place.

    Args:
        rows: A file of them.
        output: A file, which is there whole or not at all; None: standard output.
    """
    rows.seek(0)
    if output is None:
        _print(rows)
        return
    with replacing(output) as file:
        shutil.copyfileobj(rows, file)


def _print(rows: IO[bytes]) -> None:
    if sys.stdout.isatty():
        for line in rows:
            print_json_text(line.decode().removesuffix("\n"))
        return
    try:
        shutil.copyfileobj(rows, sys.stdout.buffer)  # bytes: UTF-8 whatever the terminal has
        sys.stdout.buffer.flush()
    except OSError as error:
        output_failed(error)


def print_formats(out: Console) -> None:
    """Print the names of the formats with a line about each."""
    formats = [registry.wire_format(name) for name in registry.format_names()]
    out.print(facts({form.name: form.summary for form in formats}))


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
