"""Markdown for CI: a comparison or a plan, as a step's summary and as a comment of a pull request.

The first line is a hidden comment, the same for a job from run to run, by which the next run finds
the comment that it replaces. The texts are in ``summary.md.j2`` and ``plan.md.j2``.

Names and a model's texts are data: whatever they hold, they make no markup, mention no one and link
nowhere, since every value of a template is escaped. The whole stays below what GitHub takes; what
stands last is left out first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from html import escape

from jinja2 import Environment
from markupsafe import Markup

from unitune.cost.budget import BUDGET_CODES
from unitune.cost.documents import LAUNCH, MONTHLY
from unitune.cost.spread import cents
from unitune.cost.tokens import Count
from unitune.evaluate.results import Comparison
from unitune.planning.plan import Plan
from unitune.report import typography, words
from unitune.report.cases import Outcome, outcome, question, shared_system_prompt, wanted
from unitune.report.html import environment

# GitHub takes 65,536 characters in a comment. Bytes are never fewer, and an action adds links.
MAX_BYTES = 60_000
MAX_CASES = 10  # of those gained, and of those lost: enough to see what kind they are
MAX_CONFUSIONS = 5
MAX_ROWS = 30  # contenders, checks, notes and case ids shown of each
MAX_FINDINGS = 10
CASE_CHARACTERS = 300  # of each text of a case
NAME_CHARACTERS = 60
SENTENCE_CHARACTERS = 400
CUT = Markup("\f")  # between the parts of a text; no escaped value holds a form feed

_MARKUP = re.compile(r"([\\`*_\[\]|~])")
# Where GitHub sees a person, an issue or an address; a space of no width behind it is enough.
_LINKS = re.compile(r"[@#]|(?<=\w)://|(?<=www)\.", re.IGNORECASE)


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
    return _fill(
        "summary.md.j2",
        marker=marker("compare", comparison.job),
        comparison=comparison,
        checks=sorted(checks, key=lambda check: check.exit_code == 0),
        changed=changed,
        confusions=words.confusions(comparison, MAX_CONFUSIONS),
        prompt=shared_system_prompt(comparison.cases),
        question=question,
        wanted=wanted,
        max_rows=MAX_ROWS,
        max_cases=MAX_CASES,
    )


def render_plan(plan: Plan, base: Plan | None = None) -> str:
    """Return a plan as Markdown; empty when it is as it was.

    Args:
        plan: What to write.
        base: Of the base branch; None: there is nothing to compare it with.
    """
    figures = dict(_plan_figures(plan))
    before = dict(_plan_figures(base)) if base is not None else figures
    if base is not None and figures == before and _errors(base) == _errors(plan):
        return ""
    return _fill(
        "plan.md.j2",
        marker=marker("plan", plan.job),
        plan=plan,
        over_budget=[finding for finding in plan.errors if finding.code in BUDGET_CODES],
        changes=[
            (name, before.get(name, ""), after)
            for name, after in figures.items()
            if before.get(name) != after
        ],
        monthly=MONTHLY,
        launch=LAUNCH,
        findings=[finding for finding in plan.findings if finding.severity != "note"],
        max_findings=MAX_FINDINGS,
        count=_count,
        cents=_cents,
    )


def _errors(plan: Plan) -> list[str]:
    return list(map(str, plan.errors))


def _plan_figures(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "backend", plan.backend
    yield "base model", plan.model
    yield "training rows", f"{plan.train_rows:,}"
    if plan.test_rows is not None:
        yield "test rows", f"{plan.test_rows:,}"
    estimate = plan.estimate
    if estimate is None:
        yield "training", "no charge" if plan.charge == "none" else "unknown"
        return
    yield "epochs", _count(estimate.epochs)
    yield "trained tokens", _count(estimate.trained_tokens)
    yield "training", typography.usd_range(estimate.launch_usd)
    yield "answers of the comparison", typography.usd_range(estimate.evaluation_usd)
    yield "a month after it", typography.usd_range(estimate.month_usd)


def _count(count: Count | None) -> str:
    if count is None:
        return "unknown"
    return f"{count.low:,}" if count.exact else f"{count.low:,} to {count.high:,}"


def _cents(usd: Decimal) -> str:
    return f"{cents(usd):,}"


def _fill(template: str, **values: object) -> str:
    """Return a filled template, without the last parts where it is too long."""
    text = _environment().get_template(template).render(cut=CUT, **values)
    parts = [part.strip() for part in text.split(CUT) if part.strip()]
    while len("\n\n".join(parts).encode()) >= MAX_BYTES:
        parts.pop()
    return "\n\n".join(parts) + "\n"


@cache
def _environment() -> Environment:
    markdown = environment().overlay(autoescape=False, finalize=_finalized)
    markdown.filters.update({"name": _name, "code": _code})
    return markdown


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
