"""Check addresses from jobs and the environment, and show them without secrets.

An address may have a secret, as user and password before the host or in the query. It would then
appear in errors, rows and reports. The message that refuses such an address does not repeat it, and
addresses from other sources are shown without the secret. Addresses that are not plain ASCII are
refused too, because two parsers might disagree on the host.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

# Type of pydantic's address errors, whose message stands alone: the value may be a secret
UNREPEATED = "address"
DEFAULT_PORTS = {"http": "80", "https": "443"}
REDIRECT, REFUSAL = 300, 400
# Scheme, host, port and path. A host has no `%`, backslash or non-ASCII letter.
ADDRESS = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!-~]*)?",
    re.IGNORECASE | re.ASCII,
)


class NotAnAddress(ValueError):
    """Text that is not a valid address; the message repeats no secret."""


def checked(text: str) -> str:
    """Return an address without trailing slashes.

    Raises:
        NotAnAddress: It is not valid, or has a user, password, query or fragment.
    """
    check_no_secret(text)
    if not ADDRESS.fullmatch(text) or "\\" in text:
        raise NotAnAddress(f"{text!r} is not an address. Write it like https://example.com/v1")
    return text.rstrip("/")


def check_no_secret(text: str) -> None:
    """Refuse parts other than scheme, host and path, which may be a secret.

    Raises:
        NotAnAddress: It has a user, password, query or fragment.
    """
    for mark, what in {"@": "a user name or password", "?": "a query", "#": "a fragment"}.items():
        if mark in text:
            raise NotAnAddress(
                f"an address with {what} is not taken, nor repeated here, as it may hold a secret. "
                "Write scheme, host and path alone; a key belongs into an environment variable, a "
                "gateway's query into `gateways` of your config.yaml"
            )


def as_origin(text: str) -> str:
    """Return scheme, host and port of an address: ``https://example.com``, ``http://[::1]:8000``.

    Letters become lower case, and a scheme's default port is omitted.

    Raises:
        NotAnAddress: It is not valid, or has a user, password, query or fragment.
    """
    match = ADDRESS.fullmatch(checked(text))
    assert match is not None, "it was checked"
    scheme, host = match["scheme"].lower(), match["host"].lower()
    port = str(int(match["port"])) if match["port"] else DEFAULT_PORTS[scheme]
    return f"{scheme}://{host}" + ("" if port == DEFAULT_PORTS[scheme] else f":{port}")


def shown(text: str) -> str:
    """Return an address without user, password, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def is_redirect(status: int) -> bool:
    """Return whether an HTTP status is a redirect."""
    return REDIRECT <= status < REFUSAL


def redirected(location: str | None) -> str:
    """Return the message about a redirect of a request with a key or a prompt.

    It is not followed, because both would reach a server that the user has not named.
    """
    where = f" to {shown(location)}" if location else ""
    return f"it redirects{where}, and redirects are not followed. Use the final address"


VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"


def unrepeated(error: NotAnAddress) -> PydanticCustomError:
    """Return a pydantic error that omits the value."""
    return PydanticCustomError(UNREPEATED, "{words}", {"words": str(error)})


def _address(text: str) -> str:
    try:
        checked(text)
    except NotAnAddress as error:
        raise unrepeated(error) from None
    return text


def _origin(text: str) -> str:
    origin = as_origin(_address(text))
    if origin != text:
        raise ValueError(f"write scheme, host and port alone, as {origin}")
    return text


# Scheme, host and path, such as ``https://example.com/v1``
Address = Annotated[str, AfterValidator(_address)]


def _variable(text: str) -> str:
    if not re.fullmatch(VARIABLE, text):
        raise PydanticCustomError(
            UNREPEATED,
            "write the name of an environment variable, such as LLM_API_KEY, never a key",
        )
    return text


# Name of an environment variable with a key. An invalid name may be the key itself, so errors do
# not repeat it.
VariableName = Annotated[
    str, AfterValidator(_variable), Field(json_schema_extra={"pattern": VARIABLE})
]
# Scheme, host and port, such as ``https://example.com``
Origin = Annotated[str, AfterValidator(_origin)]
