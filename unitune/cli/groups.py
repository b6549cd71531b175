"""Groups of commands, such as ``unitune runs``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

HELP = ("-h", "--help")


class CommandGroup(TyperGroup):
    """Command group that runs its first command when none is named: ``runs`` is ``runs list``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the first command before arguments that name none."""
        is_named = bool(args) and (args[0] in HELP or args[0] in self.commands)
        is_named |= ctx.resilient_parsing  # the shell is completing the name
        return super().parse_args(ctx, args if is_named else [next(iter(self.commands)), *args])


def command_group(name: str, about: str, **commands: Callable[..., None]) -> typer.Typer:
    """Return a group of commands under their names; the first is the default."""
    group = typer.Typer(name=name, cls=CommandGroup, help=about)
    for command, function in commands.items():
        group.command(command)(function)
    return group
