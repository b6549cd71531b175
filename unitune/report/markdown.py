"""A comparison as Markdown for CI: a step's summary, and the one comment of a pull request.

The first line is a comment that nobody sees and that is the same for a job from run to run, so that
the next run finds the comment that it wrote and replaces it. Then the verdict, in one sentence.

Names and a model's texts are data: whatever they hold, they make no markup, mention nobody and link
nowhere. The whole stays below what GitHub takes; cases are left out before anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape

from unitune.evaluate.records import CaseResult
from unitune.evaluate.results import Comparison, ContenderResult, GateResult
from unitune.report import typography, words
from unitune.report.cases import Outcome, outcome, question, shared_system_prompt

MOST_BYTES = 60_000
"""GitHub takes 65,536 characters in a comment and 1 MiB in a step's summary; bytes are counted here
because they are never fewer, and some are left for what an action adds, such as links."""

MOST_CASES = 10
"""Cases shown of those gained, and of those lost: enough to see what kind they are."""

MOST_ROWS = 30
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


def marker(job: str) -> str:
    """Return the line by which the comment of a job is found again."""
    return f"<!-- unitune compare: {re.sub('[^a-z0-9-]', '-', job)[:40]} -->"


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the page.

    Args:
        text: In Markdown.
        needed: Never left out; the needed ones together are always short enough.
    """

    text: str
    needed: bool = False


def render(comparison: Comparison) -> str:
    """Return a comparison as Markdown.

    Args:
        comparison: What was found; without its cases none are shown.
    """
    blocks = list(_blocks(comparison))
    left = MOST_BYTES - sum(_bytes(block) for block in blocks if block.needed)
    shown: list[str] = []
    for block in blocks:
        if not block.needed:
            if _bytes(block) > left:
                continue
            left -= _bytes(block)
        shown.append(block.text)
    return "\n\n".join(shown) + "\n"


def _blocks(comparison: Comparison) -> Iterator[Block]:
    yield Block(marker(comparison.job), needed=True)
    yield Block(f"### {said(words.headline(comparison))}", needed=True)
    yield Block(_sentences(words.scores(comparison), *words.reasons(comparison)), needed=True)
    if comparison.gate is not None:
        yield Block(_gate(comparison.gate), needed=True)
        yield from _against_the_file(comparison)
        yield Block(_checks(comparison.gate))
    yield Block(_contenders(comparison), needed=True)
    if notes := words.caveats(comparison):
        yield Block("\n".join(f"- {said(note)}" for note in notes[:MOST_ROWS]))
    yield Block(
        f"<sub>{said(words.figures(comparison))}. Every case, with its answers: "
        "<code>report.html</code> among the files of this run.</sub>",
        needed=True,
    )
    yield from _cases(comparison)


def _gate(gate: GateResult) -> str:
    state = "Gate passed" if gate.passed else "Gate not passed"
    return f"**{state}** (exit code {gate.exit_code}). {said(gate.reason)}"


def _checks(gate: GateResult) -> str:
    """Write what was checked, that which did not pass first."""
    checks = sorted(gate.checks, key=lambda check: check.exit_code == 0)
    rows = [
        f"| {_name(check.name)} | {words.check(check)} | {said(check.reason)} |"
        for check in checks[:MOST_ROWS]
    ]
    table = "\n".join(["| check | | |", "|---|---|---|", *rows])
    title = typography.counted(len(checks), "check")
    return f"<details><summary>{title} of the gate</summary>\n\n{table}\n\n</details>"


def _against_the_file(comparison: Comparison) -> Iterator[Block]:
    then = comparison.gate.regression if comparison.gate else None
    if then is None:
        return
    yield Block(said(words.regression(comparison)), needed=True)
    for what, cases in (
        ("added since", then.added),
        ("no longer there, counted as wrong", then.removed),
    ):
        if cases:
            named = ", ".join(_name(case) for case in cases[:MOST_ROWS])
            more = f" and {len(cases) - MOST_ROWS} more" if len(cases) > MOST_ROWS else ""
            yield Block(f"- {what}: {named}{more}")


def _contenders(comparison: Comparison) -> str:
    score = "score" if comparison.graded else "right"
    heads = ("contender", score, words.level(comparison), "errors", "tokens a case", "s a case")
    rows = [_row(comparison, result) for result in comparison.contenders[:MOST_ROWS]]
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


def _cases(comparison: Comparison) -> Iterator[Block]:
    """Yield the cases lost, then those gained: what broke matters more."""
    prompt = shared_system_prompt(comparison.cases)
    for wanted in (Outcome.LOST, Outcome.GAINED):
        cases = [case for case in comparison.cases if outcome(comparison, case) is wanted]
        if cases:
            yield Block(_details(comparison, wanted, cases, prompt))


def _details(comparison: Comparison, which: Outcome, cases: list[CaseResult], prompt: str) -> str:
    """Write cases as an HTML table: it takes texts of several lines, and Markdown's does not."""
    more = len(cases) - MOST_CASES
    heads = ("question", "expected", comparison.baseline, comparison.candidate)
    rows = [
        _cells("td", (question(case, prompt), case.expected, *_answers(comparison, case)))
        for case in cases[:MOST_CASES]
    ]
    first = f", the first {MOST_CASES}" if more > 0 else ""
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


def _sentences(*texts: str) -> str:
    return " ".join(map(said, texts))


def _name(text: str) -> str:
    return said(text, NAME_CHARACTERS)


def said(text: str, most: int = SENTENCE_CHARACTERS) -> str:
    """Return a text inside Markdown, on one line and without a meaning there."""
    line = " ".join(_clipped(text, most).split())
    apart = _LINKS.sub(lambda found: f"{found[0]}\u200b", line)
    return _MARKUP.sub(r"\\\1", escape(apart, quote=False))


def _clipped(text: str, most: int) -> str:
    begin = text[:most].replace("\r\n", "\n")
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in begin)
    return f"{shown}\u2026 ({len(text) - most:,} characters more)" if len(text) > most else shown


def _bytes(block: Block) -> int:
    """Return the size of a block with the empty line after it."""
    return len(block.text.encode()) + 2
