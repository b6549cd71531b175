"""What sets an answer apart from the expected one, word by word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Literal

LEAST_SHARED = 0.35
"""Texts that share a smaller part of their words are different texts, not a changed one."""

# A Chinese, Japanese or Korean character is a word of its own: those scripts have no spaces.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of words: in both texts, only in the answer, or only in the expected answer."""

    kind: Literal["same", "extra", "missing"]
    text: str


@lru_cache(maxsize=4096)  # labels recur: a classifier gives the same few answers again and again
def marked(expected: str, answer: str) -> tuple[Piece, ...]:
    """Mark an answer word by word against what was expected.

    Args:
        expected: The expected answer.
        answer: The answer given.

    Returns:
        Pieces in reading order; one `extra` piece when the texts have little in common.
    """
    wanted, given = _WORDS.findall(expected), _WORDS.findall(answer)
    matcher = SequenceMatcher(None, wanted, given)
    if matcher.ratio() < LEAST_SHARED:
        return (Piece("extra", answer),) if answer else ()
    pieces: list[Piece] = []
    missing = extra = ""
    for tag, start, stop, given_start, given_stop in matcher.get_opcodes():
        old, new = "".join(wanted[start:stop]), "".join(given[given_start:given_stop])
        # A space that two changes have in common is no agreement: it would tear both apart.
        if tag == "equal" and not (old.isspace() and (missing or extra)):
            pieces += (
                Piece("missing", missing),
                Piece("extra", extra),
                Piece("same", old),
            )
            missing = extra = ""
        else:
            missing, extra = missing + old, extra + new
    pieces += (Piece("missing", missing), Piece("extra", extra))
    return tuple(piece for piece in pieces if piece.text)
