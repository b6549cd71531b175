"""Render a comparison as one self-contained page, ``report.html``.

`unitune.report.comparison` describes its sections, and ``report.html.j2`` adds the cases. The page
is complete without JavaScript; `script.js` only adds filters and search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from markupsafe import Markup

from unitune.evaluate.results import Comparison
from unitune.render import html
from unitune.report import cases
from unitune.report.comparison import describe
from unitune.security.json_fields import whole_text

PACKAGE = "unitune.report"
# Filters across outcomes: their names, and the class of the cases they show.
MARKS = (("Errors", "error"), ("Cut off", "cut"), ("Required", "required"))


def render(comparison: Comparison, notes: Mapping[str, str] = cases.NO_NOTES) -> str:
    """Return a comparison as one HTML page that needs no other files and no network.

    Args:
        comparison: Comparison; without its cases, the page names the file that has them.
        notes: People's notes on cases, by case id.
    """
    return "".join(pieces(comparison, notes))


def pieces(comparison: Comparison, notes: Mapping[str, str] = cases.NO_NOTES) -> Iterator[str]:
    """Yield the page of `render` in pieces, as building it whole takes many times its size."""
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
