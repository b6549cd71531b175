"""`unitune chat` shows answers as they come, of one model or of two."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.command_line import Command
from support.job_files import trained_run

from unitune.cli import chat
from unitune.errors import BackendError
from unitune.models import Reply
from unitune.run import model_client

LONG = "white as the snow on the mountains in the light of the moon " * 3


@pytest.fixture
def run(unitune: Command, tmp_path: Path) -> str:
    return trained_run(unitune, tmp_path)


@dataclass
class Script:
    """An answer in pieces, and what comes after them."""

    pieces: list[str]
    reply: Reply | None = None
    end: BaseException | None = None
    text: str = ""
    done: bool = True
    stopped: bool = False

    def __iter__(self) -> Script:
        return self

    def __next__(self) -> str:
        if self.pieces:
            self.text += (piece := self.pieces.pop(0))
            return piece
        if self.end is not None:
            raise self.end
        raise StopIteration

    def stop(self) -> None:
        self.stopped = True


@dataclass
class Streams:
    """What each model says, in turn; and what it was sent."""

    scripts: list[Script] = field(default_factory=list[Script])
    requests: list[Any] = field(default_factory=list[Any])

    def stream(self, request: Any) -> Script:
        self.requests.append(request)
        return self.scripts.pop(0)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    made = Streams()
    monkeypatch.setattr(model_client.ModelClient, "stream", lambda _, request: made.stream(request))
    return made


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let a person type lines; an exception is what the terminal raises."""

    def typed(*lines: str | BaseException) -> None:
        left = list(lines)

        def read(*_: object, **__: object) -> str:
            line = left.pop(0)
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr(Console, "input", read)

    return typed


def test_settings_are_sent(unitune: Command, run: str, streams: Streams) -> None:
    streams.scripts = [Script(["fine"])]
    settings = ("--temperature", "0.7", "--max-tokens", "40", "--system", "Be short.")
    assert unitune("chat", run, "-m", "How are you?", *settings).out == "fine\n"
    (request,) = streams.requests
    assert (request.temperature, request.max_tokens) == (0.7, 40)
    assert [message.text for message in request.messages] == ["Be short.", "How are you?"]


@pytest.mark.parametrize("value", ["nan", "-0.1", "2.1", "inf"])
def test_a_temperature_out_of_bounds_is_refused(unitune: Command, run: str, value: str) -> None:
    told = unitune("chat", run, "-m", "hi", "--temperature", value)
    assert (told.code, told.out) == (2, "")
    assert "between 0 and 2" in told.err


def test_what_an_answer_is_not_is_said(unitune: Command, run: str, streams: Streams) -> None:
    reply = Reply(finish_reason="length", left_out=("temperature",))
    streams.scripts = [Script(["fi"], reply)]
    told = unitune("chat", run, "-m", "hi", "--max-tokens", "2", "--temperature", "1")
    assert told.out == "fi\n"
    assert "tuned was cut off at 2 tokens" in told.err
    assert "does not support a temperature" in told.err


def test_a_pipe_gets_both_models_as_plain_lines(unitune: Command, run: str) -> None:
    told = unitune("chat", run, "-m", "What is the colour of snow?", "--base")
    assert "\x1b" not in told.out
    tuned, base = told.out.split("base:\n")
    assert tuned.startswith("tuned:\n")
    assert tuned.removeprefix("tuned:\n") == "white\n"
    assert base != "white\n"
    assert unitune("chat", run, "-m", "What is the colour of snow?").out == "white\n"


def test_a_conversation_goes_on_after_a_failure_and_a_stop(
    unitune: Command, run: str, streams: Streams, say: Callable[..., None]
) -> None:
    """Ctrl-C stops an answer, and what came of it stands; Ctrl-C at the prompt ends all."""
    stopped = Script(["half an"], end=KeyboardInterrupt())
    streams.scripts = [stopped, Script([], end=BackendError("it is down")), Script(["again"])]
    say("one", "two", "three", KeyboardInterrupt())
    told = unitune("chat", run, "--system", "")
    assert told.code == 0
    assert stopped.stopped
    assert "stopped" in told.err
    assert "Error: it is down" in told.err
    assert told.out.rstrip().endswith("again")
    turns = [(message.role, message.text) for message in streams.requests[2].messages]
    assert turns[:3] == [("user", "one"), ("assistant", "half an"), ("user", "two")]
    assert turns[-1] == ("user", "three")


def test_one_message_that_is_stopped_or_fails_is_no_success(
    unitune: Command, run: str, streams: Streams
) -> None:
    streams.scripts = [Script(["half"], end=KeyboardInterrupt())]
    assert unitune("chat", run, "-m", "hi").code == 130
    streams.scripts = [Script([], end=BackendError("it is down"))]
    told = unitune("chat", run, "-m", "hi")
    assert told.code == 4
    assert "it is down" in told.err


@pytest.mark.parametrize(("width", "beside"), [(120, True), (80, False)])
def test_two_answers_stand_side_by_side_where_there_is_room(
    width: int, monkeypatch: pytest.MonkeyPatch, *, beside: bool
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, width=width, height=12, force_terminal=True, color_system=None)
    monkeypatch.setattr(chat, "console", lambda: terminal)
    streams: Mapping[str, Any] = {"tuned": Script([LONG]), "base": Script(["I do not know."])}
    chat._Answers(streams).show()
    lines = [line.rstrip() for line in screen.getvalue().splitlines()[-12:]]
    assert all(len(line) <= width for line in lines)
    assert beside == any("tuned" in line and "base" in line for line in lines)
    assert beside == any("white" in line and "I do not know." in line for line in lines)
    assert "I do not know." in screen.getvalue()


def test_a_long_answer_shows_its_end_while_it_grows() -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, width=20, height=5, force_terminal=True, color_system=None)
    terminal.print(chat._Tail("\n".join(f"line {number}" for number in range(30))))
    assert [line.strip() for line in screen.getvalue().strip().splitlines()] == [
        "line 26",
        "line 27",
        "line 28",
        "line 29",
    ]
