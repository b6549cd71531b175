"""Texts from outside as a terminal may see them: what would control it becomes a visible mark.

Names in files, answers of models and words of vendors can carry escape sequences, which set titles,
move the cursor and forge lines. Here is what of a text a terminal obeys; who prints is
`unitune.cli.output`.
"""

from __future__ import annotations

MARK = "\ufffd"
"""The usual stand-in for a character that cannot be shown, as wide as most characters are."""
BIDI = (0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""What reorders a whole line (embeddings, overrides, isolates). Source: https://trojansource.codes,
and Unicode's UAX #9, 2.1 to 2.3; the marks U+200E and U+200F, which move one place, stay."""
LINES = (0x2028, 0x2029)
CONTROLS = frozenset({*range(0x20), *range(0x7F, 0xA0), *BIDI, *LINES} - {ord("\t"), ord("\n")})
"""C0 and C1 (ECMA-48) and DEL, but for what any text is made of: tabs and line breaks."""

_MARKED = dict.fromkeys(CONTROLS, MARK)
_MARKED_LINE = dict.fromkeys((*CONTROLS, ord("\t"), ord("\n")), MARK)


def printable(text: str) -> str:
    """Return a text of the same length that does to a terminal nothing but appear.

    Args:
        text: Anything; tabs and line breaks stay.
    """
    return text.translate(_MARKED)


def one_line(text: str) -> str:
    """Return `printable` text that stays on its line.

    Args:
        text: Anything; tabs and line breaks become visible, too.
    """
    return text.translate(_MARKED_LINE)
