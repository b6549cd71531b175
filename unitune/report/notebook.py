"""A comparison in a notebook's cell: verdict, contenders with their intervals, gate and notes.

One small piece of HTML without style sheet and script, since a notebook cleans both away, in the
colours that the notebook has. All text is escaped. The whole is `unitune.report.html`.
"""

from __future__ import annotations

from markupsafe import Markup

from unitune.evaluate.results import Comparison, ContenderResult
from unitune.report import words

MOST_NOTES = 5
"""Notes shown; a cell is no page."""

_TABLE = Markup(
    '<table style="border-collapse:collapse">'
    '<thead><tr><th scope="col" style="text-align:left">contender</th><th scope="col">right</th>'
    '<th scope="col">{}</th><th scope="col" style="text-align:left">0 to 100 %</th>'
    '<th scope="col">errors</th></tr></thead><tbody>{}</tbody></table>'
)
_ROW = Markup(
    '<tr><th scope="row" style="text-align:left;font-weight:{}">{}</th><td>{}</td>'
    "<td>{}\u2013{}</td><td>{}</td><td>{:,}</td></tr>"
)
_BAR = Markup(
    '<svg width="160" height="14" role="img" aria-label="{}, {} to {}">'
    '<line x1="0" x2="160" y1="7" y2="7" stroke="currentColor" stroke-opacity="0.25"/>'
    '<line x1="{}" x2="{}" y1="7" y2="7" stroke="currentColor" stroke-width="2"/>'
    '<circle cx="{}" cy="7" r="4" fill="currentColor"/></svg>'
)
_WIDTH = 160


def render(comparison: Comparison) -> str:
    """Return a comparison as a piece of HTML for a notebook."""
    notes = [*filter(None, [words.gate(comparison), words.regression(comparison)])]
    notes += words.caveats(comparison)[:MOST_NOTES]
    parts = [
        Markup('<p style="font-size:1.25em;font-weight:600;margin:0.25em 0">{}</p>').format(
            words.typeset(words.headline(comparison))
        ),
        Markup("<p>{} {}</p>").format(
            words.typeset(words.scores(comparison)), words.typeset(words.reason(comparison))
        ),
        _TABLE.format(
            words.level(comparison),
            Markup().join(_row(comparison, result) for result in comparison.contenders),
        ),
        Markup("<p>{}</p>").format(words.typeset(words.figures(comparison))),
        *(Markup("<p>{}</p>").format(words.typeset(note)) for note in notes),
    ]
    return Markup("<div>{}</div>").format(Markup().join(parts))


def _row(comparison: Comparison, result: ContenderResult) -> Markup:
    low, high = (words.decimal(100 * end) for end in result.interval)
    compared = result.name in (comparison.candidate, comparison.baseline)
    return _ROW.format(
        600 if compared else 400,
        result.name,
        words.percent(result.score),
        low,
        high,
        _bar(result),
        result.errors,
    )


def _bar(result: ContenderResult) -> Markup:
    places = [round(_WIDTH * share, 1) for share in (*result.interval, result.score)]
    shares = [words.percent(share) for share in (result.score, *result.interval)]
    return _BAR.format(*shares, *places)
