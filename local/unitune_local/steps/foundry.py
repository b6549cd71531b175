"""Sessions of Microsoft Foundry's interactive training (preview): operations, polls, heartbeats.

The API has no idempotency key, so an operation that changes weights is sent once.

Sources: azure-ai-finetuningsessions 1.0.0b1 (its types, and how it polls); MicrosoftDocs/
azure-ai-docs, foundry/fine-tuning/interactive-post-training, 2026-10-07.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from pydantic import JsonValue

from unitune.backends.kit.api import Api, Query, created_id
from unitune.backends.retry import delays, sleep
from unitune.errors import BackendError, RunFailed, UnituneError
from unitune.security.json_fields import Fields

ROOT = ("fine_tuning", "sessions")
VERSION: Query = {"api-version": "v1"}
PAGE = 100
PENDING = "pending"
LONGEST_POLL_SECONDS = 30.0  # as in the SDK, like the next
HEARTBEAT_SECONDS = 30.0
# Refusals that the same request would meet again, by status and by an operation's `error_code`
FINAL = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 422)
FINAL_CODES = ("invalid_request", "engine_oom")
Body = dict[str, JsonValue]
log = logging.getLogger(__name__)


@dataclass
class Session:
    """A session that this process has opened, which its heartbeats keep alive."""

    api: Api
    id: str
    ended: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def open(cls, api: Api, body: Body) -> Session:
        """Open a session and wait until its model is loaded."""
        action = "open a session"
        with final_errors():
            made = api.post(*ROOT, action=action, body=body, query=VERSION)
            own = created_id(made, api.endpoint, "session_id")
            # As in the SDK: an id without a prefix is that of a model.
            session = cls(api, own if own.startswith(("session_", "model_")) else f"model_{own}")
            beating = partial(copy_context().run, session._keep_alive)
            threading.Thread(target=beating, daemon=True).start()
            try:
                session._result(made, action)
            except BaseException:
                session.ended.set()
                raise
        return session

    @property
    def source(self) -> str:
        """Id of the session as the source of a checkpoint."""
        return canonical(self.id)

    def do(
        self,
        verb: str,
        body: Body,
        query: Mapping[str, str] | None = None,
        *,
        repeats: bool = False,
    ) -> Fields:
        """Do an operation and return its result; only one that `repeats` may be sent again."""
        action, sent = f"do {verb}", {**VERSION, **(query or {})}
        with final_errors():
            asked = self.api.post(
                *ROOT, self.id, verb, action=action, body=body, query=sent, changes_nothing=repeats
            )
            return self._result(asked, action)

    def close(self) -> None:
        """Unload the session; its checkpoints remain."""
        self.ended.set()
        self.api.post(*ROOT, self.id, "complete", action="end the session", query=VERSION)

    def _result(self, asked: Fields, action: str) -> Fields:
        request = created_id(asked, self.api.endpoint, "request_id")
        path, pauses = (*ROOT, self.id, "request", request), delays(LONGEST_POLL_SECONDS)
        while (done := self.api.get(*path, action=action, query=VERSION)).text("status") == PENDING:
            sleep(next(pauses))
        if done.text("status") == "completed":
            return done.fields("result")
        words, code = done.text("error") or "no reason given", done.text("error_code")
        vendor = self.api.endpoint.vendor
        text = f"{vendor.name} could not {action}: {vendor.safe(words)} ({code or 'no code'})."
        if code in FINAL_CODES:
            raise RunFailed(f"{text} Use fewer or shorter rows in a step.")
        # Azure may have lost the session's state; another one begins from a checkpoint.
        raise BackendError(text, status=HTTPStatus.SERVICE_UNAVAILABLE)

    def _keep_alive(self) -> None:
        path = (*ROOT, self.id, "heartbeat")
        while not self.ended.wait(HEARTBEAT_SECONDS):
            try:
                self.api.post(*path, action="keep the session", query=VERSION)
            except UnituneError as error:  # also a key command that fails once
                log.warning("%s", error)


def training_checkpoints(api: Api, base: str) -> Iterator[tuple[str, str]]:
    """Yield session and name of all checkpoints of a base model that can be trained on."""
    action, query = "find what exists", {**VERSION, "limit": PAGE}
    for each in api.pages(*ROOT, action=action, next_page=_next_page, query=query):
        session = each.text("session_id")
        if session and each.text("base_model") == base:
            found = api.find(*ROOT, session, "checkpoints", action=action, query=VERSION)
            for kept in (found or Fields({})).items("checkpoints"):
                if kept.text("checkpoint_type") == "training":
                    yield canonical(session), kept.text("checkpoint_id") or ""


def rank_of(api: Api, session: str, name: str) -> int | None:
    """Return the rank of a checkpoint's adapter, if it is known."""
    path = (*ROOT, session, "checkpoints", name)
    return api.get(*path, action="read the checkpoint", query=VERSION).whole("lora_rank")


def canonical(session: str) -> str:
    """Return a session's id as the source of a checkpoint; operations also take ``model_…``."""
    return f"session_{session.removeprefix('model_').removeprefix('session_')}"


@contextmanager
def final_errors() -> Generator[None]:
    """Raise `RunFailed` for a request that Azure would refuse again."""
    try:
        yield
    except BackendError as error:
        if error.status in FINAL:
            raise RunFailed(str(error)) from error
        raise


def _next_page(page: Fields) -> Query | None:
    cursor, shown = page.fields("cursor"), len(page.values("data"))
    after = (cursor.whole("offset") or 0) + shown
    return {"offset": after} if shown and after < (cursor.whole("total_count") or 0) else None
