r"""Patterns of JavaScript as patterns of Python: `python_pattern`.

The two agree on most of the syntax and differ quietly in some of it: what ``$``, ``.``, ``\d``,
``\w``, ``\b`` and ``\s`` match, how groups are named, what stands for itself. Each difference is
translated; what has no translation that is sure to match the same is refused. Left out: JavaScript
sees characters beyond U+FFFF as two, so that ``^.$`` does not match one of them there.

Source: ECMAScript 2025, sections 22.2.1 and 22.2.2 (patterns without flags, Annex B included);
Python's `re`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

SPACES = r"\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
"""What ``\\s`` matches in JavaScript; Python's own sets are a little smaller or larger."""

TOKENS = re.compile(
    r"""(?P<class>\[(?:\\.|[^\]\\])*\])
      | (?P<escape>\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|k<[^>]*>|.))
      | (?P<group>\(\?(?:<[=!]|[:=!]|<[A-Za-z_]\w*>))
      | (?P<odd>\(\? | [*+?}]\+ | \\$ | \[)
      | (?P<brace>\{(?=,\d*\}))
      | (?P<plain>.)""",
    re.VERBOSE | re.DOTALL,
)
SAME_ESCAPES = frozenset("dDwWbBnrtfv")
OUTSIDE = {
    ".": r"[^\n\r\u2028\u2029]",
    "$": r"\Z",
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
    # ASCII rules for \d, \w and \b, as in JavaScript.
    translated = f"(?a:{''.join(_pieces(pattern))})"
    try:
        re.compile(translated)
    except (re.error, OverflowError, RecursionError) as failure:
        raise NoTranslation(f"Python cannot read it ({failure})") from failure
    return translated


def _pieces(pattern: str) -> Iterator[str]:
    for token in TOKENS.finditer(pattern):
        text = token[0]
        match token.lastgroup:
            case "class":
                yield _class(text)
            case "escape":
                yield _escape(text)
            case "group":
                yield text.replace("(?<", "(?P<") if text.endswith(">") else text
            case "brace":
                yield r"\{"
            case "odd":
                raise NoTranslation(f"{text!r} has no counterpart")
            case _:
                yield OUTSIDE.get(text, text)


def _escape(text: str) -> str:
    name = text[1]
    if name == "s":
        return f"[{SPACES}]"
    if name == "S":
        return f"[^{SPACES}]"
    if text.startswith(r"\k<"):
        return f"(?P={text[3:-1]})"
    return _character(text)


def _character(text: str) -> str:
    """Return an escape that means the same inside and outside of a class."""
    name = text[1]
    stands_for_itself = name.isascii() and not name.isalnum()
    coded = len(text) > 2
    if name in SAME_ESCAPES or stands_for_itself or coded:
        return text
    raise NoTranslation(f"{text!r} has no counterpart")


def _class(text: str) -> str:
    inner = text[1:-1]
    if inner in ("", "^"):
        raise NoTranslation(f"{text!r} has no counterpart")
    parts = re.findall(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)|.", inner, re.DOTALL)
    return f"[{''.join(_member(part, parts) for part in parts)}]"


def _member(part: str, parts: list[str]) -> str:
    if part == r"\s":
        return SPACES
    if part == r"\S":
        if r"\s" in parts:  # [\s\S]: anything
            return part
        raise NoTranslation(r"'\\S' beside other characters has no counterpart")
    if len(part) > 1:
        return _character(part)
    # Python reserves doubled signs in a class for set operations to come.
    return f"\\{part}" if part in "[&~|" else part
