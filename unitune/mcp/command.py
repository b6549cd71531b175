"""Implement `unitune mcp`."""

from __future__ import annotations

from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from unitune.cli.options import BudgetUsd
from unitune.errors import MissingExtra, UserError


def mcp(
    *,
    allow_launch: Annotated[
        bool,
        typer.Option("--allow-launch", help="Also serve run, compare and cancel (needs --budget)."),
    ] = False,
    budget: BudgetUsd = None,
) -> None:
    """Serve this folder's jobs and runs to coding agents over MCP.

    The agent starts this command and uses its standard input and output. Needs the extra `mcp`.
    The tools read only: check, plan, runs, show, comparisons, decide, cost, schema. With
    --allow-launch, the agent can also launch, compare and cancel. Each launch needs the hash of
    its current plan, and all of them together cost at most --budget.

    [dim]$ unitune mcp
    $ unitune mcp --allow-launch --budget 20[/dim]
    """
    if allow_launch != (budget is not None):
        raise UserError("--allow-launch and --budget need each other; pass both or neither.")
    if find_spec("mcp") is None:
        from unitune.workspace.install import install_command

        raise MissingExtra(f"unitune mcp needs its extra. Install it: {install_command('mcp')}")
    from unitune.mcp.server import serve

    serve(Path.cwd(), Decimal(budget) if budget is not None else None)
