"""The command `unitune keys`: which keys may be sent to addresses that jobs name."""

from __future__ import annotations

from typing import Annotated

import typer

from unitune.cli.options import Json
from unitune.cli.output import console, new_table, print_json
from unitune.errors import UserError

keys = typer.Typer(name="keys", no_args_is_help=False, invoke_without_command=True)

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="Such as https://llm.example.com.")]


@keys.callback()
def list_keys(context: typer.Context, *, json: Json = False) -> None:
    """List, allow and take back which keys may be sent to addresses that jobs name.

    A job may be somebody else's, so it does not decide where a key goes: you
    do, here, once for each address and each environment variable that holds
    a key. Vendors' own addresses, and those that your environment names,
    need no permission.

    [dim]$ unitune keys
    $ unitune keys allow https://llm.example.com LLM_API_KEY
    $ unitune keys remove https://llm.example.com[/dim]
    """
    if context.invoked_subcommand is not None:
        return
    from unitune.backends.credentials import permissions

    allowed = list(permissions())
    if json:
        print_json({"schema_version": 1, "keys": allowed})
    elif allowed:
        headings = ("address", "key in", "allowed by")
        table = new_table(*headings, fold=headings)
        for permission in allowed:
            table.add_row(permission.address, permission.variable, permission.source)
        console().print(table)
    else:
        console().print("No key may be sent to an address that a job names.")


@keys.command()
def allow(
    address: Address,
    variable: Annotated[
        str, typer.Argument(metavar="VARIABLE", help="The environment variable with the key.")
    ],
) -> None:
    """Let jobs send a key to an address: to its scheme, host and port.

    [dim]$ unitune keys allow https://llm.example.com LLM_API_KEY[/dim]
    """
    from unitune.backends import credentials

    origin = credentials.allow(address, variable)
    console().print(f"Jobs may send the key in {variable} to {origin}.")


@keys.command()
def remove(
    address: Address,
    variable: Annotated[
        str | None,
        typer.Argument(metavar="[VARIABLE]", help="Which key; all by default.", show_default=False),
    ] = None,
) -> None:
    """Take back that jobs may send a key to an address.

    [dim]$ unitune keys remove https://llm.example.com LLM_API_KEY[/dim]
    """
    from unitune.backends import credentials

    origin = credentials.origin_of(address)
    if not credentials.disallow(origin, variable):
        raise UserError(
            f"your configuration allows no such key for {origin}. `unitune keys` lists what is "
            "allowed, and where that is written."
        )
    console().print(f"Jobs may no longer send {variable or 'any key'} to {origin}.")
