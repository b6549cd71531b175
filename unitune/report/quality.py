"""Render the rows to review as one self-contained page.

Like the report of a comparison, the page requests nothing, blocks scripts and escapes all texts of
rows. Finished rows can be ticked until the page is closed.
"""

from __future__ import annotations

from unitune.data.report import DataReport
from unitune.render.html import environment, page, resource
from unitune.report.checked import describe
from unitune.report.html import PACKAGE

OPEN_ISSUES = 10  # open issues per cause; the others are folded


def render(report: DataReport, name: str) -> str:
    """Return the rows to review as one HTML page that needs no other files and no network."""
    document = describe(report, name)
    return page(
        environment(PACKAGE).get_template("quality.html.j2"),
        resource("style.css") + resource("quality.css", PACKAGE),
        document=document,
        answers=[each for each in document.sections if each.on_page],
        report=report,
        causes=report.quality.causes if report.quality else (),
        open_issues=OPEN_ISSUES,
    )
