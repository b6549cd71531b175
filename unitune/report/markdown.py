"""Render a comparison as Markdown: its sections, then lost and gained cases."""

from __future__ import annotations

from collections.abc import Iterator

from unitune.evaluate.results import Comparison
from unitune.render import markdown
from unitune.render.typography import counted
from unitune.report.cases import Outcome, outcome, question, shared_system_prompt, wanted
from unitune.report.comparison import describe

MAX_CASES = 10  # maximum for gained and for lost cases: enough to see their kind
CASE_CHARACTERS = 300  # limit for each text of a case


def render(comparison: Comparison) -> str:
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
