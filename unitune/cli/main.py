"""The command `unitune`: the list of its subcommands and the exit-code contract.

    0 done, gate met            4 vendor or infrastructure failed
    1 gate failed on evidence   5 integrity: leak, mismatch, changed plan
    2 usage, configuration,     6 budget
      data                      70 a bug of ours
    3 inconclusive              130 interrupted, resumable
                                141 nobody read the output (as SIGPIPE)

Each command lives in a module of its own theme; all heavy imports stand inside the commands, so
that ``unitune --help`` stays fast.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperGroup

import unitune
from unitune.cli import (
    convert,
    evaluation,
    hosting,
    importing,
    jobs,
    keys,
    machine,
    planning,
    prices,
    runs,
    total_cost,
    weights,
)
from unitune.cli.streams import watched
from unitune.errors import UnituneError
from unitune.security.printable import printable

if TYPE_CHECKING:
    from typer._click.core import Context  # typer carries its own click


class _Commands(TyperGroup):
    """Repeats what was given wrongly so that a terminal does not obey it."""

    def make_context(self, *arguments: Any, **more: Any) -> Context:
        with _printable_complaints():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Context) -> Any:
        with _printable_complaints():
            return super().invoke(ctx)


@contextmanager
def _printable_complaints() -> Generator[None]:
    try:
        yield
    except Exception as error:
        if isinstance(message := getattr(error, "message", None), str):  # typer's own have one
            error.message = printable(message)  # pyright: ignore[reportAttributeAccessIssue]
        raise


app = typer.Typer(
    cls=_Commands,
    name="unitune",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="First time here? [bold]unitune quickstart[/bold] trains and judges a small model on "
    "this machine.",
)

START = "Start here"
JOB = "A job"
RUN = "Its runs"
HOSTED = "At vendors"
HERE = "This machine"

app.command(rich_help_panel=START)(jobs.quickstart)
app.command(rich_help_panel=START)(jobs.init)
app.command("import", rich_help_panel=START)(importing.import_sources)
app.command(rich_help_panel=JOB)(jobs.check)
app.command(rich_help_panel=JOB)(convert.convert)
app.command(rich_help_panel=JOB)(planning.plan)
app.command(rich_help_panel=JOB)(planning.apply)
app.command(rich_help_panel=JOB)(total_cost.cost)
app.command(rich_help_panel=JOB)(jobs.backends)
app.add_typer(prices.prices, rich_help_panel=JOB)
app.command(rich_help_panel=JOB)(jobs.run)
app.command(rich_help_panel=JOB)(evaluation.compare)
app.command(rich_help_panel=RUN)(runs.runs)
app.command(rich_help_panel=RUN)(runs.show)
app.command(rich_help_panel=RUN)(runs.watch)
app.command(rich_help_panel=RUN)(runs.pause)
app.command(rich_help_panel=RUN)(runs.cancel)
app.command(rich_help_panel=RUN)(runs.resume)
app.command(rich_help_panel=RUN)(evaluation.chat)
app.command(rich_help_panel=RUN)(hosting.delete)
app.command(rich_help_panel=HOSTED)(hosting.deploy)
app.command(rich_help_panel=HOSTED)(hosting.undeploy)
app.command(rich_help_panel=HOSTED)(hosting.deployments)
app.command(rich_help_panel=HOSTED)(weights.checkpoints)
app.command(rich_help_panel=HOSTED)(weights.download)
app.add_typer(machine.models, rich_help_panel=HERE)
app.add_typer(keys.keys, rich_help_panel=HERE)
app.command(rich_help_panel=HERE)(machine.doctor)
app.command(rich_help_panel=HERE)(machine.trust)
app.command(rich_help_panel=HERE)(machine.schema)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        print(f"unitune {unitune.__version__}", flush=True)  # noqa: T201 - without rich: 100 ms
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune a model once, anywhere, and prove that it beats the best prompt."""


OBJECTS_PER_COLLECTION = 10_000
"""Python looks for garbage after every 700 new objects; a comparison makes tens of thousands that
are none, and took 10 % less processor time with this, and no more memory."""

IDLE_PARTS = ("openai._vendor.httpx_aiohttp", "httpx._main")
"""What SDKs load wherever it is installed, though this program does not use it: a client that asks
OpenAI by aiohttp (7 MiB), and the command line of httpx (2 MiB)."""


def main() -> None:
    """Run the command line and exit by the contract above."""
    gc.set_threshold(OBJECTS_PER_COLLECTION, *gc.get_threshold()[1:])
    for part in IDLE_PARTS:
        sys.modules.setdefault(part, cast("ModuleType", None))  # as if it were not installed
    with watched():
        try:
            _run()
        except Exception as error:  # noqa: BLE001 - the last line of defence: a bug of ours
            _confess(error)
            sys.exit(70)


def _run() -> None:
    try:
        app()
    except UnituneError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except (OSError, ExceptionGroup) as error:
        sys.exit(_machine_failed(error))


def _complain(error: UnituneError) -> None:
    from rich.text import Text

    from unitune.cli.output import aside
    from unitune.security.redaction import redacted

    aside().print(Text.assemble(("Error", "bold red"), f" {redacted(str(error))}"))


def _machine_failed(error: Exception) -> int:
    """Say what the machine refused, and return the exit code; anything else is a bug of ours."""
    from unitune.cli.os_errors import explained, first

    refused = first(error)
    if refused is None:
        _confess(error)
        return 70
    told = explained(refused, sys.argv[1:])
    _complain(told)
    return told.exit_code


def _confess(error: Exception) -> None:
    import traceback

    from unitune.security.redaction import redacted

    told = redacted("".join(traceback.format_exception(error)))
    advice = "This is a bug in unitune, not in your job. Please report it with the lines above."
    print(f"{printable(told)}\n{advice}", file=sys.stderr)  # noqa: T201 - by rich it would be folded
