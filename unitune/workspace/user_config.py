"""The user's own configuration: ``config.yaml`` in a folder that no repository brings.

    keys:                                  # which environment variable's key may go where
      https://llm.example.com: [LLM_API_KEY]
    gateways:                              # what else is sent there, by environment variable
      https://llm.example.com: {headers: {x-gateway-key: GATEWAY_KEY}}
    key_commands:                          # programs that print a key
      LLM_API_KEY: [vault, read, -field=key, secret/llm]
    notify:                                # at the end of a run
      command: [notify-send, unitune]      # without a shell; gets the run as JSON
      webhook: https://hooks.example.com/services/T0/B0/X0

What only the user may decide stands here, and never in a job file or the current folder: those may
be a stranger's. `unitune keys allow` writes it; `unitune.backends.credentials` reads it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from unitune.errors import UserError
from unitune.security.addresses import Address, Origin, VariableName
from unitune.security.spec import Spec
from unitune.workspace import yaml_file
from unitune.workspace.filesystem import replacing
from unitune.workspace.git_index import tracked_in

FILE = "config.yaml"
ROOT = 0


class Notify(Spec):
    """How the user is told that a run has ended."""

    command: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """A program and its arguments, run without a shell: the run is JSON on its standard input, and
    UNITUNE_RUN, UNITUNE_NAME, UNITUNE_STATE, UNITUNE_TEXT, … are set."""
    webhook: Address | None = None
    """Where the run is sent as JSON, with a field `text` as Slack has it. Whoever knows such an
    address can write there, so it is shown nowhere."""


# Name of a header or of a query parameter. Source: RFC 9110, 5.6.2, token.
ParameterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]


class Gateway(Spec):
    """Headers and query parameters that a gateway requires with each request.

    Their values are read from environment variables, since they may be secrets.
    """

    headers: dict[ParameterName, VariableName] = {}  # noqa: RUF012 - pydantic copies it
    """Environment variable with the value, by header."""
    query: dict[ParameterName, VariableName] = {}  # noqa: RUF012 - pydantic copies it
    """Environment variable with the value, by query parameter."""


class UserConfig(Spec):
    """What the user has decided for all projects."""

    keys: dict[Origin, tuple[VariableName, ...]] = {}  # noqa: RUF012 - pydantic copies it
    """By address (scheme, host and port): the environment variables whose keys may be sent there.
    """
    gateways: dict[Origin, Gateway] = {}  # noqa: RUF012 - pydantic copies it
    """By address (scheme, host and port): what is sent there beside the key."""
    key_commands: dict[VariableName, Annotated[tuple[str, ...], Field(min_length=1)]] = {}  # noqa: RUF012 - pydantic copies it
    """By environment variable: a program and its arguments, run without a shell, that prints the
    key. It is run where the variable is not set, and again when the key is refused or 5 minutes
    old."""
    notify: Notify | None = None
    """What happens when a run ends that is watched, or that trains on this machine."""


def folder() -> Path:
    """Return the folder of the user's own files, whether it exists or not.

    ``unitune`` in XDG_CONFIG_HOME, or in ``~/.config`` where that is not set. One that is not
    absolute is passed over: it would lie wherever the command is run.

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
    """Return the user's configuration; without a file it is empty.

    Raises:
        UserError: The file is not valid; the message names file, line and what is allowed. Or it
            is not the user's own.
    """
    file = folder() / FILE
    if not file.exists():
        return UserConfig()
    _refuse_strangers(file.resolve())
    return yaml_file.load(file, UserConfig, kind="the user's configuration")


def _refuse_strangers(file: Path) -> None:
    """Refuse what is another user's, or came with a repository that the home folder is part of."""
    if file.stat().st_uid not in (os.geteuid(), ROOT):
        why = "it belongs to another user"
    elif tracked := tracked_in(file.parent):
        why = f"git tracks {tracked!r}, so whoever writes to that repository writes there"
    else:
        return
    raise UserError(
        f"{file} is not used: {why}, and it says where your keys may go and what is run. Let "
        "XDG_CONFIG_HOME name a folder of your own."
    )


def write(config: UserConfig) -> Path:
    """Write the user's configuration, which only the user may read, and return its file."""
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (folder() / FILE).resolve()  # a link here is the user's own, as keepers of dotfiles make
    with replacing(file) as draft:
        os.fchmod(draft.fileno(), 0o600)
        draft.write("# Written by `unitune keys`; comments are not kept.\n")
        draft.write(yaml_file.dump(config.model_dump(mode="json", exclude_defaults=True)))
    return file
