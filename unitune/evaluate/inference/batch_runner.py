"""Test cases answered in batches: within a day, for about half the price.

Every contender's open questions are handed in first, each at its own backend, then all batches are
waited for, those of one backend together. A
batch is paid for once, as a launch is: it is written down before it is handed in
(`unitune.evaluate.inference.batch_file`) and looked for before it is handed in again
(`unitune.evaluate.inference.batch_submit`). Answers become records of the engine's kind, so what
was answered in a batch is not asked one by one, nor the other way round.

    announced, no id   looked for; found: adopted; not found: handed in again under its key
    with an id         polled and collected, never handed in again
    no open question   (cases, prompt or model have changed) cancelled, if its id is known

A batch of another backend in the same folder is left alone, and so is every batch when questions
are asked one by one. One process acts at a time: the one that holds ``rows.jsonl``.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from unitune.backends.capabilities import Batches, BatchStatus
from unitune.backends.launch_keys import batch_key
from unitune.backends.output_limit import widened
from unitune.backends.retry import delays, retry_delay, sleep
from unitune.errors import BackendError, Unreachable
from unitune.evaluate.inference.batch_file import Batch, BatchFile, Pair
from unitune.evaluate.inference.batch_submit import BatchSubmitter, batching_backend
from unitune.evaluate.inference.budget import uncounted, without_impossible_counts
from unitune.evaluate.inference.engine import (
    EvaluationProgress,
    Question,
    record_of,
    request_hash,
)
from unitune.evaluate.inference.journal import Journal
from unitune.evaluate.records import Record
from unitune.models import Reply, Request, TunedModel

LONGEST_POLL_SECONDS = 60.0
"""Between two looks at a batch: a minute is little in a day."""
BREATH_SECONDS = 1.0
"""Between two signs of life while nothing happens, so that Ctrl-C is heard in a notebook too."""
SHORT_LOOKS = 3
"""At a batch with fewer answers than are done; then those count that came."""
NOT_FOUND = 404
UNANSWERED = Reply(finish_reason="error", error="the batch ended without an answer to this request")


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What one contender is to answer in batches.

    Args:
        contender: Its name.
        prompt: The prompt that it goes into the test with, in words.
        model: As its backend knows it.
        fingerprint: Of that model.
        questions: With distinct cases.
        thinks: Whether the model is known to think before it answers, and so needs more room.
    """

    contender: str
    prompt: str
    model: str | TunedModel
    fingerprint: str
    questions: Sequence[Question]
    thinks: bool = False

    def requested(self) -> dict[Pair, Question]:
        """Return the questions, in order."""
        return {Pair(q.case, request_hash(self.fingerprint, q)): q for q in self.questions}

    def request(self, question: Question) -> Request:
        """Return a question as it is handed in."""
        request = question.request
        return widened(request) if self.thinks else request

    def unanswered(self, rows: Journal) -> dict[Pair, Request]:
        """Return what is asked and has no answer yet, in order."""
        return {
            pair: self.request(question)
            for pair, question in self.requested().items()
            if rows.answer(self.contender, *pair) is None
        }


def run_batches(
    jobs: Mapping[str, Sequence[BatchJob]],
    batches: BatchFile,
    rows: Journal,
    notify: Callable[[EvaluationProgress], None],
    announce: Callable[[str], None] | None = None,
) -> dict[str, tuple[Record, ...]]:
    """Have all jobs answered, except for the answers that are in the journal.

    Args:
        jobs: One a contender, by the name of the backend that answers.
        batches: What was handed in before, and is now.
        rows: Where answers are found and written.
        notify: Called as batches get on, and about once a second while they do not.
        announce: Called with what the user should know, a sentence.

    Returns:
        By contender one record a question, in their order.

    Raises:
        Unsupported: The backend cannot answer in batches, or not these.
        UserError: Several batches carry one key.
        Unreachable: What became of a batch that was handed in is not known yet.
        BackendError: A batch was refused or has failed.
    """
    runners = {
        name: BatchRunner(batching_backend(name), name, batches, rows, notify, announce)
        for name in jobs
    }
    for name, runner in runners.items():
        runner.drop_unwanted(jobs[name])
        for batch_job in jobs[name]:
            runner.submit(batch_job)
    for name, runner in runners.items():
        runner.wait_for(jobs[name])
    return {
        batch_job.contender: runner.results(batch_job)
        for name, runner in runners.items()
        for batch_job in jobs[name]
    }


@dataclass(slots=True)
class BatchRunner:
    """Where jobs are handed in and answers collected."""

    backend: Batches
    name: str
    batches: BatchFile
    rows: Journal
    notify: Callable[[EvaluationProgress], None]
    announce: Callable[[str], None] | None
    short: Counts[str] = field(default_factory=Counts[str])
    told: dict[str, EvaluationProgress] = field(default_factory=dict[str, EvaluationProgress])
    done: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def submitter(self) -> BatchSubmitter:
        """Where batches are submitted."""
        return BatchSubmitter(self.backend, self.name, self.batches, self._rest)

    def drop_unwanted(self, jobs: Sequence[BatchJob]) -> None:
        """Cancel what nobody waits for; one that has ended is left as it is.

        So is one without an id: where a vendor cannot tell whose a batch is, a search might find
        somebody else's.
        """
        wanted = {batch_job.contender: batch_job.unanswered(self.rows) for batch_job in jobs}
        for batch in self.batches.open(self.name):
            if wanted.get(batch.contender, {}).keys().isdisjoint(batch.requests().values()):
                if batch.batch_id:
                    self._cancel(batch.batch_id)
                self.batches.change(batch, end="unwanted")

    def submit(self, batch_job: BatchJob) -> None:
        """See to it that every open question of a batch_job is in a batch that the backend has."""
        missing = batch_job.unanswered(self.rows)
        for batch in self.batches.open(self.name, batch_job.contender):
            if batch.batch_id or self.submitter.recover(batch):
                for pair in batch.requests().values():
                    missing.pop(pair, None)
            elif missing.keys() >= set(batch.requests().values()):
                self._send(batch, batch_job, missing)
            else:  # its questions have changed in the meantime, and it was never taken
                self.batches.change(batch, end="refused")
        if missing:
            batch = self._announced(batch_job, missing)
            self._send(batch, batch_job, missing)

    def wait_for(self, jobs: Sequence[BatchJob]) -> None:
        """Collect the batches of all jobs as they end.

        Raises:
            BackendError: Some have failed; those that had ended by then are collected.
        """
        opened = {
            batch_job.contender: self.batches.open(self.name, batch_job.contender)
            for batch_job in jobs
        }
        for pause in delays(LONGEST_POLL_SECONDS):
            failed: list[str] = []
            longest = pause
            for batch_job in jobs:
                for batch in self.batches.open(self.name, batch_job.contender):
                    longest = max(longest, self._look(batch, batch_job, pause, failed))
                self._tell(batch_job, opened[batch_job.contender])
            left = sum(len(self.batches.open(self.name, each)) for each in opened)
            if failed:
                others = ", and collects the others" if left else ""
                raise BackendError(f"{' '.join(failed)} The same command goes on{others}.")
            if not left:
                return
            self._rest(longest)

    def results(self, batch_job: BatchJob) -> tuple[Record, ...]:
        """Return what came of each question of a batch_job."""
        found = [self.rows.last(batch_job.contender, *pair) for pair in batch_job.requested()]
        records = tuple(record for record in found if record is not None)
        assert len(records) == len(found), "every question was answered or in a batch"
        self.notify(
            EvaluationProgress(
                batch_job.contender, "test", batch_job.prompt, len(records), len(records)
            )
        )
        return records

    def _announced(self, batch_job: BatchJob, missing: dict[Pair, Request]) -> Batch:
        now = time.time()
        batch = Batch(
            key=batch_key(now),
            backend=self.name,
            contender=batch_job.contender,
            fingerprint=batch_job.fingerprint,
            announced=now,
            cases=tuple(pair.case for pair in missing),
            hashes=tuple(pair.request_hash for pair in missing),
        )
        self.batches.announce(batch)
        return batch

    def _send(self, batch: Batch, batch_job: BatchJob, missing: dict[Pair, Request]) -> None:
        """Hand a batch in; its questions are then missing no more."""
        requests = {request_id: missing.pop(pair) for request_id, pair in batch.requests().items()}
        self.submitter.submit(batch, batch_job.model, requests)

    def _look(self, batch: Batch, batch_job: BatchJob, pause: float, failed: list[str]) -> float:
        """Ask how a batch stands, and collect what has ended; return the pause until the next."""
        assert batch.batch_id, "it was handed in"
        try:
            status = self.backend.poll_batch(batch.batch_id)
            ours = status.state != "ended" or self._collected(batch, status, batch_job)
        except BackendError as error:
            if error.is_retryable:
                return retry_delay(error, pause)
            raise self._explained(batch, error) from error
        if not ours:
            self.batches.change(batch, batch_id="")
            failed.append(_mistaken(batch))
            return pause
        if status.state == "failed":
            self.batches.change(batch, end="failed")
            failed.append(_failure(batch, status))
        done = len(batch.cases) if status.state == "ended" else status.done
        self.done[batch.key] = self.done.get(batch.key, 0) if done is None else done
        return pause

    def _collected(self, batch: Batch, status: BatchStatus, batch_job: BatchJob) -> bool:
        """Write answers down, unless they are those to somebody else's requests.

        Raises:
            Unreachable: Fewer came than are done, which may be a file that was cut on its way.
        """
        assert batch.batch_id, "it was handed in"
        replies = self.backend.fetch_batch(batch.batch_id)
        ours = replies.keys() & batch.requests().keys()
        if replies and not ours:
            return False
        if len(ours) < (status.done or 0) and self.short[batch.key] < SHORT_LOOKS:
            self.short[batch.key] += 1
            raise Unreachable(
                f"{self.name} says that {status.done} requests of batch {batch.batch_id} are done, "
                f"and gives {len(ours)} answers."
            )
        asked = batch_job.requested()  # what is in the batch and asked no more, nobody needs
        self.rows.append(
            _record(batch_job, asked[pair], pair, replies.get(request_id, UNANSWERED))
            for request_id, pair in batch.requests().items()
            if pair in asked and self.rows.answer(batch.contender, *pair) is None
        )
        self.batches.change(batch, end="collected")
        self._end_doubles(batch, batch.batch_id)
        return True

    def _end_doubles(self, batch: Batch, batch_id: str) -> None:
        """Cancel what else carries the batch's key, where one call came to two batches; tell it."""
        with suppress(BackendError):  # the answers are there, whatever a list says
            found = self.backend.find_batch(batch.key, batch.announced)
            doubles = set(found) - self.batches.ids() if batch_id in found else set[str]()
            if doubles:  # a vendor that does not tell whose a batch is says the same of any key
                doubles -= {*self.backend.find_batch(batch_key(time.time()), batch.announced)}
            for double in sorted(doubles):
                self._cancel(double)
                if self.announce is None:
                    continue
                self.announce(
                    f"{self.name} has batch {double} beside {batch_id} of {batch.contender}: "
                    "something on the way has sent one call twice. It was cancelled; what it had "
                    "answered by then may be billed."
                )

    def _cancel(self, batch_id: str) -> None:
        try:
            self.backend.cancel_batch(batch_id)
        except BackendError as error:
            if error.status != NOT_FOUND:
                raise

    def _explained(self, batch: Batch, error: BackendError) -> BackendError:
        """Return an error with what to do about it, where the batch is said not to be there."""
        if error.status != NOT_FOUND:
            return error
        return BackendError(
            f"{error} If batch {batch.batch_id} is really gone from {self.name}, and this is the "
            "account that it was handed in from, write that down, then compare again: "
            f"""echo '{{"key":"{batch.key}","end":"failed"}}' >> {self.batches.path}""",
            status=error.status,
            request_id=error.request_id,
        )

    def _tell(self, batch_job: BatchJob, batches: Sequence[Batch]) -> None:
        if batches:
            done = sum(self.done.get(batch.key, 0) for batch in batches)
            total = sum(len(batch.cases) for batch in batches)
            asked = EvaluationProgress(batch_job.contender, "batch", batch_job.prompt, done, total)
            self.told[batch_job.contender] = asked
            self.notify(asked)

    def _rest(self, seconds: float) -> None:
        """Do nothing for a while but repeat what was told last."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            sleep(min(left, BREATH_SECONDS))
            for asked in self.told.values():
                self.notify(asked)


def _record(batch_job: BatchJob, question: Question, pair: Pair, reply: Reply) -> Record:
    request = batch_job.request(question)
    reply = without_impossible_counts(request, replace(reply, max_tokens=request.max_tokens))
    made = record_of(batch_job.contender, question, batch_job.fingerprint, pair.request_hash, reply)
    return replace(made, uncounted=uncounted(request, reply))


def _failure(batch: Batch, status: BatchStatus) -> str:
    words = (status.error or status.raw).rstrip(".")
    return (
        f"batch {batch.batch_id} of {batch.contender} at {batch.backend} has failed: {words}. None "
        f"of its {len(batch.cases)} questions was answered: they go into a new batch or, without "
        "--batch, are asked one by one."
    )


def _mistaken(batch: Batch) -> str:
    """Say that what was adopted, since nothing told whose it was, is not ours."""
    return (
        f"batch {batch.batch_id} at {batch.backend}, now that it has ended, turns out to hold the "
        f"requests of another batch than {batch.key}. That of {batch.contender} is still to be "
        "looked for."
    )
