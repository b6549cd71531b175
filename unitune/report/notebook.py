"""A comparison in a notebook's cell: verdict, contenders with their intervals, gate and notes.

One small piece of HTML (``notebook.html.j2``) without style sheet and script, since a notebook
cleans both away, in the colours that the notebook has. The whole is `unitune.report.html`.
"""

from __future__ import annotations

from unitune.evaluate.results import Comparison
from unitune.report import facts, typography, words
from unitune.report.html import environment


def render(comparison: Comparison) -> str:
    """Return a comparison as a piece of HTML for a notebook."""
    template = environment().get_template("notebook.html.j2")
    return template.render(comparison=comparison, words=words, facts=facts, typography=typography)
