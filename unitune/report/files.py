"""Write the report of a comparison in three files.

    report.html    page to read (``report.html.j2``; JavaScript only adds filters and search)
    summary.md     for a pull request: the sections, then lost and gained cases
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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from markupsafe import Markup

from unitune.evaluate.documents.history import REPORTS, history_folder
from unitune.evaluate.documents.results import Comparison, GateCheck
from unitune.files.filesystem import replacing
from unitune.render import html, markdown
from unitune.render.html import environment
from unitune.render.typography import counted
from unitune.report import cases
from unitune.report.cases import Outcome, outcome, question, shared_system_prompt, wanted
from unitune.report.comparison import describe
from unitune.report.words import level
from unitune.security.json_fields import whole_text

PACKAGE = "unitune.report"
# Filters across outcomes: their names, and the class of the cases they show.
MARKS = (("Errors", "error"), ("Cut off", "cut"), ("Required", "required"))


def html_page(comparison: Comparison, notes: Mapping[str, str] = cases.NO_NOTES) -> str:
    """Return a comparison as one HTML page that needs no other files and no network.

    Without its cases, the page names the file that has them. `notes` are people's, by case id.
    """
    return "".join(page_pieces(comparison, notes))


def page_pieces(comparison: Comparison, notes: Mapping[str, str] = cases.NO_NOTES) -> Iterator[str]:
    """Yield the page of `html_page` in pieces, as building it whole takes many times its size."""
    style, script = html.resource("style.css"), html.resource("script.js", PACKAGE)
    groups = cases.grouped(comparison, notes=notes)
    marks = Counter(mark for group in groups for case in group.cases for mark in case.marks.split())
    page = html.environment(PACKAGE).get_template("report.html.j2")
    filled = page.generate(
        comparison=comparison,
        document=describe(comparison),
        groups=groups,
        titles=cases.titles(comparison),
        marks=[(name, mark, marks[mark]) for name, mark in MARKS if marks[mark]],
        system_prompt=cases.shared_system_prompt(comparison.cases),
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        policy=html.policy(style, script),
    )
    return map(whole_text, filled)  # a model's JSON may contain lone surrogates


MAX_CASES = 10  # maximum for gained and for lost cases: enough to see their kind
CASE_CHARACTERS = 300  # limit for each text of a case


def markdown_summary(comparison: Comparison) -> str:
    """Return a comparison as Markdown, with cases only if it has them."""
    return markdown.render(describe(comparison), "compare", _changed(comparison))


def _changed(comparison: Comparison) -> Iterator[str]:
    yield "<sub>All cases and answers: <code>report.html</code> in the files of this run.</sub>"
    prompt = shared_system_prompt(comparison.cases)
    names = (comparison.baseline, comparison.candidate)
    for which in (Outcome.LOST, Outcome.GAINED):  # regressions matter more
        cases = [case for case in comparison.cases if outcome(comparison, case) is which]
        if not cases:
            continue
        rows = [_row("th", "question", "expected", *names)]
        for case in cases[:MAX_CASES]:
            answers = [case.answers[name] for name in names]
            texts = [f"no answer: {a.error}" if a.error is not None else a.text for a in answers]
            rows.append(_row("td", question(case, prompt), wanted(case), *texts))
        first = f", the first {MAX_CASES}" if len(cases) > MAX_CASES else ""
        title = f"{which.capitalize()}: {counted(len(cases), 'case')}{first}"
        table = "\n".join(["<table>", *rows, "</table>"])
        yield markdown.folded(title, table)


def _row(tag: str, *texts: str) -> str:
    cells = (f"<{tag}>{markdown.code(text, CASE_CHARACTERS)}</{tag}>" for text in texts)
    return f"<tr>{''.join(cells)}</tr>"


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
        page_pieces(comparison),
        [markdown_summary(comparison)],
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
        environment(PACKAGE)
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
