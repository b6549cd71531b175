"""The files of a comparison, all made from the same `Comparison`: for people, CI and programs.

    verdict.json   everything but the cases (`unitune schema verdict`)
    report.html    the page to read (`unitune.report.html`)
    summary.md     for a pull request (`unitune.report.markdown`)
    junit.xml      for the test tab of a CI (`unitune.report.junit`)

The answers themselves stand beside them, in the rows that they were written down in.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from unitune.evaluate.results import Comparison
from unitune.report import html, junit, markdown
from unitune.workspace.filesystem import replacing

NAMES = ("report.html", "summary.md", "junit.xml", "verdict.json")


def write(comparison: Comparison, folder: Path) -> None:
    """Write all of them, each whole or not at all.

    Args:
        comparison: What was found.
        folder: Where its rows stand.
    """
    files: dict[str, Iterable[str]] = {
        "verdict.json": [comparison.verdict_json()],
        "report.html": html.pieces(comparison),
        "summary.md": [markdown.render(comparison)],
        "junit.xml": [junit.render(comparison)],
    }
    for name, pieces in files.items():
        with replacing(folder / name) as file:
            file.writelines(pieces)
