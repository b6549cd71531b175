"""Secrets removed from texts of others: one rule for keys, tokens and passwords.

A vendor, a proxy or a database may repeat what it was sent, as it was or in base64 (as HTTP's Basic
form has it) or percent-encoded. A secret of usual length is taken out wherever it stands, inside
other words too. One that is short, as stand-ins of vendors are given, is taken out as a word of its
own alone, and one of a few letters not at all: it hides nothing, and without it "no such job
exists" could not be read.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies

MARK = "***"
USUAL_CHARACTERS = 8
"""Keys of vendors have 20 and more; passwords have at least as many by most rules."""
FEWEST_CHARACTERS = 5
"""Below, it is one of the usual stand-ins: test, mock, none, key."""
TOKENS = re.compile(r"ya29\.[\w.~+/-]+|(?<=Bearer )\S+")
"""Google's access tokens, as they look, and whatever else stands where a token belongs."""
SECRET_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)(_\w+)?$", re.IGNORECASE)
"""Names of environment variables that hold secrets."""


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
    known = {*filter(None, secrets), *_environment_secrets(), *_proxy_secrets()}
    forms = {form for secret in known for form in _forms(secret)}
    # The longest first: one may be the beginning of another.
    for form in sorted(forms, key=lambda form: (-len(form), form)):
        if len(form) >= USUAL_CHARACTERS:
            words = words.replace(form, MARK)
        elif len(form) >= FEWEST_CHARACTERS:
            words = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", MARK, words)
    return TOKENS.sub(MARK, words)[:most]


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it may be repeated."""
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
    for proxy in getproxies().values():
        try:
            place = urlsplit(proxy)
        except ValueError:
            continue
        if place.password:
            yield place.password
            password = unquote(place.password)
            yield password
            yield f"{unquote(place.username or '')}:{password}"
