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

NAMES = ("report.html", "summary.md", "junit.xml", "verdict.json")


def write(comparison: Comparison, folder: Path) -> None:
    """Write all of them, each whole or not at all.

    Args:
        comparison: What was found.
        folder: Where its rows stand.
    """
    _replace(folder / "verdict.json", [comparison.verdict_json()])
    _replace(folder / "report.html", html.pieces(comparison))
    _replace(folder / "summary.md", [markdown.render(comparison)])
    _replace(folder / "junit.xml", [junit.render(comparison)])


def _replace(path: Path, pieces: Iterable[str]) -> None:
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
    draft.replace(path)
