"""Store the fake vendor's files and batches, and inject its faults.

A batch is a folder below ``batches`` in the vendor's folder (``UNITUNE_FAKE_DIR``, or else ``fake``
in unitune's home), so it outlives processes. Its requests are answered at once and shown as
scripted in ``batches.json`` (`BatchScript`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, Protocol

from pydantic import BaseModel

from unitune.backends.capabilities import BatchStatus
from unitune.documents import Frozen
from unitune.errors import BackendError, Unreachable
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.testing.script import BatchScript, Fault
from unitune.workspace.home import home


def vendor_folder(otherwise: Path) -> Path:
    """Return the vendor's folder: ``UNITUNE_FAKE_DIR``, or ``fake`` in `otherwise`."""
    chosen = os.environ.get("UNITUNE_FAKE_DIR")
    return Path(chosen).absolute() if chosen else otherwise.absolute() / "fake"


def create_call(faults: tuple[Fault, ...], calls: int, what: str, create: Callable[[], str]) -> str:
    """Create something and return its id, or fail by the fault of this call, if any."""
    fault = faults[calls - 1] if calls <= len(faults) else Fault.NONE
    if fault is Fault.REFUSE:
        raise BackendError(f"the fake refuses this {what}.", status=400)
    if fault is Fault.LOSE_REQUEST:
        raise Unreachable("the fake could not be reached.")
    if fault is Fault.DIE_BEFORE:
        _die()
    made = create()
    if fault is Fault.LOSE_ANSWER:
        raise Unreachable("the fake's answer was lost.")
    if fault is Fault.SERVER_ERROR:
        raise BackendError("the fake stumbled.", status=500)
    if fault is Fault.DIE_AFTER:
        _die()
    return made


def tick(file: Path) -> int:
    """Add one to a counter, a file that only grows, so that no process loses a count."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as growing:
        growing.write(b".")
        growing.flush()
        return growing.tell()


def count(file: Path) -> int:
    """Return the value of a counter."""
    return file.stat().st_size if file.exists() else 0


def write(file: Path, content: BaseModel) -> None:
    """Write a file atomically."""
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(content.model_dump_json(), encoding="utf-8")
    draft.rename(file)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process continues")


class FakeBatch(Frozen):
    """A batch of the fake vendor; ``batch.json`` in its folder."""

    key: str
    created: float  # seconds since 1970, UTC
    size: int  # number of requests
    replies: dict[str, Reply]  # replies by request id; requests that are never processed have none


class _Chats(Protocol):
    def chat(self, model: str | TunedModel) -> ChatModel: ...


class FakeBatches:
    """Methods of `Batches` for a backend whose models answer."""

    capabilities = ("Batches",)

    def submit_batch(
        self: _Chats, key: str, model: str | TunedModel, requests: Mapping[str, Request]
    ) -> str:
        calls = tick(_folder() / "creates")
        chat = self.chat(model)
        return create_call(_script().submits, calls, "batch", lambda: _created(key, chat, requests))

    def find_batch(self, key: str, since: float) -> list[str]:
        shown = time.time() - _script().shown_after_seconds
        batches = (
            (str(file.parent), _batch(file)) for file in _folder().glob(f"{key}.*/batch.json")
        )
        return sorted(batch_id for batch_id, batch in batches if since <= batch.created <= shown)

    def poll_batch(self, batch_id: str) -> BatchStatus:
        return _status(batch_id, _existing(batch_id), tick(Path(batch_id) / "polls"))

    def fetch_batch(self, batch_id: str) -> Mapping[str, Reply]:
        batch = _existing(batch_id)
        status = _status(batch_id, batch, count(Path(batch_id) / "polls"))
        if status.state != "ended":
            raise BackendError(f"batch {batch_id} is {status.raw}.", status=409)
        return batch.replies if status.raw == "ended" else {}

    def cancel_batch(self, batch_id: str) -> None:
        batch = _existing(batch_id)
        if _status(batch_id, batch, count(Path(batch_id) / "polls")).state == "running":
            (Path(batch_id) / "cancelled").touch()


def _folder() -> Path:
    return vendor_folder(home()) / "batches"


def _script() -> BatchScript:
    file = vendor_folder(home()) / "batches.json"
    if not file.exists():
        return BatchScript()
    return BatchScript.model_validate_json(file.read_text(encoding="utf-8"))


def _created(key: str, chat: ChatModel, requests: Mapping[str, Request]) -> str:
    missing = _script().missing

    async def replies() -> dict[str, Reply]:
        return {
            request_id: await chat.reply(request)
            for request_id, request in requests.items()
            if request.messages[-1].text not in missing
        }

    folder = _folder() / f"{key}.{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    answered = asyncio.run(replies())
    batch = FakeBatch(key=key, created=time.time(), size=len(requests), replies=answered)
    write(folder / "batch.json", batch)
    return str(folder)


def _existing(batch_id: str) -> FakeBatch:
    try:
        return _batch(Path(batch_id) / "batch.json")
    except OSError as error:
        raise BackendError(f"the fake has no batch {batch_id!r}.", status=404) from error


def _batch(file: Path) -> FakeBatch:
    return FakeBatch.model_validate_json(file.read_text(encoding="utf-8"))


def _status(batch_id: str, batch: FakeBatch, polls: int) -> BatchStatus:
    script = _script()
    if (Path(batch_id) / "cancelled").exists():
        return BatchStatus("ended", "cancelled", 0)
    if script.fails and polls > script.polls:
        return BatchStatus("failed", "failed", 0, script.fails)
    if polls > script.polls:
        return BatchStatus("ended", "ended", len(batch.replies))
    return BatchStatus("running", "in_progress", batch.size * polls // (script.polls + 1))
