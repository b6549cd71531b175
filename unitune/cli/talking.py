"""A conversation with the model of a run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rich.text import Text

from unitune.backends import registry
from unitune.cli.output import aside, console
from unitune.data.example import Message
from unitune.data.load import load
from unitune.errors import BackendError, RunFailed
from unitune.evaluate.inference.attempts import request_with_retry
from unitune.evaluate.inference.rate_limiter import AdaptiveLimiter
from unitune.models import ChatModel, Request
from unitune.run.deploying import answering
from unitune.run.run import Run

MAX_TOKENS = 512
"""Long enough for a talk, short enough that an untuned model's rambling ends."""


@dataclass
class Conversation:
    """Turns so far, and the model that answers."""

    model: ChatModel
    messages: list[Message] = field(default_factory=list[Message])
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    """One event loop for all turns, because the model may keep connections."""

    @classmethod
    def open(cls, run: Run, *, base: bool, system: str | None) -> Conversation:
        """Load the tuned model of a run, or its untuned base.

        Raises:
            RunFailed: The run has no model.
        """
        if run.model is None:
            raise RunFailed(
                f"run {run.id} is {run.state} and has no model to talk to. "
                f"`unitune watch {run.id}` follows it."
            )
        asked = run.model.base if base else answering(run)
        name = asked if isinstance(asked, str) else asked.name
        aside().print(f"Loading {name} …", style="dim")
        model = registry.backend(run.backend_name).chat(asked)
        prompt = system if system is not None else _shared_system_prompt(run)
        return cls(model, [Message(role="system", content=prompt)] if prompt else [])

    def say(self, text: str) -> str:
        """Return the model's answer to one more message.

        Raises:
            BackendError: The model gave no answer.
        """
        self.messages.append(Message(role="user", content=text))
        request = Request(messages=tuple(self.messages), max_tokens=MAX_TOKENS)
        reply = self.runner.run(request_with_retry(self.model, request, AdaptiveLimiter())).reply
        if reply.error is not None:
            self.messages.pop()
            raise BackendError(f"the model gave no answer: {reply.error}")
        self.messages.append(Message(role="assistant", content=reply.text))
        return reply.text

    def talk(self) -> None:
        """Ask and answer until an empty line or the end of input."""
        if self.messages:
            aside().print(f"system: {self.messages[0].text}", style="dim")
        while text := self._read():
            console().print(self.say(text))

    def close(self) -> None:
        """Free the model."""
        with self.runner:
            self.runner.run(self.model.aclose())

    @staticmethod
    def _read() -> str:
        try:
            return console().input(Text("> ", "bold")).strip()
        except EOFError:
            return ""


def _shared_system_prompt(run: Run) -> str | None:
    prompts = {
        example.messages[0].text if example.messages[0].role == "system" else None
        for example in load(run.folder / "train.jsonl")
    }
    return prompts.pop() if len(prompts) == 1 else None
