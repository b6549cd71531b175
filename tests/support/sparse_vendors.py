"""All hosted backends, each with its vendor on loopback, to be polled while fields are left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from vendors import anthropic
from vendors.openai import vendor as wire
from vendors.openai.azure import AzureVendor
from vendors.openai.nebius import NebiusVendor
from vendors.serving import VENDORS, serve_vendor

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.backends.formats import wire_format
from unitune.backends.protocol import Upload
from unitune.data.example import Example, Message
from unitune.models import Request
from unitune.testing.contract import BackendContract
from unitune.testing.contract_hosted import ROUNDS, Tally, poll_without_fields
from unitune.testing.loopback import serve
from unitune.testing.omissions import Omissions
from unitune.testing.vendor_setup import ServerBehavior
from unitune.workspace.user_settings import current

CLAUDE = "claude-haiku-4-5"
GPT = "gpt-4.1-mini-2025-04-14"
LLAMA = "meta-llama/Llama-3.3-70B-Instruct"


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
def _standing(
    name: str, model: str, vendor: Callable[[ServerBehavior], Any], variables: Mapping[str, str]
) -> Generator[Stage]:
    behavior = ServerBehavior()
    with serve(vendor(behavior)) as server:
        values = {key: value.format(url=server.url) for key, value in variables.items()}
        current().backends.clear()
        with patch.dict("os.environ", values):
            yield Stage(name, model, behavior)
        current().backends.clear()


@contextmanager
def _played(name: str) -> Generator[Stage]:
    with serve_vendor(name) as served:
        yield Stage(name, served.setup.model, cast("Any", served.server.vendor).behavior)


STAGES: Mapping[str, Callable[[], AbstractContextManager[Stage]]] = {
    **{name: partial(_played, name) for name in VENDORS},
    "azure": partial(
        _standing,
        "azure",
        GPT,
        AzureVendor,
        {"AZURE_OPENAI_ENDPOINT": "{url}", "AZURE_OPENAI_API_KEY": wire.KEY},
    ),
    "nebius": partial(
        _standing,
        "nebius",
        LLAMA,
        partial(NebiusVendor, bases=(LLAMA,)),
        {"NEBIUS_BASE_URL": "{url}/v1", "NEBIUS_API_KEY": wire.KEY},
    ),
}
"""Those that tune."""
BATCHED: Mapping[str, Callable[[], AbstractContextManager[Stage]]] = {
    "openai": STAGES["openai"],
    "vertex": STAGES["vertex"],
    "anthropic": partial(
        _standing,
        "anthropic",
        CLAUDE,
        anthropic.AnthropicVendor,
        {"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_API_KEY": anthropic.KEY},
    ),
}
"""Those that answer in batches."""
