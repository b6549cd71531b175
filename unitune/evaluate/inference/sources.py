"""Which model answers for a contender, and how it is opened.

The job's own base and any model of a backend come through the registry, a server is called by its
URL, and recorded answers are read from their file. Contenders of one origin share one opened model.
A key is read from the environment when its model is opened, and stored nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from unitune.backends import registry
from unitune.backends.credentials import key_for
from unitune.data.example import Example
from unitune.evaluate.inference.recorded import RecordedModel, recorded_fingerprint
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server, Tuned
from unitune.job.job import Evaluate
from unitune.models import ChatModel, TunedModel
from unitune.scorers.embedding import Embedding


class Hosted(NamedTuple):
    """A model of a backend."""

    backend: str
    model: str | TunedModel


class KeySent(NamedTuple):
    """A key that a job names: its environment variable, the URL it is sent to, and what for."""

    variable: str | None
    url: str
    who: str


@dataclass(frozen=True, slots=True)
class Models:
    """The models of a comparison: of the job's backend and of others, on servers, in files."""

    backend: str
    base: str
    tuned: TunedModel | None
    folder: Path
    training: str = ""

    def origin(self, spec: ContenderSpec) -> str:
        """Return which model a contender is, as far as the job says: `Record.origin`.

        It takes no key, no vendor's package and no model.

        Raises:
            DataError: Recorded answers cannot be read.
        """
        match spec:
            case Tuned():
                return f"training:{self.training}"
            case Model():
                return f"{spec.backend}:{_offered_name(spec)}"
            case Server():
                return f"{spec.url.rstrip('/')}:{spec.model}"
            case Recorded():
                return recorded_fingerprint(self.folder / spec.answers)
            case _:
                return f"{self.backend}:{self.base}"

    def hosted(self, spec: ContenderSpec) -> Hosted | None:
        """Return a contender's model at its backend; None for servers and recorded answers."""
        match spec:
            case Tuned():
                assert self.tuned is not None, "a tuned contender has a tuned model"
                return Hosted(self.backend, self.tuned)
            case Model():
                return Hosted(spec.backend, _offered_name(spec))
            case Server() | Recorded():
                return None
            case _:
                return Hosted(self.backend, self.base)

    def open(self, spec: ContenderSpec, cases: Sequence[Example]) -> ChatModel:
        """Open a contender's model.

        Raises:
            UserError: The key may not be sent there, or is not set.
            DataError: Recorded answers cannot be read.
            MissingExtra: A backend's packages are not installed.
        """
        if isinstance(spec, Recorded):
            return RecordedModel(self.folder / spec.answers, cases)
        if isinstance(spec, Server):
            from unitune.backends.kit.chat import open_server  # noqa: PLC0415 - loads aiohttp

            key = key_for(spec.api_key_variable, spec.url, f"the contender {spec.model!r}")
            return open_server(spec.url, spec.model, key=key)
        hosted = self.hosted(spec)
        assert hosted is not None, "all others are a backend's"
        return registry.backend(hosted.backend).chat(hosted.model)


def check_sources(evaluate: Evaluate) -> None:
    """Refuse models, and endpoints of scorers, that cannot be called, before any request.

    Raises:
        NotFoundError: There is no such backend.
        MissingExtra: Its packages are not installed.
        UserError: The user has not allowed a key to be sent there, or it is not set.
    """
    for spec in evaluate.contenders:
        if isinstance(spec, Model):
            registry.backend(spec.backend)
    for sent in keys_sent(evaluate):
        key_for(sent.variable, sent.url, sent.who)


def keys_sent(evaluate: Evaluate) -> Iterator[KeySent]:
    """Yield the keys that a job names, and where it would have them sent."""
    for spec in evaluate.contenders:
        if isinstance(spec, Server):
            yield KeySent(spec.api_key_variable, spec.url, f"the contender {spec.name!r}")
    for spec in evaluate.scorers:
        if isinstance(spec, Embedding):
            yield KeySent(spec.api_key_variable, spec.base_url, f"the scorer {spec.name!r}")


def _offered_name(spec: Model) -> str:
    """Return the offer's own name of a model that was given by an alias."""
    known = registry.offer(spec.backend).model(spec.model)
    return spec.model if known is None else known.name
