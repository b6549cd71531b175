"""The mask audit on a terminal: each token apart, those that are learnt in green."""

from __future__ import annotations

from rich.text import Text

from unitune.backends.capabilities import MaskedToken
from unitune.cli.output import console
from unitune.planning.masks import MaskedRow, audit
from unitune.planning.preflight import ResolvedJob

LEARNT = ("bold green", "bold green underline")
SEEN = ("dim", "dim underline")
"""Neighbouring tokens take turns, so that one sees where each ends."""
SEPARATOR = "\u00b7"
"""Between tokens where there are no styles to tell them apart."""
OPEN, CLOSE = "\u00ab", "\u00bb"
"""Around what is learnt, where there are no colours."""


def print_tokens(resolved: ResolvedJob, count: int) -> None:
    """Print the first training rows with what is learnt of them.

    Args:
        resolved: What to tune and how.
        count: How many rows.
    """
    found = audit(resolved, count)
    plain = console().color_system is None
    for row in found.rows:
        learnt, tokens = _counts(row)
        title = row.problem or f"{learnt:,} of {tokens:,} pieces are learnt"
        console().print(Text(f"line {row.line}: {title}", style="bold"))
        console().print(_plain(row) if plain else _coloured(row), soft_wrap=False)
        console().print()
    legend = f"{OPEN}learnt{CLOSE}, tokens apart by {SEPARATOR}" if plain else "green: learnt"
    console().print(Text(f"{legend}. Cut by {found.basis}.", style="dim"))


def _counts(row: MaskedRow) -> tuple[int, int]:
    tokens = [piece for piece in row.pieces if not piece.heading]
    return sum(piece.trained for piece in tokens), len(tokens)


def _coloured(row: MaskedRow) -> Text:
    text = Text()
    for at, piece in enumerate(row.pieces):
        if piece.heading:
            text.append(f"{_line_break(text)}{piece.text}", style="cyan")
            continue
        styles = LEARNT if piece.trained else SEEN
        text.append(_visible(piece.text), style=styles[at % 2])
    return text


def _plain(row: MaskedRow) -> Text:
    text, learning = Text(), False
    for before, piece in zip((None, *row.pieces), row.pieces, strict=False):
        if learning and not piece.trained:
            text.append(CLOSE)
        if piece.heading:
            text.append(f"{_line_break(text)}{piece.text}")
        elif piece.trained and not learning:
            text.append(OPEN + _visible(piece.text))
        else:
            text.append(_between(before) + _visible(piece.text))
        learning = piece.trained
    return text.append(CLOSE) if learning else text


def _between(before: MaskedToken | None) -> str:
    return "" if before is None or before.heading else SEPARATOR


def _line_break(text: Text) -> str:
    return "\n" if text and not text.plain.endswith("\n") else ""


def _visible(text: str) -> str:
    """Return a token's text with its line breaks shown, too."""
    return text.replace("\n", "\u21b5\n")
