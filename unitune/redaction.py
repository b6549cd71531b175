"""Secrets taken out of words that somebody else wrote: one rule for keys, tokens and passwords.

A vendor, a proxy or a database may repeat what it was sent. A secret of usual length is taken out
wherever it stands, inside other words too. One that is short, as stand-ins of vendors are given, is
taken out as a word of its own alone, and one of a few letters not at all: it hides nothing, and
without it "no such job exists" could not be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MARK = "***"
USUAL_CHARACTERS = 8
"""Keys of vendors have 20 and more; passwords have at least as many by most rules."""
FEWEST_CHARACTERS = 5
"""Below, it is one of the usual stand-ins: test, mock, none, key."""


def redacted(words: str, secrets: Iterable[str | None]) -> str:
    """Return words without secrets.

    Args:
        words: As they came.
        secrets: What must not be shown; None and empty ones are passed over.
    """
    # The longest first: one may be the beginning of another.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        if len(secret) >= USUAL_CHARACTERS:
            words = words.replace(secret, MARK)
        elif len(secret) >= FEWEST_CHARACTERS:
            words = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MARK, words)
    return words
