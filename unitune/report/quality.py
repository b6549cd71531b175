"""What is worth a look in training rows as one self-contained page: `render`.

It is made as the report is (`unitune.report.html`): nothing is requested, no script runs, and every
text of a row is escaped. Rows that are done can be ticked, until the page is closed.
"""

from __future__ import annotations

from typing import NamedTuple

from unitune.data.report import DataReport
from unitune.render.html import page, resource
from unitune.render.typography import counted, percent
from unitune.report.html import PACKAGE, environment

OPEN_SUSPECTS = 10  # of each cause; the others are folded
# Answers whose numbers are drawn: the most frequent and, where there are more, the rarest
MOST_ANSWERS = 100


class AnswerBar(NamedTuple):
    """How many rows have an answer."""

    answer: str
    rows: int
    share: str  # of the rows of the most frequent answer, in percent: the length of its bar


def render(report: DataReport, name: str) -> str:
    """Return what is worth a look as one HTML page that needs no other file and no network."""
    return page(
        "quality.html.j2",
        resource("style.css") + resource("quality.css", PACKAGE),
        environment(),
        name=name,
        report=report,
        quality=report.quality,
        headline=_headline(report),
        answers=_answer_bars(report),
        open_issues=OPEN_SUSPECTS,
    )


def _headline(report: DataReport) -> str:
    causes = report.quality.causes if report.quality else ()
    if report.errors:
        return f"{counted(len(report.errors), 'error')} to correct first"
    if not causes:
        return "Nothing stands out"
    return f"{counted(sum(cause.total for cause in causes), 'row')} worth a look"


def _answer_bars(report: DataReport) -> list[AnswerBar]:
    """Return how many rows the answers have, the most frequent first."""
    answers = [*report.quality.answers.items()] if report.quality else []
    if len(answers) > MOST_ANSWERS:
        answers = answers[: MOST_ANSWERS // 2] + answers[-MOST_ANSWERS // 2 :]
    return [
        AnswerBar(answer, count, percent(count / answers[0][1]).replace(" ", ""))
        for answer, count in answers
    ]
