"""Markdown for CI: a comparison as a step's summary, and the one comment of a pull request.

The first line is a hidden comment, the same for a job from run to run, by which the next run finds
the comment that it replaces. Then the verdict, in one sentence (``summary.md.j2``).

Names and a model's texts are data: whatever they hold, they make no markup, mention no one and link
nowhere, since every value of a template is escaped. The whole stays below what GitHub takes; what
stands last, the cases, is left out first.
"""

from __future__ import annotations

import re
from functools import cache
from html import escape

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from unitune.evaluate.results import Comparison
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
CUT = Markup("\f")
"""Between the parts of a text; no value holds one when it is escaped."""

_MARKUP = re.compile(r"([\\`*_\[\]|~])")
_LINKS = re.compile(r"[@#]|(?<=\w)://|(?<=www)\.", re.IGNORECASE)
"""Where GitHub sees a person, an issue or an address; a space of no width behind it is enough."""


def render(comparison: Comparison) -> str:
    """Return a comparison as Markdown.

    Args:
        comparison: Without its cases none are shown.
    """
    changed = [
        (which, [case for case in comparison.cases if outcome(comparison, case) is which])
        for which in (Outcome.LOST, Outcome.GAINED)  # what broke matters more
    ]
    checks = comparison.gate.checks if comparison.gate else ()
    return fill(
        "summary.md.j2",
        marker=marker("compare", comparison.job),
        comparison=comparison,
        checks=sorted(checks, key=lambda check: check.exit_code == 0),
        changed=changed,
        prompt=shared_system_prompt(comparison.cases),
        question=question,
        words=words,
        typography=typography,
        max_rows=MAX_ROWS,
        max_cases=MAX_CASES,
    )


def fill(template: str, **values: object) -> str:
    """Return a template with its values, without the last parts where it is too long."""
    text = _environment().get_template(template).render(cut=CUT, **values)
    parts = [part.strip() for part in text.split(CUT) if part.strip()]
    while len("\n\n".join(parts).encode()) >= MAX_BYTES:
        parts.pop()
    return "\n\n".join(parts) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(  # noqa: S701 - `finalize` escapes for Markdown
        loader=PackageLoader("unitune.report", package_path=""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    environment.filters |= {"name": _name, "code": _code}
    return environment


def _finalized(value: object) -> Markup:
    return value if isinstance(value, Markup) else escaped(str(value))


def _name(text: str) -> Markup:
    return escaped(text, NAME_CHARACTERS)


def marker(command: str, job: str) -> Markup:
    """Return the line by which the comment of a command on a job can be found."""
    name = re.sub("[^a-z0-9-]", "-", job)[:40]
    return Markup(f"<!-- unitune {command}: {name} -->")  # noqa: S704 - of these characters alone


def escaped(text: str, limit: int = SENTENCE_CHARACTERS) -> Markup:
    """Return a text inside Markdown, on one line and without a meaning there."""
    line = " ".join(_clipped(text, limit).split())
    apart = _LINKS.sub(lambda match: f"{match[0]}\u200b", line)
    return Markup(_MARKUP.sub(r"\\\1", escape(apart, quote=False)))  # noqa: S704 - escaped


def _code(text: str) -> Markup:
    """Return a text inside HTML: as code, where GitHub looks for no mention and no link."""
    lines = escape(_clipped(text, CASE_CHARACTERS)).splitlines()
    return Markup(f"<code>{'<br>'.join(lines)}</code>" if lines else "")  # noqa: S704 - escaped


def _clipped(text: str, limit: int) -> str:
    begin = text[:limit].replace("\r\n", "\n")
    shown = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in begin)
    return f"{shown}\u2026 ({len(text) - limit:,} characters more)" if len(text) > limit else shown
