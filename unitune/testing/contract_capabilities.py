"""What a backend must do that has more than the verbs of `Backend`; part of the contract.

Batches, token counts and deployments. Tests of what a backend does not have are skipped.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from unitune.backends import registry
from unitune.backends.capabilities import (
    Batches,
    BatchStatus,
    CountsTokens,
    DeploymentStatus,
    Deploys,
)
from unitune.backends.launch_keys import batch_key
from unitune.data.example import Message
from unitune.errors import BackendError, NotFoundError, UnituneError
from unitune.models import Request, TunedModel
from unitune.testing.contract_base import ContractBase, Training, reply_once
from unitune.testing.vendor_setup import ServedVendor

QUESTIONS = ("What is the colour of snow?", "And of coal?", "And of grass?")
SHORT = Request(messages=(Message(role="user", content="What is the colour of snow?"),))
LONG = Request(
    messages=(
        Message(role="system", content="Say one word."),
        Message(role="user", content="What is the colour of snow in the light of the moon?"),
        Message(role="assistant", content="silver"),
        Message(role="user", content="And of coal?"),
    )
)


class CapabilityContract(ContractBase):
    """The tests; a subclass names the backend."""

    @pytest.fixture
    def batches(self) -> Batches:
        """The backend, if it answers in batches."""
        backend = registry.backend(self.name)
        if not isinstance(backend, Batches):
            pytest.skip(f"{self.name} does not answer in batches")
        return backend

    @pytest.fixture
    def counting(self) -> CountsTokens:
        """The backend, if its vendor counts tokens."""
        backend = registry.backend(self.name)
        if not isinstance(backend, CountsTokens):
            pytest.skip(f"{self.name} does not count tokens")
        return backend

    @pytest.fixture(scope="class")
    @classmethod
    def deploys(cls, served: ServedVendor | None) -> Deploys:
        """The backend, if its models answer from deployments; checked before a training is."""
        del served
        backend = registry.backend(cls.name)
        if not isinstance(backend, Deploys):
            pytest.skip(f"{cls.name} needs no deployments")
        return backend

    def submitted(self, batches: Batches, key: str) -> tuple[str, ...]:
        """Submit a batch of three questions; return its id, then those of its requests."""
        requests = {
            f"{key}-{at}": Request(messages=(Message(role="user", content=text),), max_tokens=8)
            for at, text in enumerate(QUESTIONS, start=1)
        }
        return batches.submit_batch(key, self.base_model(), requests), *requests

    def followed(self, batches: Batches, batch_id: str) -> BatchStatus:
        """Poll a batch until it runs no more."""
        until = time.monotonic() + self.timeout_seconds
        while (status := batches.poll_batch(batch_id)).state == "running":
            assert time.monotonic() < until, f"still {status.raw!r}"
            time.sleep(self.poll_seconds)
        return status

    def test_each_request_of_a_batch_is_answered_under_its_id(self, batches: Batches) -> None:
        """A batch comes to its end, and a second poll gives the same answers."""
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
        """A batch that no one waits for is ended, whether it has ended by itself or not."""
        batch_id, *_ = self.submitted(batches, batch_key(time.time()))
        batches.cancel_batch(batch_id)
        assert self.followed(batches, batch_id).state != "running"
        batches.cancel_batch(batch_id)

    def test_unknown_batch_is_an_error_of_ours(self, batches: Batches) -> None:
        """An unknown batch is reported in our words."""
        with pytest.raises((BackendError, NotFoundError)):
            batches.poll_batch("no-such-batch")
        with pytest.raises((BackendError, NotFoundError)):
            batches.fetch_batch("no-such-batch")

    @pytest.mark.parametrize("request_", [SHORT, LONG], ids=["short", "long"])
    def test_count_is_the_usage_of_an_answer(
        self, counting: CountsTokens, request_: Request
    ) -> None:
        """The count is of what is billed as input, so an answer's usage has the same."""
        reply = reply_once(registry.backend(self.name).chat(self.base_model()), request_)
        assert reply.error is None
        assert counting.count_tokens(self.base_model(), request_) == reply.prompt_tokens

    def test_longer_request_has_more_tokens(self, counting: CountsTokens) -> None:
        """Every message counts, not the last alone."""
        counts = [counting.count_tokens(self.base_model(), request) for request in (SHORT, LONG)]
        assert 0 < counts[0] < counts[1]

    def test_limit_of_the_answer_does_not_count(self, counting: CountsTokens) -> None:
        """How a request is to be answered is no part of its input."""
        longer = SHORT.model_copy(update={"max_tokens": 4000, "stop": ("END",)})
        counts = {counting.count_tokens(self.base_model(), request) for request in (SHORT, longer)}
        assert len(counts) == 1

    def test_unknown_model_is_an_error_of_ours(self, counting: CountsTokens) -> None:
        """An unknown model is reported in our words."""
        with pytest.raises(UnituneError):
            counting.count_tokens("no-such-model", SHORT)

    def ready(self, deploys: Deploys, ref: str, model: TunedModel) -> DeploymentStatus:
        """Poll a deployment until it comes up no more."""
        until = time.monotonic() + self.timeout_seconds
        while (seen := deploys.deployment_status(ref, model)).state == "starting":
            assert time.monotonic() < until, f"still starting, {seen.raw!r}"
            time.sleep(self.poll_seconds)
        assert seen.state == "ready", seen.raw
        return seen

    @contextmanager
    def answering(self, model: TunedModel) -> Generator[TunedModel]:
        """Give the model that answers, deployed while the body runs where it has to be."""
        backend = registry.backend(self.name)
        if not isinstance(backend, Deploys):
            yield model
            return
        ref = backend.deploy(model, f"contract-{time.time_ns() % 10**12}", self.deploy_options)
        try:
            yield self.ready(backend, ref, model).model
        finally:
            backend.undeploy(ref)

    def test_deployment_comes_up_once_and_goes(self, deploys: Deploys, training: Training) -> None:
        """What is charged by the hour is found by its name, never doubled, and ends on request."""
        name = f"contract-{time.time_ns() % 10**12}"
        assert deploys.find_deployment(name) is None
        ref = deploys.deploy(training.model, name, self.deploy_options)
        assert deploys.deploy(training.model, name, self.deploy_options) == ref
        assert deploys.find_deployment(name) == ref
        self.ready(deploys, ref, training.model)
        deploys.undeploy(ref)
        assert deploys.find_deployment(name) is None, "it stands, and costs money"
        assert deploys.deployment_status(ref, training.model).state == "gone"
        deploys.undeploy(ref)

    def test_deployment_polled_with_its_own_status_is_the_same(
        self, deploys: Deploys, training: Training
    ) -> None:
        """A later poll gets the model that an earlier poll gave; it must not change."""
        ref = deploys.deploy(
            training.model, f"contract-{time.time_ns() % 10**12}", self.deploy_options
        )
        try:
            seen = self.ready(deploys, ref, training.model)
            assert deploys.deployment_status(ref, seen.model).model == seen.model
        finally:
            deploys.undeploy(ref)
