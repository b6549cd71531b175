"""Print the trained tokens of rows, and a vendor's quote next to a plan."""

from __future__ import annotations

from decimal import Decimal

from rich.text import Text

from unitune.backends.capabilities import MaskedToken
from unitune.cli.output import console
from unitune.errors import Unsupported
from unitune.planning.forecasts import MaskedRow, audit, quote
from unitune.planning.plan import Plan
from unitune.planning.preflight import ResolvedJob
from unitune.render.typography import dollars

# A larger difference means that unitune's estimate or the vendor's quote is wrong
QUOTE_GAP = Decimal("0.05")
TRAINED, SEEN, HEADING = "bold green", "dim", "cyan"
OPEN, CLOSE, BETWEEN_TOKENS = "\u00ab", "\u00bb", "\u00b7"


def print_quote(resolved: ResolvedJob, plan: Plan) -> None:
    """Print the vendor's quote for a training next to unitune's estimate."""
    try:
        theirs = quote(resolved)
    except Unsupported as none:
        console().print(str(none))
        return
    text = f"{resolved.offer.name} itself says {dollars(theirs)}"
    ours = plan.estimate and plan.estimate.launch_usd
    if ours is not None:
        inside = ours.low <= theirs <= ours.high
        text += ", within our range" if inside else ", outside of our range"
        gap = abs(theirs - ours.expected) / max(ours.expected, Decimal("0.01"))
        text += f", {100 * gap:.0f} % off our estimate" if gap > QUOTE_GAP else ""
    console().print(f"{text}.")


def print_tokens(resolved: ResolvedJob, count: int) -> None:
    """Print the first training rows, with separated tokens and the trained ones in green."""
    audited = audit(resolved, count)
    for row in audited.rows:
        pieces = [piece for piece in row.pieces if not piece.heading]
        trained = sum(piece.trained for piece in pieces)
        title = row.problem or f"{trained:,} of {len(pieces):,} pieces are trained"
        console().print(f"line {row.line}: {title}", style="bold")
        console().print(_marked_tokens(row))
        console().print()
    legend = f"{OPEN}trained{CLOSE}, tokens apart by {BETWEEN_TOKENS}"
    console().print(f"{legend}. Cut by {audited.basis}.", style="dim")


def _marked_tokens(row: MaskedRow) -> Text:
    text = Text()
    before: MaskedToken | None = None
    for piece in row.pieces:
        if before is not None and before.trained and not piece.trained:
            text.append(CLOSE)
        if piece.heading:
            text.append("" if not text or text.plain.endswith("\n") else "\n")
            text.append(piece.text, HEADING)
        else:
            starts = piece.trained and not (before is not None and before.trained)
            apart = "" if before is None or before.heading else BETWEEN_TOKENS
            text.append(OPEN if starts else apart)
            visible = piece.text.replace("\n", "\u21b5\n")
            text.append(visible, TRAINED if piece.trained else SEEN)
        before = piece
    return text.append(CLOSE) if before is not None and before.trained else text
