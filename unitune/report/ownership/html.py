"""Ownership as one self-contained page: `render` gives the whole of it, the plot first.

The page asks nobody for anything and holds no script; what is said stands in
`unitune.report.ownership.words`, what is drawn in `unitune.report.ownership.chart`.
"""

from __future__ import annotations

from markupsafe import Markup

from unitune.owning.documents import OwnershipList
from unitune.report import html, typography
from unitune.report.ownership import chart, words


def render(found: OwnershipList) -> str:
    """Return what owning costs on each backend as one HTML page that needs no other file.

    Args:
        found: At least one backend.
    """
    style = html.resource("style.css") + html.resource("ownership/page.css")
    return (
        html.environment()
        .get_template("ownership/page.html.j2")
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
