"""The report of a comparison, in three files made from the same `Comparison`.

    report.html    the page to read (`unitune.report.html`)
    summary.md     for a pull request (`unitune.report.markdown`)
    junit.xml      for the test tab of a CI (`unitune.report.junit`)

``verdict.json`` and the recorded answers, which `unitune.compare` writes, stand beside them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from unitune.evaluate.compare import default_folder
from unitune.evaluate.results import REPORTS, Comparison
from unitune.report import html, junit, markdown
from unitune.workspace.filesystem import replacing


def write_report(comparison: Comparison, folder: str | os.PathLike[str] | None = None) -> Path:
    """Write the three files, each whole or not at all, and return the path of the page.

    Args:
        comparison: As `unitune.compare` returned it.
        folder: The `out` of the comparison; None where it was given none.

    Examples:
        >>> page = unitune.write_report(comparison)
    """
    target = default_folder(comparison) if folder is None else Path(folder)
    contents: tuple[Iterable[str], ...] = (
        html.pieces(comparison),
        [markdown.render(comparison)],
        [junit.render(comparison)],
    )
    for name, pieces in zip(REPORTS, contents, strict=True):
        with replacing(target / name) as file:
            file.writelines(pieces)
    return target / REPORTS[0]
