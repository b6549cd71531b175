"""Implement `unitune chat`: a conversation with a run's model and, if wanted, its base model.

Answers are streamed. A wide terminal shows two models in two columns; a pipe gets plain text
without escape sequences.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from unitune.cli.options import NEWEST, RunId
from unitune.cli.output import aside, console, print_raw
from unitune.errors import BackendError, Interrupted, UserError

if TYPE_CHECKING:
    from unitune.data.example import Message
    from unitune.run.model_client import AnswerStream, ModelClient

TWO_COLUMNS = 100  # minimum width of a terminal for two columns
FRAME_SECONDS = 0.1
SEEDS = 2**31


class _Speaker(NamedTuple):
    model: ModelClient
    messages: list[Message]


@dataclass(slots=True)
class _Answers:
    streams: Mapping[str, AnswerStream]  # by the names of the models
    # Reasons for missing or incomplete answers
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def show(self) -> None:
        """Print all answers as they arrive; Ctrl-C stops them and raises `KeyboardInterrupt`."""
        together = len(self.streams) > 1 and console().is_terminal
        try:
            self._wait_together() if together else self._print_each()
        except KeyboardInterrupt:
            for stream in self.streams.values():
                stream.stop()
            raise
        finally:
            if together:
                console().print(self._layout())

    def _print_each(self) -> None:
        for title, stream in self.streams.items():
            if len(self.streams) > 1:
                print_raw(f"{title}:")
            try:
                with aside().status(""):
                    first = next(stream, "")
                print_raw(first, end="")
                for text in stream:
                    print_raw(text, end="")
            except BackendError as error:
                self.failures[title] = str(error)
            print_raw("")

    def _wait_together(self) -> None:
        with Live(console=console(), transient=True, auto_refresh=False) as live:
            while not all(stream.done for stream in self.streams.values()):
                live.update(_Tail(self._layout()), refresh=True)
                time.sleep(FRAME_SECONDS)
        for title, stream in self.streams.items():
            try:
                for _ in stream:
                    pass
            except BackendError as error:
                self.failures[title] = str(error)

    def _layout(self) -> RenderableType:
        texts = {title: stream.text or "…" for title, stream in self.streams.items()}
        if console().width < TWO_COLUMNS:
            parts = [Text.assemble((title, "bold"), f"\n{text}\n") for title, text in texts.items()]
            return Group(*parts)
        columns = Table(box=None, expand=True, pad_edge=False, padding=(0, 4, 0, 0))
        for title in texts:
            columns.add_column(title, ratio=1, overflow="fold", header_style="bold")
        columns.add_row(*texts.values())
        return columns


@dataclass(slots=True)
class _Tail:
    """Last lines of a renderable, as many as fit on the terminal."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in console.render_lines(self.content, options)[-console.height + 1 :]:
            yield from line
            yield Segment.line()


def chat(
    run: RunId = NEWEST,
    *,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Send one message and print the answer.")
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Show the untuned model's answers, too.")
    ] = False,
    system: Annotated[
        str | None,
        typer.Option(help="System prompt (default: the one that all training rows share)."),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="Sampling temperature from 0 (most likely token) to 2.")
    ] = 0,
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Maximum tokens per answer (default: 512)."),
    ] = None,
) -> None:
    """Chat with the model of a run; answers are streamed.

    Ctrl-C stops an answer; an empty line or Ctrl-D ends the conversation.

    [dim]$ unitune chat
    $ unitune chat r2611 --base --temperature 0.7
    $ unitune chat r2611 -m "where is my parcel??"[/dim]
    """
    from unitune.data.example import Message
    from unitune.run.model_client import MAX_TOKENS
    from unitune.run.run import find_run

    if not 0 <= temperature <= 2:  # also refuses NaN, which typer's bounds accept
        raise UserError(f"--temperature is {temperature:g}; it must be between 0 and 2.")
    tuned = find_run(run)
    limit = max_tokens or MAX_TOKENS
    settings = {"temperature": temperature, "max_tokens": limit, "seed": secrets.randbelow(SEEDS)}
    with ExitStack() as stack:
        models = {"tuned": tuned.model, **({"base": tuned.base} if base else {})}
        prompt = tuned.model.system if system is None else system
        first = [Message(role="system", content=prompt)] if prompt else []
        speakers = {
            title: _Speaker(stack.enter_context(model), [*first]) for title, model in models.items()
        }
        if message is not None:
            _answer(speakers, message, settings, once=True)
            return
        aside().print(f"{tuned.name}  {tuned.base_model} on {tuned.backend_name}", style="dim")
        aside().print("Ctrl-C stops an answer; an empty line ends.", style="dim")
        if prompt:
            aside().print(f"system: {prompt}", style="dim")
        while text := _read_line():
            _answer(speakers, text, settings)


def _answer(
    speakers: Mapping[str, _Speaker],
    text: str,
    settings: Mapping[str, float],
    *,
    once: bool = False,
) -> None:
    """Answer one message; only with `once` does a failure end the command."""
    from unitune.data.example import Message
    from unitune.models import Request

    with aside().status(""):  # the first message loads the model or looks up its deployment
        streams: dict[str, AnswerStream] = {}
        for title, (model, messages) in speakers.items():
            messages.append(Message(role="user", content=text))
            request = Request.model_validate({"messages": messages, **settings})
            streams[title] = model.stream(request)
    answers = _Answers(streams)
    try:
        answers.show()
    except KeyboardInterrupt:
        if once:
            raise Interrupted("the answer is incomplete.") from None
        aside().print("\nstopped", style="dim")
    for failure in answers.failures.values():
        if once:
            raise BackendError(failure)
        aside().print(Text.assemble(("Error:", "bold red"), f" {failure}"))
    for title, stream in streams.items():
        speakers[title].messages.append(Message(role="assistant", content=stream.text))
        reply = stream.reply
        if reply and reply.finish_reason == "length":
            note = f"{title} was cut off at {settings['max_tokens']} tokens; raise --max-tokens"
            aside().print(note, style="dim")
        if reply and settings["temperature"] and "temperature" in reply.left_out:
            aside().print(f"{title} does not support a temperature; none was sent", style="dim")


def _read_line() -> str:
    with suppress(EOFError, KeyboardInterrupt):
        return console().input(Text("> ", "bold")).strip()
    console().print()
    return ""
