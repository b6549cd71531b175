"""What every backend that answers in batches must do; part of `unitune.testing.contract`.

Skipped for a backend that is no `unitune.backends.capabilities.Batches`.
"""

from __future__ import annotations

import time
from typing import ClassVar

import pytest

from unitune.backends import registry
from unitune.backends.capabilities import Batches, BatchStatus
from unitune.backends.launch_keys import batch_key
from unitune.data.example import Message
from unitune.errors import BackendError, UnknownName
from unitune.models import Request

QUESTIONS = ("What is the colour of snow?", "And of coal?", "And of grass?")


class BatchContract:
    """The tests; a subclass names the backend."""

    name: ClassVar[str]
    model: ClassVar[str]
    poll_seconds: ClassVar[float]
    patience_seconds: ClassVar[float]

    @pytest.fixture
    def batches(self) -> Batches:
        """The backend, if it answers in batches."""
        found = registry.backend(self.name)
        if not isinstance(found, Batches):
            pytest.skip(f"{self.name} does not answer in batches")
        return found

    def submitted(self, batches: Batches, key: str) -> tuple[str, ...]:
        """Hand a batch of three questions in; return its id, then those of its requests."""
        requests = {
            f"{key}-{at}": Request(messages=(Message(role="user", content=text),), max_tokens=8)
            for at, text in enumerate(QUESTIONS, start=1)
        }
        return batches.submit_batch(key, self.model, requests), *requests

    def followed(self, batches: Batches, batch_id: str) -> BatchStatus:
        """Poll a batch until it runs no more."""
        until = time.monotonic() + self.patience_seconds
        while (status := batches.poll_batch(batch_id)).state == "running":
            assert time.monotonic() < until, f"still {status.raw!r}"
            time.sleep(self.poll_seconds)
        return status

    def test_each_request_of_a_batch_is_answered_under_its_id(self, batches: Batches) -> None:
        """A batch comes to its end, and says so again with the same answers when asked again."""
        batch_id, *requests = self.submitted(batches, batch_key(time.time()))
        status = self.followed(batches, batch_id)
        assert status.state == "ended", status.error
        assert status.raw
        assert status.done in (None, len(requests))
        replies = batches.fetch_batch(batch_id)
        assert sorted(replies) == sorted(requests)
        assert [reply.error for reply in replies.values()] == [None] * len(requests)
        assert batches.poll_batch(batch_id).state == "ended"
        assert batches.fetch_batch(batch_id) == replies

    def test_batch_is_found_by_its_key(self, batches: Batches) -> None:
        """A batch whose create call got no answer is found again, and no other is."""
        now = time.time()
        key = batch_key(now)
        batch_id, *_ = self.submitted(batches, key)
        self.submitted(batches, batch_key(now))
        assert batches.find_batch(key, now) == [batch_id]
        assert batches.find_batch(batch_key(now), now) == []

    def test_cancelled_batch_runs_no_more(self, batches: Batches) -> None:
        """A batch that nobody waits for is ended, whether it has ended by itself or not."""
        batch_id, *_ = self.submitted(batches, batch_key(time.time()))
        batches.cancel_batch(batch_id)
        assert self.followed(batches, batch_id).state != "running"
        batches.cancel_batch(batch_id)

    def test_unknown_batch_is_an_error_of_ours(self, batches: Batches) -> None:
        """A batch that is not there is said to be so, in our words."""
        with pytest.raises((BackendError, UnknownName)):
            batches.poll_batch("no-such-batch")
        with pytest.raises((BackendError, UnknownName)):
            batches.fetch_batch("no-such-batch")
