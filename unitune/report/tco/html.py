"""TotalCost as one self-contained page: `render` gives the whole of it, the plot first.

The page asks nobody for anything and holds no script; what is said stands in
`unitune.report.tco.words`, what is drawn in `unitune.report.tco.chart`.
"""

from __future__ import annotations

from markupsafe import Markup

from unitune.report import html, typography
from unitune.report.tco import chart, words
from unitune.tco.documents import TotalCostList


def render(found: TotalCostList) -> str:
    """Return what owning costs on each backend as one HTML page that needs no other file.

    Args:
        found: At least one backend.
    """
    style = html.resource("style.css") + html.resource("tco/page.css")
    return (
        html.environment()
        .get_template("tco/page.html.j2")
        .render(
            backends=found.backends,
            left_out=found.left_out,
            words=words,
            chart=chart,
            typography=typography,
            style=Markup(style),  # noqa: S704 - our own files
            policy=html.policy(style),
        )
    )
