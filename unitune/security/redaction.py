"""Remove secrets and control characters from texts of other programs.

A vendor, proxy or database may repeat a key, token or password: unchanged, in base64 (as in HTTP
Basic) or percent-encoded. Secrets of usual length are removed everywhere, even inside words.
Shorter ones, as for stand-ins of vendors, are removed only as whole words. Those of a few
letters stay: they hide nothing, and removing "no" would garble "no such job exists".

File names, models' answers and vendors' messages can also contain escape sequences, which set
titles, move the cursor and forge lines of a terminal. `printable` replaces each by a visible mark.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, unquote, urlsplit

REDACTED = "***"
# Vendors' keys have 20 or more; most rules require at least as many for passwords
USUAL_CHARACTERS = 8
FEWEST_CHARACTERS = 5  # shorter values are usual stand-ins: test, mock, none, key
# Google's access tokens by their form, and anything in the position of a bearer token
TOKENS = re.compile(r"ya29\.[\w.~+/-]+|(?<=Bearer )\S+")
SECRET_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)(_\w+)?$", re.IGNORECASE)


_HELD = set[str]()


def hold_secret(secret: str) -> None:
    """Remove a secret of usual length from all later texts, without passing it again."""
    if len(secret) >= USUAL_CHARACTERS:
        _HELD.add(secret)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without variables whose names indicate secrets."""
    return {name: value for name, value in environment.items() if not SECRET_NAMES.search(name)}


def redacted(words: str, secrets: Iterable[str | None] = (), most: int | None = None) -> str:
    """Return a text without the given secrets and those of the environment.

    Args:
        words: Complete text: a secret that is cut in half would not be recognized.
        secrets: Secrets to remove; None and empty ones are ignored.
        most: Maximum number of characters of the result.
    """
    known = {*filter(None, secrets), *_HELD, *_environment_secrets(), *_proxy_secrets()}
    forms = {form for secret in known for form in _forms(secret)}
    # The longest first, because one may be a prefix of another.
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
    """Yield values of usual length of variables named like secrets, without paths of key files."""
    for name, value in os.environ.items():
        named = SECRET_NAMES.search(name) and len(value) >= USUAL_CHARACTERS
        # Path.exists raises for a value longer than a file name may be, such as a JSON Web Token.
        if named and not os.path.exists(value):  # noqa: PTH110
            yield value.strip()


def _proxy_secrets() -> Iterator[str]:
    from urllib.request import getproxies  # noqa: PLC0415 - loads HTTP, which few need

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


# Usual replacement for a character that cannot be shown, as wide as most characters
MARK = "\ufffd"
# Characters that reorder a whole line (embeddings, overrides, isolates). Source:
# https://trojansource.codes, and Unicode's UAX #9, 2.1 to 2.3. The marks U+200E and U+200F, which
# move one place, stay.
BIDI = (0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
LINES = (0x2028, 0x2029)
# C0 and C1 (ECMA-48) and DEL, except tabs and line breaks
CONTROLS = frozenset({*range(0x20), *range(0x7F, 0xA0), *BIDI, *LINES} - {ord("\t"), ord("\n")})

_MARKED = dict.fromkeys(CONTROLS, MARK)
_MARKED_LINE = dict.fromkeys((*CONTROLS, ord("\t"), ord("\n")), MARK)


def printable(text: str) -> str:
    """Return a text of the same length without characters that control a terminal."""
    return text.translate(_MARKED)


def one_line(text: str) -> str:
    """Return `printable` text without line breaks."""
    return text.translate(_MARKED_LINE)
