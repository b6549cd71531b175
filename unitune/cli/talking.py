"""A conversation with the model of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.text import Text

from unitune.cli.output import aside, console
from unitune.data.example import Message
from unitune.run.model_client import ModelClient
from unitune.run.run import Run


@dataclass
class Conversation:
    """The turns so far, and the model that answers."""

    model: ModelClient
    messages: list[Message] = field(default_factory=list[Message])

    @classmethod
    def open(cls, run: Run, *, base: bool, system: str | None) -> Conversation:
        """Start a conversation with the tuned model of a run, or with its untuned base.

        Args:
            run: Whose model it is.
            base: Talk to the untuned base.
            system: The system message; None: the one that all training rows share.

        Raises:
            UserError: The run has no model.
        """
        model = run.base if base else run.model
        aside().print(f"Loading {model.name} …", style="dim")
        prompt = model.system if system is None else system
        return cls(model, [Message(role="system", content=prompt)] if prompt else [])

    def say(self, text: str) -> str:
        """Return the model's answer to one more message.

        Raises:
            BackendError: The model gave no answer.
        """
        turns = (*self.messages, Message(role="user", content=text))
        answer = self.model.ask(turns, system="")
        self.messages[:] = (*turns, Message(role="assistant", content=answer))
        return answer

    def talk(self) -> None:
        """Ask and answer until an empty line or the end of input."""
        if self.messages:
            aside().print(f"system: {self.messages[0].text}", style="dim")
        while text := self._read():
            console().print(self.say(text))

    @staticmethod
    def _read() -> str:
        try:
            return console().input(Text("> ", "bold")).strip()
        except EOFError:
            return ""
