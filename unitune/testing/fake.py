"""Define a scripted backend for tests, found by the real registry under ``fake``.

Its "vendor" is a folder, so that jobs outlive processes: ``UNITUNE_FAKE_DIR``, or else ``fake`` in
the run's folder. A job is a folder of files that are written once or only grow, and follows its
`Script`. In ``UNITUNE_FAKE_DIR``, ``untuned.json`` (`Answers`) holds answers of untuned models and
``batches.json`` the script of batches (`unitune.testing.fake_vendor`).

Tests may set `FakeBackend.guarantee`: with `own id` and `token`, a second create call with the same
key returns the first job; otherwise it creates another.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import ClassVar

from unitune.backends.capabilities import JobDescription
from unitune.backends.options import job_options
from unitune.backends.protocol import Guarantee, Launch, State, Status, Upload
from unitune.data.example import Example, Message, digest
from unitune.documents import Frozen
from unitune.errors import BackendError, NotFoundError
from unitune.models import ChatModel, Reply, Request, Start, TunedModel
from unitune.testing.fake_vendor import (
    STATES,
    Answers,
    FakeBatches,
    Moment,
    Script,
    count,
    create_call,
    events,
    moment,
    tick,
    vendor_folder,
    write,
)


class FakeJob(Frozen):
    """A job of the fake vendor; ``job.json`` in its folder."""

    key: str
    base: str
    training: Upload
    script: Script
    start: Start | None = None
    started: float  # seconds since 1970, UTC


class Stopped(Frozen):
    """Progress of a cancelled or paused job; ``cancelled.json``, ``paused.json``."""

    polls: int
    steps: int


class FakeBackend(FakeBatches):
    """Backend with scripted jobs and answers."""

    name: ClassVar[str] = "fake"
    capabilities = ("Pauses", "DescribesJobs")
    guarantee: ClassVar[Guarantee] = Guarantee.OWN_ID

    def upload(self, path: Path, sha256: str) -> Upload:
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise BackendError(f"{path} does not have the hash {sha256}.", status=400)
        kept = vendor_folder(path.parent) / "uploads" / sha256
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_suffix(f".{os.getpid()}")
            shutil.copyfile(path, draft)
            draft.replace(kept)
        return Upload(str(kept), sha256)

    def submit(self, launch: Launch) -> str:
        script = job_options(launch.job, "fake", Script)
        vendor = vendor_folder(launch.folder)
        calls = tick(vendor / f"{launch.key.rpartition('-')[0]}.creates")
        return create_call(
            script.submits, calls, "job", lambda: self._create(vendor, launch, script)
        )

    def find(self, launch_key: str, folder: Path) -> list[str]:
        return sorted(
            str(job.parent) for job in vendor_folder(folder).glob(f"{launch_key}.*/job.json")
        )

    def poll(self, job_id: str, cursor: str) -> Status:
        folder, job = Path(job_id), _existing(job_id)
        now = _moment(folder, job, tick(folder / "polls"))
        happened = events(job.script, now, job.started)
        state = STATES.get(now.word, State.UNKNOWN)
        return Status(
            state=state,
            raw=now.word,
            events=happened[int(cursor or 0) :],
            cursor=str(len(happened)),
            model=_tuned(job_id, job) if state is State.SUCCEEDED else None,
            error=f"the fake fails after step {now.steps}" if state is State.FAILED else None,
        )

    def describe_job(self, job_id: str) -> JobDescription:
        job = _existing(job_id)
        return JobDescription(job.key, job.base, job.training.ref)

    def cancel(self, job_id: str) -> None:
        """Stop the job; its next poll shows cancelling, the one after it cancelled."""
        stopped = _as_it_stands(job_id)
        if not (Path(job_id) / "cancelled.json").exists():
            write(Path(job_id) / "cancelled.json", stopped)

    def pause(self, job_id: str) -> None:
        """Pause a job; it catches up at once when resumed."""
        write(Path(job_id) / "paused.json", _as_it_stands(job_id))

    def resume(self, job_id: str) -> None:
        _existing(job_id)
        paused = Path(job_id) / "paused.json"
        if paused.exists():
            paused.unlink()
        else:
            (Path(job_id) / "resumed").touch()

    def chat(self, model: str | TunedModel) -> ChatModel:
        if isinstance(model, str):
            return FakeChatModel(model, _untuned())
        try:
            job = _existing(model.name)
        except BackendError as error:
            raise NotFoundError("model", model.name, (), hint=str(error)) from error
        return FakeChatModel(job.key, job.script.tuned or _learned(Path(job.training.ref)))

    def _create(self, vendor: Path, launch: Launch, script: Script) -> str:
        repeatable = self.guarantee in (Guarantee.OWN_ID, Guarantee.TOKEN)
        folder = vendor / f"{launch.key}.{'job' if repeatable else secrets.token_hex(4)}"
        if not (folder / "job.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            job = FakeJob(
                key=launch.key,
                base=launch.job.base_model,
                training=launch.training,
                script=script,
                start=launch.start,
                started=time.time(),
            )
            write(folder / "job.json", job)
        return str(folder)


class FakeChatModel(ChatModel):
    """A model with scripted answers."""

    def __init__(self, name: str, answers: Answers) -> None:
        self._answers = answers
        self.fingerprint = f"fake:{name}:{digest(answers.model_dump(mode='json'))}"

    async def reply(self, request: Request) -> Reply:
        question = _question(request.messages)
        if question in self._answers.errors:
            return Reply(error=self._answers.errors[question], finish_reason="error")
        text = self._answers.replies.get(question, self._answers.otherwise)
        words = sum(len(message.text.split()) for message in request.messages)
        return Reply(
            text=text, prompt_tokens=words, completion_tokens=len(text.split()), seconds=0.0
        )


def _existing(job_id: str) -> FakeJob:
    try:
        return FakeJob.model_validate_json((Path(job_id) / "job.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise BackendError(f"the fake has no job {job_id!r}.", status=404) from error
    except ValueError as error:
        raise BackendError(f"the fake's job {job_id!r} is damaged: {error}", status=500) from error


def _moment(folder: Path, job: FakeJob, polls: int) -> Moment:
    if (cancelled := _stopped(folder / "cancelled.json")) is not None:
        word = "cancelled" if polls > cancelled.polls + 1 else "cancelling"
        return Moment(word, cancelled.steps)
    if (paused := _stopped(folder / "paused.json")) is not None:
        return Moment("paused", paused.steps)
    ticks = polls
    if job.script.seconds_per_step:
        ticks = 1 + int((time.time() - job.started) / job.script.seconds_per_step)
    resumed = (folder / "resumed").exists()
    first_attempt = job.key.endswith("-1")
    return moment(job.script, ticks, resumed=resumed, first_attempt=first_attempt)


def _as_it_stands(job_id: str) -> Stopped:
    folder, job = Path(job_id), _existing(job_id)
    polls = count(folder / "polls")
    now = _moment(folder, job, polls)
    if STATES.get(now.word, State.UNKNOWN).ended:
        raise BackendError(f"job {job_id} has already {now.word}.", status=409)
    return Stopped(polls=polls, steps=now.steps)


def _stopped(file: Path) -> Stopped | None:
    return Stopped.model_validate_json(file.read_text("utf-8")) if file.exists() else None


def _tuned(job_id: str, job: FakeJob) -> TunedModel:
    return TunedModel(
        backend=FakeBackend.name, name=job_id, base=job.base, data_fingerprint=job.training.sha256
    )


def _untuned() -> Answers:
    chosen = os.environ.get("UNITUNE_FAKE_DIR")
    file = Path(chosen) / "untuned.json" if chosen else None
    if file is None or not file.exists():
        return Answers()
    return Answers.model_validate_json(file.read_text(encoding="utf-8"))


def _learned(training: Path) -> Answers:
    try:
        lines = training.read_text(encoding="utf-8").splitlines()
        rows = [Example.model_validate_json(line) for line in lines]
    except (OSError, ValueError) as error:
        raise BackendError(
            f"the fake's rows {training} are damaged: {error}", status=500
        ) from error
    return Answers(replies={_question(row.prompt): row.answer or "" for row in rows})


def _question(messages: tuple[Message, ...]) -> str:
    texts = [message.text for message in messages if message.role == "user"]
    return texts[-1] if texts else ""
