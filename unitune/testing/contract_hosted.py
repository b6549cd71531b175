"""Test what a backend sends to its vendor and how it handles failures and omitted fields.

`poll_without_fields` follows jobs to their end while the vendor omits fields
(`unitune.testing.omissions`), and calls everything that reads from the backend. A `BackendError` is
allowed; any other exception, and an event that no ledger can store, is a crash. Skipped if the test
has no `setup`.
"""

from __future__ import annotations

import json
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.capabilities import Checkpoints, Imports, ListsJobs
from unitune.backends.protocol import Backend, Launch, State, Status
from unitune.errors import BackendError, UnituneError, Unreachable
from unitune.job.job import Tuning
from unitune.models import Reply, Start, TunedModel
from unitune.testing.contract_base import QUESTION, ContractBase, Training, reply_once
from unitune.testing.loopback import Fault, Server
from unitune.testing.omissions import Omissions
from unitune.testing.vendor_setup import ServerBehavior

T = TypeVar("T")
# Exceptions raised by reading an answer with a missing or null field
UNREADABLE = (LookupError, TypeError, AttributeError)
MOST_LOOKS = 12  # polls of one job, which may not show its end
ROUNDS = 4  # times that each job is followed from its start; more jobs would make lists long
LOOKS = 80  # polls of a vendor that omits fields
JOBS = 5  # more than a page of a test vendor should list
REASON = "the rows taste of soap"
NEW = {State.QUEUED, State.VALIDATING, State.RUNNING}  # states of a job that was never polled
# Faults of a create call that took effect, although the answer does not show it
LOST = (Fault.ERROR_AFTER, Fault.CUT, Fault.SHORT)
STATUSES = {Fault.RATE_LIMITED: 429, Fault.EXPIRED_KEY: 401, Fault.SERVER_ERROR: 500}


class HostedContract(ContractBase):
    """Tests of a hosted backend's requests and failures."""

    # Two values of each setting of a job; settings that the offer supports are tested
    settings: ClassVar[dict[str, Sequence[Any]]] = {
        "epochs": (2, 3),
        "batch_size": (8, 16),
        "learning_rate": (1e-5, 2e-5),
        "warmup": (0.1, 0.2),
        "schedule": ("linear", "cosine"),
        "weight_decay": (0.01, 0.02),
        "sequence_length": (1024, 2048),
        "seed": (7, 8),
    }

    def created(self, server: Server, launch: Launch) -> bytes:
        """Create a job and return the request to the vendor without the launch key."""
        registry.backend(self.name).submit(launch)
        body = server.received("POST", self.create_path())[-1].body
        return body.replace(launch.key.encode(), b"KEY")

    def test_failed_job_is_failed_in_the_vendors_words(
        self, backend: Backend, behavior: ServerBehavior, tmp_path: Path
    ) -> None:
        """A failure reported as a success would be deployed and evaluated."""
        job_id = backend.submit(self.launch(tmp_path))
        behavior.fails = REASON
        last = self.follow(job_id)[-1]
        assert last.state is State.FAILED
        assert last.model is None
        assert REASON in str(last.error)

    @pytest.mark.parametrize(
        ("fault", "status"), STATUSES.items(), ids=[str(fault) for fault in STATUSES]
    )
    def test_refused_create_call_says_its_status(
        self, backend: Backend, server: Server, fault: Fault, status: int, tmp_path: Path
    ) -> None:
        """The status decides what follows: wait, give up or search for the job."""
        error, launch = self.failed_launch(backend, server, fault, tmp_path)
        assert isinstance(error, BackendError)
        wait = 1.0 if fault is Fault.RATE_LIMITED else None
        assert (error.status, error.retry_after) == (status, wait)
        assert backend.find(launch.key, launch.folder) == []

    @pytest.mark.parametrize("fault", LOST)
    def test_create_call_without_an_answer_leaves_one_job_that_is_found(
        self, backend: Backend, server: Server, fault: Fault, tmp_path: Path
    ) -> None:
        """Repeating it blindly, or treating it as refused, costs a second job."""
        error, launch = self.failed_launch(backend, server, fault, tmp_path)
        assert error.is_ambiguous, f"{error!r} implies that nothing was created"
        assert len(backend.find(launch.key, launch.folder)) == 1

    def failed_launch(
        self, backend: Backend, server: Server, fault: Fault, folder: Path
    ) -> tuple[UnituneError, Launch]:
        """Return the error of a create call with a fault, which must be sent once."""
        launch = self.launch(folder)
        before = len(server.received("POST", self.create_path()))
        server.inject_fault(fault, "POST", self.create_path())
        with pytest.raises(UnituneError) as error:
            backend.submit(launch)
        assert len(server.received("POST", self.create_path())) == before + 1
        return error.value, launch

    def test_refused_poll_says_its_status(
        self, backend: Backend, server: Server, tmp_path: Path
    ) -> None:
        job_id = backend.submit(self.launch(tmp_path))
        # Only of this job, as an SDK may read something else in a thread.
        server.inject_fault(Fault.EXPIRED_KEY, "GET", re.escape(re.split("[/:]", job_id)[-1]))
        with pytest.raises(BackendError) as error:
            backend.poll(job_id, "")
        assert not isinstance(error.value, Unreachable)
        assert error.value.status == 401

    def test_polls_survive_fields_that_are_left_out(
        self, backend: Backend, server: Server, tmp_path: Path
    ) -> None:
        """Vendors omit more than documented; a poll that fails on it would end the watch."""
        omits = Omissions(share=0.15, required=True)
        launch = partial(self.launch, tmp_path)
        tally = poll_without_fields(backend, launch, server, omits, LOOKS)
        assert dict(tally.crashes) == {}
        assert omits.omitted

    def test_settings_that_the_offer_honours_are_sent(self, server: Server, tmp_path: Path) -> None:
        """A dropped setting would train something other than requested."""
        offer = registry.offer(self.name)
        values = self.settings | ({"warmup": (3, 4)} if offer.warmup_as == "steps" else {})
        honoured = [name for name in values if name in offer.supported_settings]
        again = [self.created(server, self.launch(tmp_path)) for _ in range(2)]
        assert again[0] == again[1], "two equal launches send different requests"
        dropped = list[str]()
        for name in honoured:
            tunings = [Tuning.model_validate({name: value}) for value in values[name]]
            bodies = {self.created(server, self.launch(tmp_path, tuning)) for tuning in tunings}
            dropped += [name] if len(bodies) == 1 else []
        assert dropped == []

    @pytest.mark.usefixtures("server")
    def test_training_goes_on_from_a_tuned_model(
        self, backend: Backend, server: Server, training: Training, tmp_path: Path
    ) -> None:
        """Without the start, the base would be trained again and look like success."""
        launch = self.launch(tmp_path)
        terms = registry.offer(self.name).terms(launch.job.base_model)
        if launch.job.method not in terms.continues:
            pytest.skip(f"{self.name} cannot continue from a tuned model, by its offer")
        anew = self.created(server, launch)
        after = replace(self.launch(tmp_path), start=Start(model=training.model))
        assert self.created(server, after) != anew
        (job_id,) = backend.find(after.key, after.folder)
        last = self.follow(job_id)[-1]
        assert last.state is State.SUCCEEDED, last.error
        assert last.model is not None
        assert last.model.name != training.model.name

    def test_job_among_many_is_found(
        self, backend: Backend, behavior: ServerBehavior, tmp_path: Path
    ) -> None:
        """Lists are paged, and pages may overlap; the job need not be on the first page."""
        launches = [self.launch(tmp_path) for _ in range(JOBS)]
        jobs = [backend.submit(launch) for launch in launches]
        if isinstance(backend, ListsJobs):
            page = backend.list_jobs("")
            states = {**page.states}
            while page.cursor:
                page = backend.list_jobs(page.cursor)
                states |= page.states
            assert {states[job_id] for job_id in jobs} <= NEW
        behavior.lists_repeat = True
        assert jobs == [
            job_id for launch in launches for job_id in backend.find(launch.key, tmp_path)
        ]

    def test_validation_rows_are_sent(self, server: Server, tmp_path: Path) -> None:
        without = self.created(server, replace(self.launch(tmp_path), validation=None))
        assert self.created(server, self.launch(tmp_path)) != without, (
            "the create call is the same with and without validation rows"
        )

    @pytest.mark.usefixtures("server")
    def test_file_of_other_content_under_one_path_is_another(self, tmp_path: Path) -> None:
        """A file identified by its path would train a job on another job's rows."""
        first = self.launch(tmp_path)
        assert self.upload(tmp_path / "train.jsonl", self.rows[:2]).ref != first.training.ref

    def test_settings_of_an_answer_are_sent(self, backend: Backend, server: Server) -> None:
        """Without limit, temperature or stop, the answer would be another one."""
        settings = {"max_tokens": 37, "temperature": 0.625, "stop": ("qzx",)}
        before = len(server.requests)
        reply_once(backend.chat(self.base_model()), QUESTION.model_copy(update=settings))
        sent = {
            part
            for request in server.requests[before:]
            if request.method == "POST"
            for part in _parts(json.loads(request.body or b"null"))
        }
        assert {37, 0.625, "qzx", QUESTION.messages[0].text} - sent == set()


def _parts(value: JsonValue) -> Iterator[str | float | int]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _parts(part)
    elif isinstance(value, str | float | int):
        yield value


@dataclass(slots=True)
class Tally:
    """Results of the polls."""

    polls: int = 0  # number of reading calls of every kind
    # Number of each unitune error, without ids
    refusals: Counter[str] = field(default_factory=Counter[str])
    # Number of each other exception, by type and line
    crashes: Counter[str] = field(default_factory=Counter[str])

    def call(self, act: Callable[[], T]) -> T | None:
        """Call once and count the outcome; return None after an error."""
        self.polls += 1
        try:
            return act()
        except UnituneError as error:
            if isinstance(error.__cause__, UNREADABLE):
                self._crashed(error.__cause__)
            else:
                self.refusals[f"{type(error).__name__}: {error}"] += 1
        except Exception as error:  # noqa: BLE001 - the test checks that there is none
            self._crashed(error)
        return None

    def _crashed(self, error: BaseException) -> None:
        *_, at = (
            at for at in traceback.extract_tb(error.__traceback__) if "unitune" in at.filename
        )
        where = f"{Path(at.filename).name}, {at.name}: {at.line}"
        self.crashes[f"{type(error).__name__} in {where}"] += 1


def poll_without_fields(
    backend: Backend,
    launch: Callable[[], Launch],
    behavior: ServerBehavior | Server,
    omits: Omissions,
    polls: int,
) -> Tally:
    """Follow jobs at a vendor that omits fields, until at least `polls` calls were made."""
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
        seen = tally.call(partial(_sound_poll, backend, job_id, cursor))
        if seen is not None:
            status, cursor = seen, seen.cursor
        if status is not None and status.state.ended:
            break
    return status


def _looks(
    backend: Backend, launch: Launch, job_id: str, status: Status | None
) -> Iterator[Callable[[], object]]:
    yield partial(backend.find, launch.key, launch.folder)
    if isinstance(backend, ListsJobs):
        yield partial(backend.list_jobs, "")
    if isinstance(backend, Checkpoints):
        yield partial(backend.checkpoints, job_id, launch.job.base_model)
    if isinstance(backend, Imports):
        yield partial(backend.import_job, job_id)
    for model in (launch.job.base_model, status and status.model):
        if model is not None:
            yield partial(_answer, backend, model)


def _answer(backend: Backend, model: str | TunedModel) -> Reply:
    return reply_once(backend.chat(model))


def _sound_poll(backend: Backend, job_id: str, cursor: str) -> Status:
    status = backend.poll(job_id, cursor)
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
