"""Poll a backend whose vendor leaves fields out, and count what it does not survive.

`poll_without_fields` follows jobs to their ends over and over, while the vendor on loopback leaves
out what it may (`unitune.testing.omissions`), and calls whatever a backend reads with: `poll`,
`find`, its list, its checkpoints, an import, an answer of the model. A `BackendError` in clear
words is an answer; any other exception is a crash, and so is an event that no ledger can hold.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from unitune.backends.capabilities import Batches, Checkpoints, Imports, ListsJobs
from unitune.backends.protocol import Backend, Launch, State, Status
from unitune.data.example import Message
from unitune.errors import UnituneError
from unitune.models import Request, TunedModel
from unitune.testing.behavior import ServerBehavior
from unitune.testing.contract_base import reply_once
from unitune.testing.omissions import Omissions

T = TypeVar("T")
UNREADABLE = (LookupError, TypeError, AttributeError)
"""What reading an answer raises in which a field is gone or null."""
MOST_LOOKS = 12
"""At one job; one whose state is left out time and again is left there."""
ROUNDS = 4
"""Times that each job is followed from its beginning: many jobs would make lists long."""


@dataclass(slots=True)
class Tally:
    """What came of the polls.

    Args:
        polls: Calls that read, of every kind.
        refusals: How often each error of ours was raised, without ids.
        crashes: How often anything else was raised, by exception and line.
    """

    polls: int = 0
    refusals: Counter[str] = field(default_factory=Counter[str])
    crashes: Counter[str] = field(default_factory=Counter[str])

    def call(self, act: Callable[[], T]) -> T | None:
        """Call once and count what comes of it; None when nothing does."""
        self.polls += 1
        try:
            return act()
        except UnituneError as error:
            if isinstance(error.__cause__, UNREADABLE):
                self._crashed(error.__cause__)
            else:
                self.refusals[f"{type(error).__name__}: {error}"] += 1
        except Exception as error:  # noqa: BLE001 - that there is none is what is looked for
            self._crashed(error)
        return None

    def _crashed(self, error: BaseException) -> None:
        """Count an error, one that a net has caught for the user's sake included."""
        ours = [at for at in traceback.extract_tb(error.__traceback__) if "unitune" in at.filename]
        at = ours[-1]
        where = f"{Path(at.filename).name}, {at.name}: {at.line}"
        self.crashes[f"{type(error).__name__} in {where}"] += 1


class LeavesOut(Protocol):
    """A `ServerBehavior`, which knows the vendor's description, or a `Server`, which has none."""

    omits: Omissions | None


def poll_without_fields(
    backend: Backend,
    launch: Callable[[], Launch],
    behavior: LeavesOut,
    omits: Omissions,
    polls: int,
) -> Tally:
    """Follow jobs at a vendor that leaves fields out, until there were so many polls.

    Args:
        backend: With its environment leading to the vendor on loopback.
        launch: Returns what a submit needs, each time under another launch key.
        behavior: The vendor's, or its server; nothing is left out while a job is created.
        omits: What is left out afterwards.
        polls: At least so many calls.
    """
    tally = Tally()
    while tally.polls < polls:
        behavior.omits = None
        new = launch()
        job_id = backend.submit(new)
        behavior.omits = omits
        for _ in range(ROUNDS):
            status = _follow(backend, job_id, tally)
            for act in _looks(backend, new, job_id, status):
                tally.call(act)
    behavior.omits = None
    return tally


def _follow(backend: Backend, job_id: str, tally: Tally) -> Status | None:
    cursor, status = "", None
    for _ in range(MOST_LOOKS):
        seen = tally.call(partial(_look, backend, job_id, cursor))
        if seen is not None:
            status, cursor = seen, seen.cursor
        if status is not None and status.state.ended:
            break
    return status


def _look(backend: Backend, job_id: str, cursor: str) -> Status:
    return _sound(backend.poll(job_id, cursor))


def _looks(
    backend: Backend, launch: Launch, job_id: str, status: Status | None
) -> Iterator[Callable[[], object]]:
    """Yield the other calls that read."""
    yield partial(backend.find, launch.key, launch.folder)
    if isinstance(backend, ListsJobs):
        yield partial(backend.list_jobs, "")
    if isinstance(backend, Checkpoints):
        yield partial(backend.checkpoints, job_id, launch.job.base_model)
    if isinstance(backend, Imports):
        yield partial(backend.import_job, job_id)
    for model in (launch.job.base_model, status and status.model):
        if model is not None:
            yield partial(_ask, backend, model)


def _ask(backend: Backend, model: str | TunedModel) -> None:
    question = Message(role="user", content="What is the colour of snow?")
    reply_once(backend.chat(model), Request(messages=(question,), max_tokens=8))


def poll_batches_without_fields(
    backend: Batches, model: str, behavior: ServerBehavior, omits: Omissions, polls: int
) -> Tally:
    """Follow batches at a vendor that leaves fields out, until there were so many polls.

    Args:
        backend: With its environment leading to the vendor on loopback.
        model: To ask.
        behavior: As for `poll_without_fields`.
        omits: Likewise.
        polls: Likewise.
    """
    tally = Tally()
    question = Request(messages=(Message(role="user", content="Why?"),), max_tokens=8)
    for number in count():
        if tally.polls >= polls:
            break
        behavior.omits = None
        key = f"b{number}-1"
        batch = backend.submit_batch(key, model, {f"{key}-0": question, f"{key}-1": question})
        behavior.omits = omits
        for _ in range(ROUNDS):
            for _ in range(behavior.queued_polls + 2):
                tally.call(partial(backend.poll_batch, batch))
            tally.call(partial(backend.find_batch, key, 0.0))
            tally.call(partial(backend.fetch_batch, batch))
        tally.call(partial(backend.cancel_batch, batch))
    behavior.omits = None
    return tally


def _sound(status: Status) -> Status:
    """Return a status that a ledger can hold, and whose model answers where there is one.

    Raises:
        TypeError: A part of it has not the type that it promises.
        ValueError: It succeeded, and left no model.
    """
    _check("a status's cursor", status.cursor, str)
    _check("a status's raw", status.raw, str)
    for event in status.events:
        _check("an event's key", event.key or None, str)
        _check("an event's time", event.time, float, int)
        json.dumps(event.data, allow_nan=False)
        if event.kind in ("step", "validation"):
            _check(f"the step of a {event.kind} event", event.data.get("step"), int)
    if status.state is State.SUCCEEDED and status.model is None:
        raise ValueError("a status is succeeded without a model")
    return status


def _check(what: str, value: object, *kinds: type) -> None:
    if not isinstance(value, kinds):
        raise TypeError(f"{what} is {value!r}")
