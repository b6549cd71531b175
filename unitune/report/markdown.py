"""A comparison as Markdown for CI: a step's summary, and the one comment of a pull request.

The first line is a hidden comment, the same for a job from run to run, by which the next run finds
the comment that it replaces. Then the verdict, in one sentence.

Names and a model's texts are data: whatever they hold, they make no markup, mention no one and link
nowhere. The whole stays below what GitHub takes; what stands last, the cases, is left out first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from unitune.evaluate.records import CaseResult
from unitune.evaluate.results import Comparison, ContenderResult, GateResult
from unitune.report import typography, words
from unitune.report.cases import Outcome, outcome, question, shared_system_prompt

MAX_BYTES = 60_000
"""GitHub takes 65,536 characters in a comment and 1 MiB in a step's summary; bytes are counted here
because they are never fewer, and some are left for what an action adds, such as links."""
MAX_CASES = 10
"""Cases shown of those gained, and of those lost: enough to see what kind they are."""
MAX_ROWS = 30
"""Contenders, checks, notes and case ids shown of each."""
CASE_CHARACTERS = 300
"""Of each text of a case."""
NAME_CHARACTERS = 60
"""Of each name and case id."""
SENTENCE_CHARACTERS = 400
"""Of each sentence."""

_MARKUP = re.compile(r"([\\`*_\[\]|~])")
_LINKS = re.compile(r"[@#]|(?<=\w)://|(?<=www)\.", re.IGNORECASE)
"""Where GitHub sees a person, an issue or an address; a space of no width behind it is enough."""


def marker(command: str, job: str) -> str:
    """Return the line by which the comment of a command on a job can be found."""
    return f"<!-- unitune {command}: {re.sub('[^a-z0-9-]', '-', job)[:40]} -->"


def render(comparison: Comparison) -> str:
    """Return a comparison as Markdown.

    Args:
        comparison: Without its cases none are shown.
    """
    blocks = list(_blocks(comparison))
    while len("\n\n".join(blocks).encode()) >= MAX_BYTES:
        blocks.pop()
    return "\n\n".join(blocks) + "\n"


def _blocks(comparison: Comparison) -> Iterator[str]:
    """Yield the parts of the page, what matters most first."""
    yield marker("compare", comparison.job)
    yield f"### {escaped(words.headline(comparison))}"
    yield " ".join(map(escaped, (words.scores(comparison), *words.reasons(comparison))))
    if comparison.gate is not None:
        yield _gate(comparison.gate)
        if sentence := words.regression(comparison):
            yield escaped(sentence)
    yield _contenders(comparison)
    yield (
        f"<sub>{escaped(words.figures(comparison))}. Every case, with its answers: "
        "<code>report.html</code> among the files of this run.</sub>"
    )
    if notes := words.caveats(comparison):
        yield "\n".join(f"- {escaped(note)}" for note in notes[:MAX_ROWS])
    if comparison.gate is not None:
        yield _checks(comparison.gate)
        yield from _changed_cases(comparison.gate)
    prompt = shared_system_prompt(comparison.cases)
    for wanted in (Outcome.LOST, Outcome.GAINED):  # what broke matters more
        if cases := [case for case in comparison.cases if outcome(comparison, case) is wanted]:
            yield _details(comparison, wanted, cases, prompt)


def _gate(gate: GateResult) -> str:
    state = "Gate passed" if gate.passed else "Gate not passed"
    return f"**{state}** (exit code {gate.exit_code}). {escaped(gate.reason)}"


def _checks(gate: GateResult) -> str:
    """Write what was checked, that which did not pass first."""
    checks = sorted(gate.checks, key=lambda check: check.exit_code == 0)
    rows = [
        f"| {_name(check.name)} | {words.check(check)} | {escaped(check.reason)} |"
        for check in checks[:MAX_ROWS]
    ]
    table = "\n".join(["| check | | |", "|---|---|---|", *rows])
    title = typography.counted(len(checks), "check")
    return f"<details><summary>{title} of the gate</summary>\n\n{table}\n\n</details>"


def _changed_cases(gate: GateResult) -> Iterator[str]:
    """Yield the cases that only one side of the baseline file has."""
    if (then := gate.regression) is None:
        return
    changes = {"added since": then.added, "no longer there, counted as wrong": then.removed}
    for what, cases in changes.items():
        if cases:
            names = ", ".join(map(_name, cases[:MAX_ROWS]))
            more = f" and {len(cases) - MAX_ROWS} more" if len(cases) > MAX_ROWS else ""
            yield f"- {what}: {names}{more}"


def _contenders(comparison: Comparison) -> str:
    score = "score" if comparison.graded else "right"
    heads = ("contender", score, words.level(comparison), "errors", "tokens a case", "s a case")
    rows = [_row(comparison, result) for result in comparison.contenders[:MAX_ROWS]]
    lines = [f"| {' | '.join(heads)} |", "|---|--:|:-:|--:|--:|--:|"]
    return "\n".join([*lines, *rows])


def _row(comparison: Comparison, result: ContenderResult) -> str:
    name = _name(result.name)
    if result.name in (comparison.candidate, comparison.baseline):
        name = f"**{name}**"
    cells = (
        f"{name} {result.role}",
        typography.percent(result.score),
        typography.interval(result.interval, "\u2013"),
        words.errors(result),
        typography.per_case(words.tokens(result), result.n),
        typography.per_case(result.seconds, result.n, "{:.2f}".format),
    )
    return f"| {' | '.join(cells)} |"


def _details(comparison: Comparison, which: Outcome, cases: list[CaseResult], prompt: str) -> str:
    """Write cases as an HTML table: it takes texts of several lines, and Markdown's does not."""
    more = len(cases) - MAX_CASES
    heads = ("question", "expected", comparison.baseline, comparison.candidate)
    rows = [
        _cells("td", (question(case, prompt), case.expected, *_answers(comparison, case)))
        for case in cases[:MAX_CASES]
    ]
    first = f", the first {MAX_CASES}" if more > 0 else ""
    table = "\n".join(["<table>", _cells("th", heads), *rows, "</table>"])
    title = f"{which.capitalize()}: {typography.counted(len(cases), 'case')}{first}"
    return f"<details><summary>{title}</summary>\n\n{table}\n\n</details>"


def _answers(comparison: Comparison, case: CaseResult) -> Iterator[str]:
    for name in (comparison.baseline, comparison.candidate):
        answer = case.answers[name]
        yield f"no answer: {answer.error}" if answer.error is not None else answer.text


def _cells(tag: str, texts: Iterable[str]) -> str:
    cells = (f"<{tag}>{_quoted(text)}</{tag}>" for text in texts)
    return f"<tr>{''.join(cells)}</tr>"


def _quoted(text: str) -> str:
    """Return a text inside HTML: as code, where GitHub looks for no mention and no link."""
    lines = escape(_clipped(text, CASE_CHARACTERS)).splitlines()
    return f"<code>{'<br>'.join(lines)}</code>" if lines else ""


def _name(text: str) -> str:
    return escaped(text, NAME_CHARACTERS)


def escaped(text: str, limit: int = SENTENCE_CHARACTERS) -> str:
    """Return a text inside Markdown, on one line and without a meaning there."""
    line = " ".join(_clipped(text, limit).split())
    apart = _LINKS.sub(lambda match: f"{match[0]}\u200b", line)
    return _MARKUP.sub(r"\\\1", escape(apart, quote=False))


def _clipped(text: str, limit: int) -> str:
    begin = text[:limit].replace("\r\n", "\n")
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in begin)
    return f"{shown}\u2026 ({len(text) - limit:,} characters more)" if len(text) > limit else shown
