"""Define settings, jobs and fixtures of the backend contract."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.capabilities import Batches
from unitune.backends.exactly_once import launch_key, run_id
from unitune.backends.protocol import Backend, Event, Launch, Status, Upload
from unitune.data.example import Message
from unitune.job.job import Data, Job, Tuning
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.testing.loopback import Server
from unitune.testing.vendor_setup import ServedVendor, ServerBehavior, VendorSetup, serve_vendor

COLOURS = {
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "grass": "green",
    "the sky": "blue",
    "a lemon": "yellow",
    "a carrot": "orange",
    "a mouse": "grey",
}


def row_of(question: str, answer: str) -> str:
    """Return a training row as a line of JSON."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}, separators=(",", ":")) + "\n"


ROWS = tuple(
    row_of(f"What is the colour of {subject}?", colour) for subject, colour in COLOURS.items()
)
QUESTION = Request(
    messages=(Message(role="user", content="What is the colour of snow?"),), max_tokens=8
)


@dataclass(frozen=True, slots=True)
class Training:
    """A training followed to its end."""

    launch: Launch  # the submitted launch
    job_id: str  # Id returned by `submit`
    # Status of every poll, in order, each with the cursor of the one before
    statuses: Sequence[Status]

    @property
    def last(self) -> Status:
        return self.statuses[-1]

    @property
    def events(self) -> list[Event]:
        return [event for status in self.statuses for event in status.events]

    @property
    def model(self) -> TunedModel:
        assert self.last.model is not None, f"{self.last.state} without a model: {self.last.error}"
        return self.last.model


class ContractBase:
    """Settings and fixtures of a backend's test."""

    name: ClassVar[str]  # registered name of the backend
    # Settings for serving its vendor; None for a backend without one
    setup: ClassVar[VendorSetup | None] = None
    model: ClassVar[str] = ""  # a small base model; by default that of `setup`, or "any"
    tuning: ClassVar[Tuning] = Tuning()
    options: ClassVar[Mapping[str, JsonValue]] = {}  # backend options for a short training
    slow_tuning: ClassVar[Tuning] = Tuning()
    # Options for such a training; they override `options`
    slow_options: ClassVar[Mapping[str, JsonValue]] = {}
    deploy_options: ClassVar[Mapping[str, JsonValue]] = {}  # backend options for a deployment
    rows: ClassVar[Sequence[str]] = ROWS
    poll_seconds: ClassVar[float] = 0.01
    timeout_seconds: ClassVar[float] = 120  # time limit of a training, a batch or a deployment

    @classmethod
    def base_model(cls) -> str:
        return cls.model or (cls.setup.model if cls.setup else "any")

    @classmethod
    def create_path(cls) -> str:
        """Return the regular expression for the path of the create call."""
        assert cls.setup is not None
        return cls.setup.create

    @classmethod
    def job(
        cls,
        folder: Path,
        tuning: Tuning | None = None,
        options: Mapping[str, JsonValue] | None = None,
    ) -> Job:
        """Return a job that trains on ``train.jsonl`` in a folder, with further options."""
        return Job(
            name="contract",
            model=cls.base_model(),
            backend=cls.name,
            data=Data(train="train.jsonl", validation="validation.jsonl"),
            tuning=cls.tuning if tuning is None else tuning,
            options={cls.name: {**cls.options, **(options or {})}},
            folder=folder,
        )

    @classmethod
    def launch(
        cls,
        folder: Path,
        tuning: Tuning | None = None,
        options: Mapping[str, JsonValue] | None = None,
    ) -> Launch:
        """Write and upload the rows and return the launch; arguments as in `job`."""
        return Launch(
            key=launch_key(run_id(time.time()), 1),
            job=cls.job(folder, tuning, options),
            training=cls.upload(folder / "train.jsonl", cls.rows),
            validation=cls.upload(folder / "validation.jsonl", cls.rows[:2]),
            folder=folder,
        )

    @classmethod
    def upload(cls, path: Path, rows: Sequence[str]) -> Upload:
        path.write_text("".join(rows), encoding="utf-8")
        return registry.backend(cls.name).upload(path, sha256_of(path))

    @classmethod
    def follow(cls, job_id: str) -> list[Status]:
        backend = registry.backend(cls.name)
        until = time.monotonic() + cls.timeout_seconds
        statuses = [backend.poll(job_id, "")]
        while not statuses[-1].state.ended:
            assert time.monotonic() < until, f"still {statuses[-1].state}, {statuses[-1].raw!r}"
            time.sleep(cls.poll_seconds)
            statuses.append(backend.poll(job_id, statuses[-1].cursor))
        return statuses

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def served(cls) -> Iterator[ServedVendor | None]:
        """Serve the vendor on loopback and set the environment; yield None without a vendor."""
        if cls.setup is None:
            yield None
            return
        with serve_vendor(cls.setup) as served:
            yield served

    @pytest.fixture
    def server(self, served: ServedVendor | None) -> Server:
        if served is None:
            pytest.skip(f"{self.name} has no vendor: its test names no `setup`")
        return served.server

    @pytest.fixture
    def behavior(self, server: Server, served: ServedVendor) -> Iterator[ServerBehavior]:
        """Yield the vendor's behavior and restore it afterwards."""
        del server
        before = replace(served.behavior)
        yield served.behavior
        for name in before.__dataclass_fields__:
            setattr(served.behavior, name, getattr(before, name))

    @pytest.fixture
    def backend(self) -> Backend:
        return registry.backend(self.name)

    @pytest.fixture
    def batches(self) -> Batches:
        backend = registry.backend(self.name)
        if not isinstance(backend, Batches):
            pytest.skip(f"{self.name} does not answer in batches")
        return backend

    @pytest.fixture(scope="class")
    @classmethod
    def training(
        cls, served: ServedVendor | None, tmp_path_factory: pytest.TempPathFactory
    ) -> Training:
        """Run one training to its end, shared by all tests."""
        del served
        launch = cls.launch(tmp_path_factory.mktemp("training"))
        job_id = registry.backend(cls.name).submit(launch)
        return Training(launch, job_id, cls.follow(job_id))


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reply_once(chat: ChatModel, request: Request = QUESTION) -> Reply:
    """Return a model's reply to one request, using a new event loop."""

    async def reply() -> Reply:
        async with chat:
            return await chat.reply(request)

    return asyncio.run(reply())


def stream_once(chat: ChatModel, request: Request = QUESTION) -> list[str | Reply]:
    """Return the pieces of a model's streamed answer, using a new event loop."""

    async def pieces() -> list[str | Reply]:
        async with chat:
            return [piece async for piece in chat.stream_reply(request)]

    return asyncio.run(pieces())
