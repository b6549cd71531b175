"""Secrets removed from texts of others: one rule for keys, tokens and passwords.

A vendor, a proxy or a database may repeat what it was sent, as it was or in base64 (as HTTP's Basic
form has it) or percent-encoded. A secret of usual length is taken out wherever it stands, inside
other words too. One that is short, as stand-ins of vendors are given, is taken out as a word of its
own alone, and one of a few letters not at all: it hides nothing, and without it "no such job
exists" could not be read.

Names in files, answers of models and words of vendors can also carry escape sequences, which set
titles, move the cursor and forge lines of a terminal: `printable` makes a visible mark of each.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

REDACTED = "***"
# Keys of vendors have 20 and more; passwords have at least as many by most rules
USUAL_CHARACTERS = 8
FEWEST_CHARACTERS = 5  # below, it is one of the usual stand-ins: test, mock, none, key
# Google's access tokens, as they look, and whatever else stands where a token belongs
TOKENS = re.compile(r"ya29\.[\w.~+/-]+|(?<=Bearer )\S+")
SECRET_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)(_\w+)?$", re.IGNORECASE)


_HELD = set[str]()


def hold_secret(secret: str) -> None:
    """Remove a secret of usual length from all later texts: nobody need name it again."""
    if len(secret) >= USUAL_CHARACTERS:
        _HELD.add(secret)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables that hold secrets by their names."""
    return {name: value for name, value in environment.items() if not SECRET_NAMES.search(name)}


def redacted(words: str, secrets: Iterable[str | None] = (), most: int | None = None) -> str:
    """Return words without secrets: those given, and those that the environment holds.

    Args:
        words: As they came, and whole: half a secret at a cut would not be known.
        secrets: What must not be shown; None and empty ones are passed over.
        most: Characters that are kept, of the words as they are returned.
    """
    known = {*filter(None, secrets), *_HELD, *_environment_secrets(), *_proxy_secrets()}
    forms = {form for secret in known for form in _forms(secret)}
    # The longest first: one may be the beginning of another.
    for form in sorted(forms, key=lambda form: (-len(form), form)):
        if len(form) >= USUAL_CHARACTERS:
            words = words.replace(form, REDACTED)
        elif len(form) >= FEWEST_CHARACTERS:
            words = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", REDACTED, words)
    return TOKENS.sub(REDACTED, words)[:most]


def _forms(secret: str) -> Iterator[str]:
    yield secret
    if len(secret) >= FEWEST_CHARACTERS:
        yield quote(secret, safe="")
        yield base64.b64encode(secret.encode()).decode().rstrip("=")


def _environment_secrets() -> Iterator[str]:
    """Yield values of usual length under names of secrets; the path of a key's file is none."""
    for name, value in os.environ.items():
        named = SECRET_NAMES.search(name) and len(value) >= USUAL_CHARACTERS
        if named and not Path(value).exists():
            yield value.strip()


def _proxy_secrets() -> Iterator[str]:
    from urllib.request import getproxies  # noqa: PLC0415 - loads HTTP for a command without any

    for proxy in getproxies().values():
        try:
            place = urlsplit(proxy if "://" in proxy else f"//{proxy}")
        except ValueError:
            continue
        if place.password:
            yield place.password
            password = unquote(place.password)
            yield password
            yield f"{unquote(place.username or '')}:{password}"


# The usual stand-in for a character that cannot be shown, as wide as most characters are
MARK = "\ufffd"
# What reorders a whole line (embeddings, overrides, isolates). Source: https://trojansource.codes,
# and Unicode's UAX #9, 2.1 to 2.3; the marks U+200E and U+200F, which move one place, stay.
BIDI = (0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
LINES = (0x2028, 0x2029)
# C0 and C1 (ECMA-48) and DEL, but for what any text is made of: tabs and line breaks
CONTROLS = frozenset({*range(0x20), *range(0x7F, 0xA0), *BIDI, *LINES} - {ord("\t"), ord("\n")})

_MARKED = dict.fromkeys(CONTROLS, MARK)
_MARKED_LINE = dict.fromkeys((*CONTROLS, ord("\t"), ord("\n")), MARK)


def printable(text: str) -> str:
    """Return a text of the same length that does to a terminal nothing but appear."""
    return text.translate(_MARKED)


def one_line(text: str) -> str:
    """Return `printable` text that stays on its line."""
    return text.translate(_MARKED_LINE)
