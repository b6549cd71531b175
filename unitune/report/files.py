"""The report of a comparison, in three files made from the same `Comparison`.

    report.html    the page to read (`unitune.report.html`)
    summary.md     for a pull request (`unitune.report.markdown`)
    junit.xml      for the test tab of a CI (`unitune.report.junit`)

``verdict.json`` and the recorded answers, which `unitune.compare` writes, stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from unitune.evaluate.results import REPORTS, Comparison
from unitune.report import html, junit, markdown
from unitune.workspace.filesystem import replacing


def write_report(comparison: Comparison, folder: Path) -> None:
    """Write the three files, each whole or not at all.

    Args:
        comparison: What `unitune.compare` returned.
        folder: Where to, such as the `out` of the comparison.
    """
    contents: tuple[Iterable[str], ...] = (
        html.pieces(comparison),
        [markdown.render(comparison)],
        [junit.render(comparison)],
    )
    for name, pieces in zip(REPORTS, contents, strict=True):
        with replacing(folder / name) as file:
            file.writelines(pieces)
