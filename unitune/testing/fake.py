"""A backend without a trainer: public, scripted, and found by the real registry under ``fake``.

Its "vendor" is a folder, so that jobs outlive every process: ``UNITUNE_FAKE_DIR`` when set, else
``fake`` in the run's folder. A job there is a folder of files that are written once or only grow.
What a job does is in its `Script`; what an untuned model says, in ``untuned.json`` (`Answers`) in
``UNITUNE_FAKE_DIR``.

A test may set `FakeBackend.guarantee` to play the other kinds of vendors: with `own id` and `token`
a second create call with the same key finds the first job, else it makes another.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import time
from pathlib import Path
from typing import ClassVar, NoReturn

from pydantic import BaseModel, ConfigDict

from unitune.backend import Guarantee, Launch, State, Status, Upload
from unitune.data.example import Example, Message, digest
from unitune.errors import BackendError, UnknownName, Unreachable
from unitune.models import ChatModel, Reply, Request, TunedModel
from unitune.options import job_options
from unitune.testing.script import STATES, Answers, Fault, Moment, Script, events, moment


class FakeJob(BaseModel):
    """What the fake's vendor knows of a job; ``job.json`` in its folder."""

    model_config = ConfigDict(frozen=True)
    key: str
    base: str
    training: Upload
    script: Script
    started: float
    """Seconds since 1970, UTC."""


class Cancelled(BaseModel):
    """How far a job was when it was cancelled; ``cancelled.json`` in its folder."""

    model_config = ConfigDict(frozen=True)
    polls: int
    steps: int


class FakeBackend:
    """Scripted jobs and scripted answers."""

    name: ClassVar[str] = "fake"
    guarantee: ClassVar[Guarantee] = Guarantee.OWN_ID

    def upload(self, path: Path, sha256: str) -> Upload:
        """Keep a copy, named by its hash."""
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BackendError(f"{path} does not have the hash {sha256}.", status=400)
        kept = _vendor(path.parent) / "uploads" / sha256
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_suffix(f".{os.getpid()}")
            shutil.copyfile(path, draft)
            draft.rename(kept)
        return Upload(str(kept), sha256)

    def submit(self, launch: Launch) -> str:
        """Create a job, or do what the script says goes wrong."""
        script = _script(launch)
        vendor = _vendor(launch.folder)
        calls = _tick(vendor / f"{launch.key.rpartition('-')[0]}.creates")
        fault = script.submits[calls - 1] if calls <= len(script.submits) else Fault.NONE
        if fault is Fault.REFUSE:
            raise BackendError("the fake refuses this job.", status=400)
        if fault is Fault.LOSE_REQUEST:
            raise Unreachable("the fake could not be reached.")
        if fault is Fault.DIE_BEFORE:
            _die()
        job_id = self._create(vendor, launch, script)
        if fault is Fault.LOSE_ANSWER:
            raise Unreachable("the fake's answer was lost.")
        if fault is Fault.SERVER_ERROR:
            raise BackendError("the fake stumbled.", status=500)
        if fault is Fault.DIE_AFTER:
            _die()
        return job_id

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the jobs that carry the key."""
        return sorted(str(job.parent) for job in _vendor(folder).glob(f"{launch_key}.*/job.json"))

    def poll(self, job_id: str, cursor: str) -> Status:
        """Let a tick pass and say how the job stands."""
        folder, job = Path(job_id), _existing(job_id)
        now = _moment(folder, job, _tick(folder / "polls"))
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

    def cancel(self, job_id: str) -> None:
        """Stop the job where it is; its next poll says cancelling, the one after it cancelled."""
        folder, job = Path(job_id), _existing(job_id)
        polls = _count(folder / "polls")
        now = _moment(folder, job, polls)
        if STATES.get(now.word, State.UNKNOWN).ended:
            raise BackendError(f"job {job_id} has {now.word} already.", status=409)
        stopped = Cancelled(polls=polls, steps=now.steps)
        if not (folder / "cancelled.json").exists():
            _write(folder / "cancelled.json", stopped)

    def resume(self, job_id: str) -> None:
        """Let a paused job go on."""
        _existing(job_id)
        (Path(job_id) / "resumed").touch()

    def chat(self, model: str | TunedModel) -> ChatModel:
        """Return a model that answers from a script."""
        if isinstance(model, str):
            return FakeChatModel(model, _untuned())
        try:
            job = _existing(model.name)
        except BackendError as error:
            raise UnknownName("model", model.name, (), hint=str(error)) from error
        return FakeChatModel(job.key, job.script.tuned or _learned(Path(job.training.ref)))

    def _create(self, vendor: Path, launch: Launch, script: Script) -> str:
        one_a_key = self.guarantee in (Guarantee.OWN_ID, Guarantee.TOKEN)
        folder = vendor / f"{launch.key}.{'job' if one_a_key else secrets.token_hex(4)}"
        if not (folder / "job.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            job = FakeJob(
                key=launch.key,
                base=launch.job.base_model,
                training=launch.training,
                script=script,
                started=time.time(),
            )
            _write(folder / "job.json", job)
        return str(folder)


class FakeChatModel:
    """A model that answers from a script."""

    def __init__(self, name: str, answers: Answers) -> None:
        self._answers = answers
        self.fingerprint = f"fake:{name}:{digest(answers.model_dump(mode='json'))}"

    async def reply(self, request: Request) -> Reply:
        """Look the last user message up."""
        question = _question(request.messages)
        if question in self._answers.errors:
            return Reply(error=self._answers.errors[question], finish_reason="error")
        text = self._answers.replies.get(question, self._answers.otherwise)
        words = sum(len(message.text.split()) for message in request.messages)
        return Reply(
            text=text, prompt_tokens=words, completion_tokens=len(text.split()), seconds=0.0
        )

    def close(self) -> None:
        """Free nothing; there is nothing."""


def _vendor(run_folder: Path) -> Path:
    chosen = os.environ.get("UNITUNE_FAKE_DIR")
    return Path(chosen).absolute() if chosen else run_folder.absolute() / "fake"


def _script(launch: Launch) -> Script:
    return job_options(launch.job, "fake", Script)


def _existing(job_id: str) -> FakeJob:
    try:
        text = (Path(job_id) / "job.json").read_text(encoding="utf-8")
    except OSError as error:
        raise BackendError(f"the fake has no job {job_id!r}.", status=404) from error
    return FakeJob.model_validate_json(text)


def _moment(folder: Path, job: FakeJob, polls: int) -> Moment:
    cancelled = folder / "cancelled.json"
    if cancelled.exists():
        stopped = Cancelled.model_validate_json(cancelled.read_text(encoding="utf-8"))
        word = "cancelled" if polls > stopped.polls + 1 else "cancelling"
        return Moment(word, stopped.steps)
    ticks = polls
    if job.script.seconds_per_step:
        ticks = 1 + int((time.time() - job.started) / job.script.seconds_per_step)
    resumed = (folder / "resumed").exists()
    first_attempt = job.key.endswith("-1")
    return moment(job.script, ticks, resumed=resumed, first_attempt=first_attempt)


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
    lines = training.read_text(encoding="utf-8").splitlines()
    rows = [Example.model_validate_json(line) for line in lines]
    return Answers(replies={_question(row.prompt): row.answer or "" for row in rows})


def _question(messages: tuple[Message, ...]) -> str:
    asked = [message.text for message in messages if message.role == "user"]
    return asked[-1] if asked else ""


def _tick(file: Path) -> int:
    """Count one more, in a file that only grows, so that no process can lose another's count."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as growing:
        growing.write(b".")
        growing.flush()
        return growing.tell()


def _count(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _write(file: Path, content: BaseModel) -> None:
    """Write a file whole or not at all."""
    draft = file.with_suffix(f".{os.getpid()}")
    draft.write_text(content.model_dump_json(), encoding="utf-8")
    draft.rename(file)


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")
