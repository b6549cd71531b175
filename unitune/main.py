"""Assemble the command `unitune` from its subcommands and define its exit codes.

    0 done, gate met            4 vendor or infrastructure failed
    1 gate failed on evidence   5 integrity: leak, mismatch, changed plan
    2 usage, configuration,     6 budget
      data                      70 a bug in unitune
    3 inconclusive              130 interrupted, resumable
                                141 standard output was closed (as SIGPIPE)

Commands import heavy modules inside their functions, so that ``unitune --help`` stays fast.
"""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from inspect import cleandoc
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from unitune._version import __version__
from unitune.cli.backends import backends
from unitune.cli.chat import chat
from unitune.cli.compare import compare
from unitune.cli.comparisons import comparisons, review
from unitune.cli.convert import convert
from unitune.cli.deployments import deploy, deployments, undeploy
from unitune.cli.export import card, export, push, track
from unitune.cli.imports import import_sources
from unitune.cli.init import init
from unitune.cli.job_files import check, schema
from unitune.cli.jobs import quickstart, run
from unitune.cli.machine import base_models, checkpoints, doctor, download, keys, notify, pull
from unitune.cli.model_registry import models, promote, register, rollback, unalias, verify
from unitune.cli.options import HELP, command_group
from unitune.cli.output import aside
from unitune.cli.plan import cost, plan
from unitune.cli.prices import prices
from unitune.cli.runs import audit, cancel, delete, pause, resume, runs, show, watch
from unitune.cli.serve import serve, ui
from unitune.cli.streams import explained, first, guarded_streams
from unitune.curve.command import curve
from unitune.decision.command import decide
from unitune.distillation.command import distill
from unitune.errors import Interrupted
from unitune.mcp.command import mcp
from unitune.observability.logs import print_logs
from unitune.observability.traces import export_traces
from unitune.security.redaction import printable


class _Commands(TyperGroup):
    """Commands whose usage errors cannot send control characters to the terminal."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        _hide_types_of_flags(self)
        with _printable_messages():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        with _printable_messages():
            return super().invoke(ctx)


def _hide_types_of_flags(command: TyperCommand | TyperGroup) -> None:
    """Leave ``<bool>`` out of help texts, because a flag takes no value."""
    context = typer.Context(command, help_option_names=[*HELP])
    for option in filter(None, (*command.params, command.get_help_option(context))):
        if getattr(option, "is_flag", False):
            option.metavar = ""
    for each in getattr(command, "commands", {}).values():
        _hide_types_of_flags(each)


@contextmanager
def _printable_messages() -> Generator[None]:
    try:
        yield
    except typer.TyperException as error:
        if message := getattr(error, "message", ""):
            error.message = printable(message)  # pyright: ignore[reportAttributeAccessIssue]
        raise


app = typer.Typer(
    cls=_Commands,
    name="unitune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": [*HELP]},
    epilog="First time here? [bold]unitune quickstart[/bold] trains and evaluates a small model "
    "on this machine.",
)


def _add(panel: str, *commands: Callable[..., None]) -> None:
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def _add_group(panel: str, *groups: typer.Typer) -> None:
    for group in groups:
        app.add_typer(group, rich_help_panel=panel)


_add("Start here", quickstart, init)
app.command("import", rich_help_panel="Start here")(import_sources)
_add("Jobs", check, plan, run, compare, comparisons, review, cost, decide)
_add_group(
    "Jobs",
    command_group(
        "data",
        "Convert rows, get rows from a better model, or estimate how many you need.",
        convert=convert,
        distill=distill,
        curve=curve,
    ),
)
_add_group(
    "Runs and models",
    command_group(
        "runs",
        "List, show, watch, pause, resume, cancel or delete runs, and audit them.",
        list=runs,
        show=show,
        watch=watch,
        pause=pause,
        resume=resume,
        cancel=cancel,
        delete=delete,
        track=track,
        audit=audit,
        notify=notify,
    ),
    command_group(
        "models",
        "List, register, promote, verify, export, download or publish models.",
        list=models,
        register=register,
        promote=promote,
        rollback=rollback,
        unalias=unalias,
        verify=verify,
        card=card,
        push=push,
        export=export,
        checkpoints=checkpoints,
        download=download,
        base=base_models,
        pull=pull,
    ),
    command_group(
        "deployments",
        "List deployments at vendors, bring one up or take it down.",
        list=deployments,
        up=deploy,
        down=undeploy,
    ),
)
_add("Runs and models", chat, serve, ui, mcp)
_add("Vendors and this machine", backends)
_add_group("Vendors and this machine", prices, keys)
_add("Vendors and this machine", doctor, schema)


_groups = [group.typer_instance for group in app.registered_groups if group.typer_instance]
for _command in (
    *app.registered_commands,
    *(command for group in _groups for command in group.registered_commands),
    *(group.registered_callback for group in _groups if group.registered_callback),
):
    _command.help = "\n\n".join(
        part if part.startswith("[dim]") else " ".join(part.split())  # rich keeps line ends
        for part in cleandoc(_command.callback.__doc__ or "").split("\n\n")
        if _command.callback
    )


def _print_version(requested: bool) -> None:  # noqa: FBT001 - typer calls it
    if requested:
        print(f"unitune {__version__}", flush=True)  # noqa: T201 - no need of a console
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Fine-tune a model once, anywhere, and prove that it beats the best prompt."""


# By default Python collects garbage after every 700 new objects. A comparison keeps tens of
# thousands; this threshold took 10 % less processor time and no more memory.
GC_THRESHOLD = 10_000


@cache
def command_line() -> Callable[..., Any]:
    """Build all commands with their options (takes 20 ms)."""
    return typer.main.get_command(app)


def main() -> None:
    """Run the command line and exit by the contract above."""
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
    with guarded_streams():
        try:
            print_logs()
            export_traces()
            # Shell completion depends on the name.
            command_line()(sys.argv[1:] or ["--help"], prog_name="unitune")
        except Exception as error:  # noqa: BLE001 - the last line of defence: a bug in unitune
            sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    from unitune.security.redaction import redacted  # imports urllib.request

    cause = first(error)
    if cause is None:
        text = redacted("".join(traceback.format_exception(error)))
        advice = "This is a bug in unitune, not in your job. Please report it with the lines above."
        print(f"{printable(text)}\n{advice}", file=sys.stderr)  # noqa: T201 - rich would fold it
        return 70
    known = explained(cause, sys.argv[1:])
    if "--json" in sys.argv:
        shown = {"code": known.code, "exit_code": known.exit_code, "message": redacted(str(known))}
        print(json.dumps({"schema_version": 1, "error": shown}), file=sys.stderr)  # noqa: T201
        return known.exit_code
    heading = ("Stopped:", "bold") if isinstance(known, Interrupted) else ("Error:", "bold red")
    aside().print(Text.assemble(heading, f" {redacted(str(known))}"))
    return known.exit_code
