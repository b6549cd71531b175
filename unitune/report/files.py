"""Write the report of a comparison in three files.

    report.html    page to read (`unitune.report.html`)
    summary.md     for a pull request (`unitune.report.markdown`)
    junit.xml      for the test tab of a CI (``junit.xml.j2``)

``verdict.json`` and the recorded answers, which `unitune.compare` writes, are in the same folder.

In junit.xml, each check of the gate and each required case is a testcase. Other cases are not,
because only the gate fails a build. An inconclusive check is a failure, because `compare` exits
with 3, which stops a build too. Without a gate there is one skipped test, because some readers
treat an empty suite as an error. An official schema does not exist; the elements and attributes are
those that common tools share: https://github.com/testmoapp/junitxml
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from unitune.evaluate.history import history_folder
from unitune.evaluate.result_files import REPORTS
from unitune.evaluate.results import Comparison, GateCheck
from unitune.files.filesystem import replacing
from unitune.render.html import environment
from unitune.report import html, markdown
from unitune.report.words import level

NO_GATE = GateCheck(
    name="gate", exit_code=None, reason="The job has no gate, so nothing is judged."
)
JUNIT_TAGS = {0: "", 1: "failure", 3: "failure", 4: "error", None: "skipped"}
JUNIT_TYPES = {1: "failed", 3: "inconclusive", 4: "infrastructure"}

# Characters that XML 1.0 forbids, even escaped (W3C, section 2.2).
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_report(comparison: Comparison, folder: str | os.PathLike[str] | None = None) -> Path:
    """Write the three files, each completely or not at all, and return the path of the page.

    If the comparison is in the history, its folder there gets the files too.

    Args:
        comparison: Result of `unitune.compare`.
        folder: Target folder; None for the comparison's own.

    Examples:
        >>> page = unitune.write_report(comparison)
    """
    target = Path(folder or comparison.folder or ".")
    folders = [target]
    if comparison.id and (kept := history_folder(comparison.id)).is_dir():
        folders.append(kept)
    contents: tuple[Iterable[str], ...] = (
        html.pieces(comparison),
        [markdown.render(comparison)],
        [junit(comparison)],
    )
    for name, pieces in zip(REPORTS, contents, strict=True):
        with ExitStack() as stack:
            files = [stack.enter_context(replacing(each / name)) for each in folders]
            for piece in pieces:
                for file in files:
                    file.write(piece)
    return target / REPORTS[0]


def junit(comparison: Comparison) -> str:
    """Return a comparison's gate as JUnit XML."""
    checks = comparison.gate.checks if comparison.gate else (NO_GATE,)
    text = (
        environment(html.PACKAGE)
        .get_template("junit.xml.j2")
        .render(
            comparison=comparison,
            checks=checks,
            tags=[JUNIT_TAGS[check.exit_code] for check in checks],
            types=JUNIT_TYPES,
            level=level(comparison),
        )
    )
    return _NOT_IN_XML.sub("\ufffd", text)
