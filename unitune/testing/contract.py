"""Define the test class that every backend must pass, for our own backends and third-party ones.

A subclass names the backend. For a hosted backend it also describes how to serve the vendor on
loopback. The contract then tests what is sent, every transport fault around the create call,
malformed responses, omitted fields, and a process killed at every step of a launch. See
CONTRIBUTING.md for an example.

A local backend names a base model and settings that make a training long enough to be cancelled
(`slow_options`, `slow_tuning`). Optional capabilities are tested if the backend has them.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from unitune.backends import registry
from unitune.backends.capabilities import (
    Batches,
    BatchStatus,
    CountsTokens,
    DeploymentStatus,
    Deploys,
    SwapsModel,
)
from unitune.backends.exactly_once import batch_key, launch_key, run_id
from unitune.backends.protocol import Backend, Event, Guarantee, State
from unitune.data.example import Message
from unitune.errors import BackendError, NotFoundError, UnituneError
from unitune.models import Reply, Request, TunedModel
from unitune.testing.contract_base import ContractBase, Training, reply_once, sha256_of, stream_once
from unitune.testing.contract_faults import FaultContract
from unitune.testing.contract_hosted import HostedContract
from unitune.testing.contract_malformed import MalformedReplyContract, MalformedTrainingContract
from unitune.testing.vendor_setup import ServedVendor


class DeploymentContract(ContractBase):
    """Tests of deployments."""

    @pytest.fixture(scope="class")
    @classmethod
    def deploys(cls, served: ServedVendor | None) -> Deploys:
        """Return the backend, if its models need deployments; checked before any training."""
        del served
        backend = registry.backend(cls.name)
        if not isinstance(backend, Deploys):
            pytest.skip(f"{cls.name} needs no deployments")
        return backend

    def ready(self, deploys: Deploys, ref: str, model: TunedModel) -> DeploymentStatus:
        """Poll a deployment until it is ready."""
        until = time.monotonic() + self.timeout_seconds
        moving = ("starting", "empty", "swapping")
        while (seen := deploys.deployment_status(ref, model)).state in moving:
            if seen.state == "empty" and isinstance(deploys, SwapsModel):
                deploys.swap_model(ref, model)
            assert time.monotonic() < until, f"still {seen.state}, {seen.raw!r}"
            time.sleep(self.poll_seconds)
        assert seen.state == "ready", seen.raw
        return seen

    @contextmanager
    def deployed(self, deploys: Deploys, model: TunedModel, name: str = "") -> Generator[str]:
        """Deploy a model while the body runs and yield the deployment's id."""
        ref = deploys.deploy(model, name or new_name(), self.deploy_options)
        try:
            yield ref
        finally:
            deploys.undeploy(ref)

    @contextmanager
    def answering(self, model: TunedModel) -> Generator[TunedModel]:
        """Yield the model to send requests to, deployed while the body runs if needed."""
        backend = registry.backend(self.name)
        if not isinstance(backend, Deploys):
            yield model
            return
        with self.deployed(backend, model) as ref:
            yield self.ready(backend, ref, model).model

    def test_deployment_comes_up_once_and_goes(self, deploys: Deploys, training: Training) -> None:
        name = new_name()
        assert deploys.find_deployment(name) is None
        ref = deploys.deploy(training.model, name, self.deploy_options)
        assert deploys.deploy(training.model, name, self.deploy_options) == ref
        assert deploys.find_deployment(name) == ref
        self.ready(deploys, ref, training.model)
        deploys.undeploy(ref)
        assert deploys.find_deployment(name) is None, "it still runs and costs money"
        assert deploys.deployment_status(ref, training.model).state == "gone"
        deploys.undeploy(ref)

    def test_deployment_polled_with_its_own_status_is_the_same(
        self, deploys: Deploys, training: Training
    ) -> None:
        with self.deployed(deploys, training.model) as ref:
            seen = self.ready(deploys, ref, training.model)
            assert deploys.deployment_status(ref, seen.model).model == seen.model

    def test_deployment_serves_the_model_that_is_put_in_its_place(
        self, deploys: Deploys, training: Training, tmp_path: Path
    ) -> None:
        if not isinstance(deploys, SwapsModel):
            pytest.skip(f"{self.name} cannot swap models")
        later = self.launch(tmp_path)
        model = self.follow(registry.backend(self.name).submit(later))[-1].model
        assert model is not None
        name = new_name()
        with self.deployed(deploys, training.model, name) as ref:
            assert self.ready(deploys, ref, training.model).tuned == training.model.name
            for new in (model, model, training.model):
                deploys.swap_model(ref, new)
                assert self.ready(deploys, ref, new).tuned == new.name
            assert deploys.find_deployment(name) == ref


def new_name() -> str:
    """Return a new name of a deployment."""
    return f"contract-{time.time_ns() % 10**12}"


READ_OFFER = """
import sys; from unitune.backends import registry
offer = registry.offer(sys.argv[1])
assert offer.name == sys.argv[1], f"the offer calls itself {offer.name}"
assert sys.argv[2] not in sys.modules, f"reading the offer imported {sys.argv[2]}"
"""
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
    """Tests of batches and token counts."""

    @pytest.fixture
    def counting(self) -> CountsTokens:
        backend = registry.backend(self.name)
        if not isinstance(backend, CountsTokens):
            pytest.skip(f"{self.name} does not count tokens")
        return backend

    def submitted(self, batches: Batches, key: str) -> tuple[str, ...]:
        """Submit a batch of three questions; return its id, then the request ids."""
        requests = {
            f"{key}-{at}": Request(messages=(Message(role="user", content=text),), max_tokens=8)
            for at, text in enumerate(QUESTIONS, start=1)
        }
        return batches.submit_batch(key, self.base_model(), requests), *requests

    def followed(self, batches: Batches, batch_id: str) -> BatchStatus:
        until = time.monotonic() + self.timeout_seconds
        while (status := batches.poll_batch(batch_id)).state == "running":
            assert time.monotonic() < until, f"still {status.raw!r}"
            time.sleep(self.poll_seconds)
        return status

    def test_each_request_of_a_batch_is_answered_under_its_id(self, batches: Batches) -> None:
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
        now = time.time()
        key = batch_key(now)
        batch_id, *_ = self.submitted(batches, key)
        self.submitted(batches, batch_key(now))
        assert batches.find_batch(key, now) == [batch_id]
        assert batches.find_batch(batch_key(now), now) == []

    def test_cancelled_batch_runs_no_more(self, batches: Batches) -> None:
        batch_id, *_ = self.submitted(batches, batch_key(time.time()))
        batches.cancel_batch(batch_id)
        assert self.followed(batches, batch_id).state != "running"
        batches.cancel_batch(batch_id)

    def test_unknown_batch_is_an_error_of_ours(self, batches: Batches) -> None:
        with pytest.raises((BackendError, NotFoundError)):
            batches.poll_batch("no-such-batch")
        with pytest.raises((BackendError, NotFoundError)):
            batches.fetch_batch("no-such-batch")

    @pytest.mark.parametrize("request_", [SHORT, LONG], ids=["short", "long"])
    def test_count_is_the_usage_of_an_answer(
        self, counting: CountsTokens, request_: Request
    ) -> None:
        """The count is of billed input, so an answer's usage has the same number."""
        reply = reply_once(registry.backend(self.name).chat(self.base_model()), request_)
        assert reply.error is None
        assert counting.count_tokens(self.base_model(), request_) == reply.prompt_tokens

    def test_longer_request_has_more_tokens(self, counting: CountsTokens) -> None:
        counts = [counting.count_tokens(self.base_model(), request) for request in (SHORT, LONG)]
        assert 0 < counts[0] < counts[1]

    def test_limit_of_the_answer_does_not_count(self, counting: CountsTokens) -> None:
        longer = SHORT.model_copy(update={"max_tokens": 4000, "stop": ("END",)})
        counts = {counting.count_tokens(self.base_model(), request) for request in (SHORT, longer)}
        assert len(counts) == 1

    def test_unknown_model_is_an_error_of_ours(self, counting: CountsTokens) -> None:
        with pytest.raises(UnituneError):
            counting.count_tokens("no-such-model", SHORT)


class BackendContract(
    HostedContract,
    FaultContract,
    MalformedTrainingContract,
    MalformedReplyContract,
    CapabilityContract,
    DeploymentContract,
):
    """Contract of every backend; a subclass names the backend."""

    def test_offer_is_valid_and_read_without_importing_the_backend(self) -> None:
        """Plans are made without the backend's packages, so its offer must be data."""
        entries = entry_points(group="unitune.backends", name=self.name)
        assert len(entries) == 1, (
            f"{len(entries)} installed packages have an entry point {self.name!r} in the group "
            "unitune.backends; install yours, or name another backend"
        )
        (entry,) = entries
        command = [sys.executable, "-c", READ_OFFER, self.name, entry.module]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own interpreter
        assert done.returncode == 0, done.stderr

    def test_offer_covers_the_tests_own_job(self) -> None:
        offer = registry.offer(self.name)
        names = {name for model in offer.models for name in (model.name, *model.aliases)}
        assert "sft" in offer.methods
        assert offer.any_model or self.base_model() in names

    def test_declares_name_and_guarantee(self, backend: Backend) -> None:
        assert backend.name == self.name
        assert backend.guarantee in Guarantee

    def test_upload_twice_is_one_file(self, tmp_path: Path) -> None:
        first = self.upload(tmp_path / "train.jsonl", self.rows)
        assert first == self.upload(tmp_path / "train.jsonl", self.rows)
        assert first.sha256 == sha256_of(tmp_path / "train.jsonl")

    def test_files_of_one_name_and_other_content_are_two(self, tmp_path: Path) -> None:
        """Each run names its file train.jsonl, so a file must not be identified by its name."""
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
        first = self.upload(tmp_path / "first" / "train.jsonl", self.rows)
        assert first.ref != self.upload(tmp_path / "second" / "train.jsonl", self.rows[::-1]).ref

    def test_training_succeeds(self, training: Training) -> None:
        assert training.last.state is State.SUCCEEDED, training.last.error
        assert training.model.backend == self.name
        assert training.model.base

    def test_states_before_the_end_are_of_a_job_at_work(self, training: Training) -> None:
        """States set by unitune only (planned, uncertain, …) are never returned by a poll."""
        ours = {State.PLANNED, State.UPLOADING, State.SUBMITTING, State.UNCERTAIN}
        assert not ours & {status.state for status in training.statuses}
        assert all(status.raw for status in training.statuses)

    def test_job_is_found_by_its_launch_key(self, backend: Backend, training: Training) -> None:
        folder = training.launch.folder
        assert backend.find(training.launch.key, folder) == [training.job_id]
        assert backend.find(launch_key(run_id(time.time()), 1), folder) == []

    def test_event_keys_are_unique(self, training: Training) -> None:
        keys = [event.key for event in training.events]
        assert keys, "a training without any event cannot be watched"
        assert sorted(set(keys)) == sorted(keys)

    def test_steps_are_counted_and_measured(self, training: Training) -> None:
        """A step has its number, and its loss or reward if the backend knows one."""
        for event in training.events:
            if event.kind in ("step", "validation"):
                assert isinstance(event.data.get("step"), int), event
                measured = event.data.get("loss", event.data.get("reward"))
                assert measured is None or isinstance(measured, int | float), event

    def test_cursor_loses_and_repeats_nothing(self, backend: Backend, training: Training) -> None:
        seen, cursor = list[Event](), ""
        while status := backend.poll(training.job_id, cursor):
            seen.extend(status.events)
            if not status.events:
                break
            cursor = status.cursor
        assert [event.key for event in seen] == [event.key for event in training.events]

    def test_poll_after_the_end_is_stable(self, backend: Backend, training: Training) -> None:
        later = backend.poll(training.job_id, training.last.cursor)
        assert later.events == ()
        assert (later.state, later.model) == (training.last.state, training.last.model)

    def test_submit_twice_with_one_key_is_one_job(self, backend: Backend, tmp_path: Path) -> None:
        if backend.guarantee not in (Guarantee.TOKEN, Guarantee.OWN_ID):
            pytest.skip(f"guarantee {backend.guarantee} does not promise it")
        launch = self.launch(tmp_path)
        job_id = backend.submit(launch)
        assert backend.submit(launch) == job_id
        assert backend.find(launch.key, launch.folder) == [job_id]
        self.follow(job_id)

    def test_cancel_ends_in_cancelled(self, backend: Backend, tmp_path: Path) -> None:
        job_id = backend.submit(self.launch(tmp_path, self.slow_tuning, self.slow_options))
        assert not backend.poll(job_id, "").state.ended, "make it longer: slow_options, slow_tuning"
        backend.cancel(job_id)
        assert self.follow(job_id)[-1].state is State.CANCELLED

    def test_unknown_job_is_a_backend_error(self, backend: Backend) -> None:
        with pytest.raises(BackendError):
            backend.poll("no-such-job", "")
        with pytest.raises(BackendError):
            backend.cancel("no-such-job")

    def test_unknown_option_is_refused_and_creates_nothing(
        self, backend: Backend, tmp_path: Path
    ) -> None:
        launch = self.launch(tmp_path, options={"no_such_option": 1})
        with pytest.raises(UnituneError, match="no_such_option"):
            backend.submit(launch)
        assert backend.find(launch.key, launch.folder) == []

    def test_tuned_and_untuned_models_reply(self, backend: Backend, training: Training) -> None:
        assert reply_once(backend.chat(self.base_model())).error is None
        with self.answering(training.model) as model:
            assert reply_once(backend.chat(model)).error is None

    def test_streamed_answer_is_the_answer(self, backend: Backend) -> None:
        *texts, reply = stream_once(backend.chat(self.base_model()))
        whole = reply_once(backend.chat(self.base_model()))
        assert isinstance(reply, Reply), "the reply must be the last piece"
        assert "".join(map(str, texts)) == reply.text == whole.text
        assert reply.finish_reason == whole.finish_reason
        assert (reply.prompt_tokens, reply.completion_tokens) == (
            whole.prompt_tokens,
            whole.completion_tokens,
        )

    def test_fingerprints_tell_models_apart(self, backend: Backend, training: Training) -> None:
        """Recorded answers are found by it, so a tuned model's differs from its base's."""
        fingerprints = list[str]()
        with self.answering(training.model) as tuned_model:
            for model in (self.base_model(), tuned_model, tuned_model):
                chat = backend.chat(model)
                fingerprints.append(chat.fingerprint)
                asyncio.run(chat.aclose())
        untuned, tuned, again = fingerprints
        assert untuned != tuned
        assert tuned == again

    def test_missing_tuned_model_is_an_error_of_ours(
        self, backend: Backend, training: Training
    ) -> None:
        gone = training.model.model_copy(update={"name": "no-such-model"})
        try:
            reply = reply_once(backend.chat(gone))
        except UnituneError:
            return
        assert reply.error, f"a missing model answered {reply.text!r}"
