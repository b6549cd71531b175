"""Decide which key may be sent where, and read keys and gateway settings.

A job never decides that, because it may be someone else's. A backend sends its key to its vendor's
own address or to the address that the environment sets. Any other address gets a key only if the
user has allowed this pair of environment variable and origin: in the user's configuration, written
by `unitune keys allow`, or in ``UNITUNE_ALLOW_KEYS``, such as
``LLM_API_KEY@https://llm.example.com``.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

from unitune.errors import JobError, UserError
from unitune.security.addresses import VARIABLE, NotAnAddress, as_origin, checked
from unitune.security.redaction import hold_secret
from unitune.workspace import user_config, user_settings
from unitune.workspace.user_config import Gateway

ALLOW = "UNITUNE_ALLOW_KEYS"
COMMAND_SECONDS = 60.0
# Age at which a command prints its key again; tokens of Azure and Google are valid for an hour
KEY_SECONDS = 300.0
# Value of a header. Source: RFC 9110, 5.5, field-value without obs-text.
VALUE = re.compile(r"[\x20-\x7e\t]*")


@dataclass(frozen=True, slots=True)
class Permission:
    """A pair of address and key that the user has allowed."""

    address: str  # scheme, host and port
    variable: str  # environment variable whose key may be sent there
    source: str  # file or environment variable that allows it


@dataclass(frozen=True, slots=True)
class Parameters:
    """Headers and query parameters of a gateway, with their values."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    query: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


def gateway_for(url: str) -> Parameters:
    """Return the user's headers and parameters for an address, or raise `UserError`."""
    parts, gateways = urlsplit(url), user_config.read().gateways
    if not gateways:
        return Parameters()
    gateway = gateways.get(origin_of(f"{parts.scheme}://{parts.netloc}"), Gateway())

    def value(name: str, variable: str) -> str:
        if (found := key_in(variable)) is None:
            raise UserError(
                f"your configuration sends {name!r} from the environment variable {variable}, "
                f"which is not set. Set it or edit {user_config.folder() / user_config.FILE}."
            )
        return checked_value(found, variable)

    headers = {name: value(name, variable) for name, variable in gateway.headers.items()}
    return Parameters(headers, {name: value(name, held) for name, held in gateway.query.items()})


def checked_value(value: str, variable: str) -> str:
    """Return a value for a header and redact it in messages; raise `UserError` if it is invalid."""
    if not VALUE.fullmatch(value):
        raise UserError(f"the value of {variable} has characters that are not allowed in a header.")
    hold_secret(value)
    return value


# Time and value of the last key printed by a command, by variable
_printed: dict[str, tuple[float, str]] = {}


def key_in(variable: str) -> str | None:
    """Return an environment variable, or the output of the user's command for it."""
    if value := user_settings.variable(variable).strip():
        return value
    if variable in user_settings.current().variables:
        return None  # unset by the client
    printed_at, key = _printed.get(variable, (0.0, ""))
    if key and time.monotonic() < printed_at + KEY_SECONDS:
        return key
    if (command := user_config.read().key_commands.get(variable)) is None:
        return None
    _printed[variable] = time.monotonic(), _print_key(variable, command)
    return _printed[variable][1]


def forget_refused(headers: Mapping[str, str]) -> None:
    """Make a command print its key again if refused headers carry its last one."""
    for variable, (_, key) in tuple(_printed.items()):
        if any(value.endswith(key) for value in headers.values()):
            _printed.pop(variable, None)


def _print_key(variable: str, command: tuple[str, ...]) -> str:
    what = f"the command for {variable} in your configuration, {command[0]!r},"
    try:
        done = subprocess.run(  # noqa: S603 - command from the user's own configuration
            command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{what} could not be run: {type(error).__name__}.") from error
    key = done.stdout.strip()
    if done.returncode or not key:
        problem = f"exited with {done.returncode}" if done.returncode else "printed nothing"
        raise UserError(f"{what} {problem}. Run it yourself to see why; it must print the key.")
    return checked_value(key, variable)


def allowed_variables(url: str) -> tuple[str, ...]:
    """Return the variables whose keys may be sent to an address, environment first."""
    origin = origin_of(url)
    named = [variable for variable, place in _of_environment() if place == origin]
    return tuple(dict.fromkeys([*named, *user_config.read().keys.get(origin, ())]))


def check_allowed(variable: str | None, url: str, who: str) -> None:
    """Raise `UserError` unless the user has allowed this key, if any, for this address."""
    if variable is not None and variable not in allowed_variables(url):
        raise UserError(not_allowed(variable, url, who))


def not_allowed(variable: str | None, url: str, who: str) -> str:
    """Return why a key is not sent and how to allow it."""
    origin, named = origin_of(url), variable or "VARIABLE"
    key = f"the key in {variable}" if variable else "a key"
    which = "" if variable else ", where VARIABLE is the environment variable that holds the key"
    return (
        f"{who} would send {key} to {origin}, which you have not allowed. Jobs cannot decide where "
        f"keys go, because someone else may have written them. If you trust this address, run "
        f"`unitune keys allow {origin} {named}`, or in CI set {ALLOW}={named}@{origin}{which}."
    )


def key_for(variable: str | None, url: str, who: str) -> Callable[[], str] | None:
    """Return a reader of the key for an address in a job, or raise `UserError`."""
    if variable is None:
        return None
    check_allowed(variable, url, who)
    key = partial(_key_for, variable, url, who)
    key()
    return key


def _key_for(variable: str, url: str, who: str) -> str:
    if not (key := key_in(variable)):
        raise UserError(
            f"{who} needs the key for {origin_of(url)}, but the environment variable {variable} is "
            "not set. Set it, or write `api_key_variable: null` if the server needs no key."
        )
    return key


def allow(url: str, variable: str) -> str:
    """Allow a key for an address, and return its origin; raise `UserError` for an invalid name."""
    if not re.fullmatch(VARIABLE, variable):
        raise UserError(
            "the second argument must be the name of an environment variable, such as "
            "LLM_API_KEY, not the key itself."
        )
    origin, keys = origin_of(url), user_config.read().keys
    variables = dict.fromkeys([*keys.get(origin, ()), variable])
    _write_keys({**keys, origin: tuple(variables)})
    return origin


def disallow(url: str, variable: str | None = None) -> int:
    """Remove permissions for an address, of one key or all, and return their number."""
    origin, keys = origin_of(url), user_config.read().keys
    had = keys.get(origin, ())
    left = tuple(name for name in had if variable not in (None, name))
    if left != had:
        others = {place: names for place, names in keys.items() if place != origin}
        _write_keys({**others, origin: left} if left else others)
    return len(had) - len(left)


def _write_keys(keys: dict[str, tuple[str, ...]]) -> None:
    user_config.write(user_config.read().model_copy(update={"keys": keys}))


def permissions() -> list[Permission]:
    """Return all permissions."""
    file = str(user_config.folder() / user_config.FILE)
    kept = [
        Permission(origin, variable, file)
        for origin, variables in user_config.read().keys.items()
        for variable in variables
    ]
    return [*kept, *(Permission(origin, variable, ALLOW) for variable, origin in _of_environment())]


def origin_of(url: str) -> str:
    """Return the scheme, host and port of an address; raise `JobError` if it is invalid."""
    try:
        return as_origin(url)
    except NotAnAddress as error:
        raise JobError(f"{error}.") from None


def environment_address(variable: str) -> str | None:
    """Return the address in an environment variable, if set; raise `UserError` if it is invalid."""
    given = user_settings.variable(variable).strip()
    try:
        return checked(given) if given else None
    except NotAnAddress as error:
        raise UserError(f"the environment variable {variable}: {error}.") from None


def _of_environment() -> Iterator[tuple[str, str]]:
    entries = [entry for entry in re.split(r"[,\s]+", os.environ.get(ALLOW, "")) if entry]
    for number, entry in enumerate(entries, 1):
        variable, _, address = entry.partition("@")
        why, origin = "", ""
        if not re.fullmatch(VARIABLE, variable):
            why = "it does not begin with the name of a variable"
        try:
            origin = as_origin(address)
        except NotAnAddress as error:
            why = why or str(error)
        if why:
            raise UserError(
                f"entry {number} of {ALLOW}: {why}. Write VARIABLE@ADDRESS, such as "
                "LLM_API_KEY@https://llm.example.com, separated by commas."
            )
        yield variable, origin
