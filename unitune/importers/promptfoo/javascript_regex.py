r"""Patterns of JavaScript as patterns of Python: `python_pattern`.

The two agree on most of the syntax and differ quietly in what ``$``, ``.``, ``\d``, ``\w``, ``\b``
and ``\s`` match. These are translated, and a pattern is refused where it holds anything that is not
sure to match the same, such as named groups and back-references. Left out: JavaScript sees
characters beyond U+FFFF as two, so that ``^.$`` does not match one of them there.

Source: ECMAScript 2025, sections 22.2.1 and 22.2.2 (patterns without flags); Python's `re`.
"""

from __future__ import annotations

import re

SPACES = r"\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
"""What ``\\s`` matches in JavaScript; Python's own sets are a little smaller or larger."""
TOKEN = re.compile(
    r"""\[\\s\\S\]                                                        # anything
      | \[\^?(?:\\[dDwWsnrtfv]|\\[!-/:-@[-`{-~]|[^]\\[&~|^-]|-(?!-))+\]   # a class
      | \\[dDwWsSbBnrtfv] | \\x[\da-fA-F]{2} | \\u[\da-fA-F]{4}           # an escape
      | \\[!-/:-@[-`{-~]                                                  # punctuation
      | (?:[*+?]|\{\d+(?:,\d*)?\})\??(?![*+?{])                           # a quantifier
      | \((?:\?(?:[:=!]|<[=!]))?(?!\?) | \)                               # a group
      | [^\\[\](){}*+?]""",
    re.VERBOSE,
)
MEANINGS = {
    "$": r"\Z",
    ".": r"[^\n\r\u2028\u2029]",
    r"\s": f"[{SPACES}]",
    r"\S": f"[^{SPACES}]",
    r"[\s\S]": r"[\s\S]",
}


class NoTranslation(ValueError):
    """A pattern that Python may match otherwise, or not at all."""


def python_pattern(pattern: str) -> str:
    """Return a Python pattern that finds what a JavaScript pattern without flags finds.

    Args:
        pattern: As given to ``new RegExp``.

    Raises:
        NoTranslation: It uses what has no counterpart, or is no pattern.
    """
    pieces: list[str] = []
    at = 0
    while at < len(pattern):
        token = TOKEN.match(pattern, at)
        if token is None:
            raise NoTranslation(f"{pattern[at : at + 10]!r} has no counterpart")
        pieces.append(MEANINGS.get(token[0], token[0].replace(r"\s", SPACES)))
        at = token.end()
    translated = f"(?a:{''.join(pieces)})"  # ASCII rules for \d, \w and \b, as in JavaScript
    try:
        re.compile(translated)
    except (re.error, OverflowError, RecursionError) as failure:
        raise NoTranslation(f"Python cannot read it ({failure})") from failure
    return translated
