"""Test how a backend handles answers that no vendor should send.

Proxies answer with HTML pages, gateways with other vendors' formats, and bodies are cut. A reply
must be a row with a text or an error; every other method returns what it can read or raises a
`UnituneError`. Skipped if the test has no vendor server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import pytest
from pydantic import JsonValue

from unitune.backends import retry
from unitune.backends.capabilities import Batches
from unitune.backends.protocol import Backend
from unitune.errors import UnituneError
from unitune.evaluate.inference import requests
from unitune.evaluate.inference.engine import Question, record_of
from unitune.evaluate.inference.journal import line_of, read_record
from unitune.evaluate.inference.requests import AdaptiveLimiter
from unitune.models import Reply
from unitune.testing.contract_base import QUESTION, ContractBase
from unitune.testing.loopback import Server, VendorRequest, VendorResponse

Change = Callable[[VendorResponse], VendorResponse]

MOST_ANSWERS = 6  # answers of one method that are changed, one at a time
SUCCESS = range(200, 300)
HALF = "a\ud800"  # A text with half a character, which JSON allows but UTF-8 does not


def _of(content: JsonValue | bytes) -> Change:
    return lambda answer: replace(answer, content=content)


def _each(change: Callable[[JsonValue], JsonValue]) -> Change:
    def changed(answer: VendorResponse) -> VendorResponse:
        if not isinstance(answer.content, bytes):
            return replace(answer, content=_walked(answer.content, change))
        try:
            lines = [json.loads(line) for line in answer.content.decode().splitlines()]
        except ValueError:
            return answer
        text = "".join(json.dumps(_walked(line, change)) + "\n" for line in lines)
        return replace(answer, content=text.encode())

    return changed


def _walked(value: JsonValue, change: Callable[[JsonValue], JsonValue]) -> JsonValue:
    if isinstance(value, dict) and value:
        value = {key: _walked(item, change) for key, item in value.items()}
    elif isinstance(value, list) and value:
        value = [_walked(item, change) for item in value]
    return change(value)


def _if(kind: type | tuple[type, ...], other: JsonValue) -> Change:
    def changed(value: JsonValue) -> JsonValue:
        return other if isinstance(value, kind) and not isinstance(value, bool) else value

    return _each(changed)


ODD: Mapping[str, Change] = {  # changes of answers, one at a time
    "nothing": _of(b""),
    "a page": _of(b"<!DOCTYPE html><html><body>Bad gateway</body></html>"),
    "bytes that are not UTF-8": lambda answer: replace(answer, content=answer.body + b"\xff"),
    "a body that is cut": lambda answer: replace(
        answer, content=answer.body[: len(answer.body) // 2]
    ),
    "100,000 brackets": _of(b"[" * 100_000 + b"]" * 100_000),
    "100,000 brackets in an object": _of(b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a number of 5,000 digits": _of(b'{"id":' + b"9" * 5000 + b"}"),
    "null": _of(b"null"),
    "a number": _of(b"1"),
    "a text": _of(b'"what?"'),
    "a list": _of(b"[[]]"),
    "an empty object": _of(b"{}"),
    "texts for numbers": _if((int, float), "many"),
    "huge numbers": _if((int, float), 10**400),
    "numbers below 0": _if((int, float), -1),
    "numbers for texts": _if(str, 7),
    "unpaired surrogates": _if(str, HALF),
    "texts for lists": _if(list, "many"),
    "objects for lists": _if(list, {"a": 1}),
    "lists of nothing known": _if(list, [None, 1, "x", [], {}]),
    "null for all": _if((str, int, float, list), None),
}


class MalformedReplyContract(ContractBase):
    """Tests with malformed answers to requests."""

    def test_whatever_answers_a_question_it_is_a_row(
        self, backend: Backend, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A malformed answer must not end a comparison, and its record must be readable."""
        monkeypatch.setattr(retry, "ATTEMPTS", 1)

        def ask() -> None:
            async def attempt() -> Reply:
                async with backend.chat(self.base_model()) as chat:
                    done = await requests.request_with_retry(chat, QUESTION, AdaptiveLimiter(1))
                return done.reply

            _check_row(asyncio.run(attempt()))

        assert {**_spoiled(server, ask), **_spoiled(server, ask, 400)} == {}

    def test_whatever_stands_in_a_batch_is_read_or_refused(
        self, batches: Batches, server: Server
    ) -> None:
        """Paid answers are read as far as possible, and none are made up."""
        batch_id = batches.submit_batch("b-key", self.base_model(), {"b-key-1": QUESTION})
        while batches.poll_batch(batch_id).state == "running":
            pass

        def fetch() -> None:
            for reply in batches.fetch_batch(batch_id).values():
                _check_row(reply)

        assert _spoiled(server, fetch) == {}
        assert _spoiled(server, lambda: batches.poll_batch(batch_id)) == {}
        assert _spoiled(server, lambda: batches.find_batch("b-key", 0.0)) == {}


class MalformedTrainingContract(ContractBase):
    """Tests with malformed answers to trainings."""

    def test_whatever_answers_a_poll_or_a_search_is_read_or_refused(
        self, backend: Backend, server: Server, tmp_path: Path
    ) -> None:
        """A crash of a watch or a search would hide the state of a job that costs money."""
        launch = self.launch(tmp_path)
        job_id = backend.submit(launch)
        assert _spoiled(server, lambda: backend.poll(job_id, "")) == {}
        assert _spoiled(server, lambda: backend.find(launch.key, launch.folder)) == {}

    def test_a_create_call_whose_answer_cannot_be_read_is_open(
        self, backend: Backend, server: Server, tmp_path: Path
    ) -> None:
        """It may have created a job; an error that implies otherwise leads to a second one."""
        launch = self.launch(tmp_path)

        def submit() -> None:
            before = len(server.received("POST", self.create_path()))
            try:
                backend.submit(launch)
            except UnituneError as error:
                sent = len(server.received("POST", self.create_path())) > before
                if sent and not error.is_ambiguous:
                    raise AssertionError(
                        f"the error implies that nothing was created: {error}"
                    ) from error

        assert _spoiled(server, submit) == {}

    def test_a_refusal_of_any_body_is_an_error_of_ours(
        self, backend: Backend, server: Server, tmp_path: Path
    ) -> None:
        launch = self.launch(tmp_path)
        assert _spoiled(server, lambda: backend.submit(launch), 400) == {}


def _check_row(reply: Reply) -> None:
    record = record_of("c", Question("case", QUESTION), "m", "hash", reply)
    assert read_record(line_of(record)) == record, "the record read differs from the record written"


def _spoiled(
    server: Server, act: Callable[[], object], status: int | None = None
) -> dict[str, str]:
    """Change each answer in each way; return every failure that is not a UnituneError."""
    failed: dict[str, str] = {}
    for name, change in ODD.items():
        for nth in range(MOST_ANSWERS):
            spoiler = _Spoiler(change, nth, status)
            server.change = spoiler
            try:
                with patch.object(retry, "sleep", _no_wait):
                    act()
            except UnituneError:
                pass
            except Exception as error:  # noqa: BLE001 - the test checks that there is none
                failed[f"{name}, answer {nth + 1}"] = f"{type(error).__name__}: {error}"[:300]
            finally:
                server.change = None
            if spoiler.seen <= nth + 1:
                break
    return failed


def _no_wait(_: float) -> None:
    """Retry without a delay, as there are hundreds of answers."""


@dataclass(slots=True)
class _Spoiler:
    change: Change
    nth: int
    status: int | None
    seen: int = 0

    def __call__(self, _: VendorRequest, answer: VendorResponse) -> VendorResponse:
        at, self.seen = self.seen, self.seen + 1
        if at != self.nth or answer.status not in SUCCESS:
            return answer
        changed = self.change(answer)
        return changed if self.status is None else replace(changed, status=self.status)
