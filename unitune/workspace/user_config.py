"""Read and write the user's configuration, ``config.yaml``.

    keys:                                  # addresses that may get the key of a variable
      https://llm.example.com: [LLM_API_KEY]
    gateways:                              # what else is sent there, by environment variable
      https://llm.example.com: {headers: {x-gateway-key: GATEWAY_KEY}}
    key_commands:                          # programs that print a key
      LLM_API_KEY: [vault, read, -field=key, secret/llm]
    notify:                                # at the end of a run
      command: [notify-send, unitune]      # without a shell; gets the run as JSON
      webhook: https://hooks.example.com/services/T0/B0/X0

It has the decisions that a job file or a project, which may be a stranger's, must not make.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from unitune.documents import Spec
from unitune.errors import UserError
from unitune.files import yaml_file
from unitune.files.filesystem import refuse_strangers, replacing
from unitune.security.addresses import Address, Origin, VariableName

FILE = "config.yaml"


class Notify(Spec):
    """Notification at the end of a run."""

    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Program and its arguments, run without a shell. It gets the run as JSON on standard input and
    in UNITUNE_RUN, UNITUNE_NAME, UNITUNE_STATE, UNITUNE_TEXT, …"""
    webhook: Address | None = None
    """Address that gets the run as JSON, with a field `text` as for Slack. Anyone who knows it can
    write there, so it is never shown."""


# Name of a header or of a query parameter. Source: RFC 9110, 5.6.2, token.
ParameterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class Gateway(Spec):
    """Headers and query parameters that a gateway requires, from environment variables."""

    headers: dict[ParameterName, VariableName] = {}  # noqa: RUF012 - pydantic copies it
    """Environment variable by header."""
    query: dict[ParameterName, VariableName] = {}  # noqa: RUF012 - pydantic copies it
    """Environment variable by query parameter."""


class UserConfig(Spec):
    """The user's decisions for all projects."""

    keys: dict[Origin, tuple[VariableName, ...]] = {}  # noqa: RUF012 - pydantic copies it
    """Environment variables whose keys may be sent to an address (scheme, host and port)."""
    gateways: dict[Origin, Gateway] = {}  # noqa: RUF012 - pydantic copies it
    """Further headers and parameters by address (scheme, host and port)."""
    key_commands: dict[VariableName, Annotated[tuple[str, ...], Field(min_length=1)]] = {}  # noqa: RUF012 - pydantic copies it
    """Program and its arguments, by environment variable, that prints the key. It is run without a
    shell if the variable is not set, and again if the key is refused or 5 minutes old."""
    notify: Notify | None = None
    """Notification at the end of a run that is watched or trains on this machine."""


def folder() -> Path:
    """Return ``unitune`` in XDG_CONFIG_HOME or ``~/.config``; it may not exist.

    Raises:
        UserError: The user has no home folder.

    Source: XDG Base Directory Specification 0.8: relative paths are invalid and to be ignored.
    """
    named = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    if named.is_absolute():
        return named / "unitune"
    try:
        return Path.home() / ".config/unitune"
    except RuntimeError as error:
        raise UserError("you have no home folder here. Set HOME or XDG_CONFIG_HOME.") from error


def read() -> UserConfig:
    """Return the user's configuration, which is empty without a file.

    Raises:
        UserError: The file is not valid, or somebody else may have written it.
    """
    file = folder() / FILE
    if not file.exists():
        return UserConfig()
    refuse_strangers(file, "It decides where your keys are sent. XDG_CONFIG_HOME may name another.")
    return yaml_file.load(file, UserConfig, kind="the user's configuration")


def write(config: UserConfig) -> Path:
    """Write the user's configuration, and return its file, which only the user may read."""
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (folder() / FILE).resolve()  # managers of dotfiles create links here
    with replacing(file, private=True) as draft:
        draft.write("# Written by `unitune keys`; comments are not kept.\n")
        draft.write(yaml_file.dump(config.model_dump(mode="json", exclude_defaults=True)))
    return file
