"""A vendor's own quote beside our estimate, in words."""

from __future__ import annotations

from decimal import Decimal

from unitune.cli.money import dollars
from unitune.errors import Unsupported
from unitune.planning.documents import Plan
from unitune.planning.preflight import ResolvedJob
from unitune.planning.quoting import quote

GAP = Decimal("0.05")
"""A difference of more than this share is worth a look: ours or theirs is wrong."""


def quoted(resolved: ResolvedJob, found: Plan) -> str:
    """Return what the vendor says that a training would cost, beside what we say."""
    try:
        theirs = quote(resolved)
    except Unsupported as none:
        return str(none)
    text = f"{resolved.offer.name} itself says {dollars(theirs)}"
    ours = found.estimate and found.estimate.launch_usd
    if ours is None:
        return f"{text}."
    gap = abs(theirs - ours.expected) / max(ours.expected, Decimal("0.01"))
    inside = ours.low <= theirs <= ours.high
    place = "within our range" if inside else "outside of our range"
    return f"{text}, {place}" + (f", {gap:.0%} beside what we expect." if gap > GAP else ".")
