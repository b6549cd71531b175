"""The command `unitune chat`: a conversation with the model of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from unitune.cli.options import RunId
from unitune.cli.output import aside, console, print_raw

if TYPE_CHECKING:
    from unitune.data.example import Message
    from unitune.run.model_client import ModelClient


def chat(
    run: RunId,
    *,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Send one message, print the answer.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Talk to the untuned model.")] = False,
    system: Annotated[
        str | None,
        typer.Option(help="System prompt; by default the one that all training rows share."),
    ] = None,
) -> None:
    """Talk to the model of a run; an empty line or Ctrl-D ends it.

    [dim]$ unitune chat r2611
    $ unitune chat r2611 -m "where is my parcel??"[/dim]
    """
    from unitune.data.example import Message
    from unitune.run.run import find_run

    tuned = find_run(run)
    with tuned.base if base else tuned.model as model:
        aside().print(f"Loading {model.name} …", style="dim")
        prompt = model.system if system is None else system
        messages = [Message(role="system", content=prompt)] if prompt else []
        if message is not None:
            print_raw(_respond(model, messages, message))
            return
        if prompt:
            aside().print(f"system: {prompt}", style="dim")
        while text := _read_line():
            console().print(_respond(model, messages, text))


def _respond(model: ModelClient, messages: list[Message], text: str) -> str:
    """Return the model's answer to one more message; both become part of the conversation."""
    from unitune.data.example import Message

    turns = (*messages, Message(role="user", content=text))
    answer = model.ask(turns, system="")
    messages[:] = (*turns, Message(role="assistant", content=answer))
    return answer


def _read_line() -> str:
    try:
        return console().input(Text("> ", "bold")).strip()
    except EOFError:
        return ""
