"""All hosted backends, each with its vendor on loopback, to be polled while fields are left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from vendors.serving import ANTHROPIC, VENDORS

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.backends.formats import wire_format
from unitune.backends.protocol import Upload
from unitune.data.example import Example, Message
from unitune.models import Request
from unitune.testing.contract import BackendContract
from unitune.testing.contract_hosted import ROUNDS, Tally, poll_without_fields
from unitune.testing.omissions import Omissions
from unitune.testing.vendor_setup import ServerBehavior, VendorSetup, serve_vendor


def poll_batches_without_fields(
    backend: Batches, model: str, behavior: ServerBehavior, omits: Omissions, polls: int
) -> Tally:
    """Follow batches at a vendor that omits fields, until at least `polls` calls were made."""
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


@dataclass(frozen=True)
class Stage:
    """A backend whose vendor is on loopback."""

    name: str
    model: str
    behavior: ServerBehavior

    def polled(self, folder: Path, omits: Omissions, polls: int) -> Tally:
        """Poll jobs."""
        kind = type("Job", (_Job,), {"name": self.name, "model": self.model})
        launch = partial(kind.launch, folder)
        return poll_without_fields(registry.backend(self.name), launch, self.behavior, omits, polls)

    def batches_polled(self, omits: Omissions, polls: int) -> Tally:
        """Poll batches."""
        backend = registry.backend(self.name)
        assert isinstance(backend, Batches)
        return poll_batches_without_fields(backend, self.model, self.behavior, omits, polls)


class _Job(BackendContract):
    __test__ = False

    @classmethod
    def upload(cls, path: Path, rows: Sequence[str]) -> Upload:
        """Hand rows over as the vendor takes them, more than the fewest that it takes."""
        name = registry.offer(cls.name).terms(cls.model).formats.get("sft")
        form = wire_format(name or "openai-chat")
        wire = [json.dumps(form.encode(Example.model_validate_json(row))) + "\n" for row in rows]
        return super().upload(path, wire * 5)


@contextmanager
def _played(name: str, setup: VendorSetup) -> Generator[Stage]:
    with serve_vendor(setup) as served:
        yield Stage(name, setup.model, served.behavior)


# Those that tune
STAGES: Mapping[str, Callable[[], AbstractContextManager[Stage]]] = {
    name: partial(_played, name, setup) for name, setup in VENDORS.items()
}
BATCHED: Mapping[str, Callable[[], AbstractContextManager[Stage]]] = {
    "openai": STAGES["openai"],
    "vertex": STAGES["vertex"],
    "anthropic": partial(_played, "anthropic", ANTHROPIC),
}
