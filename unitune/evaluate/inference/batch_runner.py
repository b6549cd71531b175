"""Answer test cases in batches: within a day, for about half the price.

A batch is recorded before it is submitted, and searched for before it is submitted again:

    announced, no id   searched for; adopted, or else submitted again with its key
    with an id         polled and collected, never submitted again
    no open question   cancelled if its id is known (cases, prompt or model have changed)
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from unitune.backends.capabilities import Batches, BatchStatus
from unitune.backends.exactly_once import batch_key
from unitune.backends.output_limit import widened
from unitune.backends.retry import delays, retry_delay, sleep
from unitune.errors import BackendError, Unreachable
from unitune.evaluate.documents.records import Record
from unitune.evaluate.inference.batches import (
    Batch,
    BatchFile,
    BatchSubmitter,
    Pair,
    batching_backend,
    decision_command,
)
from unitune.evaluate.inference.budget import most_tokens, uncounted, without_impossible_counts
from unitune.evaluate.inference.engine import (
    EvaluationProgress,
    Notify,
    Question,
    record_of,
    request_hash,
)
from unitune.evaluate.inference.journal import Journal
from unitune.models import Reply, Request, TunedModel

LONGEST_POLL_SECONDS = 60.0  # between two polls of a batch
# Between two progress calls during a pause, so that Ctrl-C also works in a notebook
BREATH_SECONDS = 1.0
SHORT_LOOKS = 3  # polls with fewer answers than are done, before those present are accepted
NOT_FOUND = 404
UNANSWERED = Reply(finish_reason="error", error="the batch ended without an answer to this request")


@dataclass(frozen=True, slots=True)
class BatchJob:
    """One contender's questions of distinct cases; `thinks` gives a higher output limit."""

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
        """Return a question as it is submitted."""
        return widened(question.request) if self.thinks else question.request

    def unanswered(self, rows: Journal) -> dict[Pair, Request]:
        """Return the questions without an answer, in order."""
        return {
            pair: self.request(question)
            for pair, question in self.requested().items()
            if rows.answer(self.contender, *pair) is None
        }

    def record(self, pair: Pair, question: Question, reply: Reply) -> Record:
        """Return the record of a reply."""
        request = self.request(question)
        most = most_tokens(request)
        reply = without_impossible_counts(most, replace(reply, max_tokens=request.max_tokens))
        record = record_of(self.contender, question, self.fingerprint, pair.request_hash, reply)
        return replace(record, uncounted=uncounted(most, reply))


def run_batches(
    jobs: Mapping[str, Sequence[BatchJob]],
    batches: BatchFile,
    rows: Journal,
    notify: Notify,
    announce: Callable[[str], None],
) -> dict[str, tuple[Record, ...]]:
    """Answer all jobs (by backend) in batches, except for the answers in the journal.

    Raises:
        Unsupported: The backend does not support batches, or not these.
        UserError: Several batches have one key.
        Unreachable: The state of a batch is not known yet.
        BackendError: A batch was refused or failed.
    """
    runners = [
        BatchRunner(batching_backend(name), name, jobs[name], batches, rows, notify, announce)
        for name in jobs
    ]
    for runner in runners:
        runner.cancel_unwanted()
        for batch_job in runner.jobs:
            runner.submit(batch_job)
    for runner in runners:
        runner.wait()
    return {
        batch_job.contender: runner.results(batch_job)
        for runner in runners
        for batch_job in runner.jobs
    }


@dataclass(slots=True)
class BatchRunner:
    """Submits and collects one backend's batches."""

    backend: Batches
    name: str
    jobs: Sequence[BatchJob]
    batches: BatchFile
    rows: Journal
    notify: Notify
    announce: Callable[[str], None]
    # Polls per batch that had fewer answers than are done
    short: Counter[str] = field(default_factory=Counter[str])
    done: dict[str, int] = field(default_factory=dict[str, int])  # number of answers by batch
    # Last progress shown, by contender
    progress: dict[str, EvaluationProgress] = field(default_factory=dict[str, EvaluationProgress])

    def cancel_unwanted(self) -> None:
        """Cancel batches without an open question, unless they have ended.

        A batch without an id is not searched for: if the vendor's list does not identify owners,
        the search might return someone else's batch.
        """
        wanted = {each.contender: each.unanswered(self.rows) for each in self.jobs}
        for batch in self.batches.open(self.name):
            if wanted.get(batch.contender, {}).keys().isdisjoint(batch.requests().values()):
                if batch.batch_id:
                    self._cancel(batch.batch_id)
                self.batches.change(batch, end="unwanted")

    def submit(self, batch_job: BatchJob) -> None:
        """Submit every open question in a batch."""
        missing = batch_job.unanswered(self.rows)

        def submitter(batch: Batch) -> BatchSubmitter:
            return BatchSubmitter(self.backend, self.name, self.batches, batch, self._sleep)

        def send(batch: Batch) -> None:
            requests = {key: missing.pop(pair) for key, pair in batch.requests().items()}
            submitter(batch).submit(batch_job.model, requests)

        for batch in self.batches.open(self.name, batch_job.contender):
            pairs = batch.requests().values()
            if batch.batch_id or submitter(batch).recover():
                for pair in pairs:
                    missing.pop(pair, None)
            elif missing.keys() >= set(pairs):
                send(batch)
            else:  # its questions have changed, and it was never accepted
                self.batches.change(batch, end="refused")
        if missing:
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
            send(batch)

    def wait(self) -> None:
        """Collect the batches of all jobs as they end. Raises BackendError if some failed."""
        submitted = {each.contender: self._open(each) for each in self.jobs}
        for pause in delays(LONGEST_POLL_SECONDS):
            failed: list[str] = []
            longest = pause
            for batch_job in self.jobs:
                for batch in self._open(batch_job):
                    longest = max(longest, self._poll(batch, batch_job, pause, failed))
                self._show(batch_job, submitted[batch_job.contender])
            left = sum(len(self._open(batch_job)) for batch_job in self.jobs)
            if failed:
                others = " and collects the other batches" if left else ""
                raise BackendError(
                    f"{' '.join(failed)} Run the same command again; it resumes{others}."
                )
            if not left:
                return
            self._sleep(longest)

    def _open(self, batch_job: BatchJob) -> list[Batch]:
        return self.batches.open(self.name, batch_job.contender)

    def _poll(self, batch: Batch, batch_job: BatchJob, pause: float, failed: list[str]) -> float:
        """Poll a batch, collect it if it has ended, and return the pause until the next poll."""
        assert batch.batch_id, "it was submitted"
        try:
            status = self.backend.poll_batch(batch.batch_id)
            ours = status.state != "ended" or self._collect(
                batch, batch.batch_id, status, batch_job
            )
        except BackendError as error:
            if error.is_retryable:
                return retry_delay(error, pause)
            raise self._explained(batch, error) from error
        if not ours:
            self.batches.change(batch, batch_id="")
            failed.append(
                f"batch {batch.batch_id} at {self.name} has ended, but holds the requests of "
                f"another batch than {batch.key}. The batch of {batch.contender} must still be "
                "found."
            )
            return pause
        if status.state == "failed":
            self.batches.change(batch, end="failed")
            failed.append(
                f"batch {batch.batch_id} of {batch.contender} at {self.name} failed: "
                f"{(status.error or status.raw).rstrip('.')}. None of its {len(batch.cases)} "
                "questions was answered. They are sent in a new batch or, without --batch, one by "
                "one."
            )
        done = len(batch.cases) if status.state == "ended" else status.done
        self.done[batch.key] = self.done.get(batch.key, 0) if done is None else done
        return pause

    def _collect(
        self, batch: Batch, batch_id: str, status: BatchStatus, batch_job: BatchJob
    ) -> bool:
        """Record the answers unless they are another's. Raises Unreachable if some are missing."""
        replies = self.backend.fetch_batch(batch_id)
        ours = replies.keys() & batch.requests().keys()
        if replies and not ours:
            return False
        if len(ours) < (status.done or 0) and self.short[batch.key] < SHORT_LOOKS:
            self.short[batch.key] += 1
            raise Unreachable(
                f"{self.name} reports {status.done} finished requests in batch {batch_id}, but "
                f"returned {len(ours)} answers."
            )
        requested = batch_job.requested()  # answers to other questions are no longer needed
        self.rows.append(
            batch_job.record(pair, requested[pair], replies.get(request_id, UNANSWERED))
            for request_id, pair in batch.requests().items()
            if pair in requested and self.rows.answer(batch.contender, *pair) is None
        )
        self.batches.change(batch, end="collected")
        with suppress(BackendError):  # the answers are recorded anyway
            self._cancel_doubles(batch, batch_id)
        return True

    def _cancel_doubles(self, batch: Batch, batch_id: str) -> None:
        """Cancel other batches with the same key, if one call created two batches."""
        ids = self.backend.find_batch(batch.key, batch.announced)
        doubles = set(ids) - self.batches.ids() if batch_id in ids else set[str]()
        if doubles:  # a vendor that does not identify owners returns the same batches for any key
            doubles -= {*self.backend.find_batch(batch_key(time.time()), batch.announced)}
        for double in sorted(doubles):
            self._cancel(double)
            self.announce(
                f"{self.name} has batch {double} in addition to {batch_id} of {batch.contender}: "
                "one call was sent twice on the network. The duplicate was cancelled; answers "
                "that it already had may be billed."
            )

    def _cancel(self, batch_id: str) -> None:
        try:
            self.backend.cancel_batch(batch_id)
        except BackendError as error:
            if error.status != NOT_FOUND:
                raise

    def _explained(self, batch: Batch, error: BackendError) -> BackendError:
        if error.status != NOT_FOUND:
            return error
        return BackendError(
            f"{error} If batch {batch.batch_id} no longer exists at {self.name}, and this is the "
            "account that submitted it, record that, then compare again: "
            + decision_command(batch.key, '"end":"failed"'),
            status=error.status,
            request_id=error.request_id,
        )

    def results(self, batch_job: BatchJob) -> tuple[Record, ...]:
        """Return the record of each question of a job."""
        name, pairs = batch_job.contender, batch_job.requested()
        records = tuple(filter(None, (self.rows.last(name, *pair) for pair in pairs)))
        assert len(records) == len(pairs), "every question was answered or in a batch"
        self.notify(EvaluationProgress(name, "test", batch_job.prompt, len(pairs), len(pairs)))
        return records

    def _show(self, batch_job: BatchJob, batches: Sequence[Batch]) -> None:
        if batches:
            name = batch_job.contender
            done = sum(self.done.get(batch.key, 0) for batch in batches)
            total = sum(len(batch.cases) for batch in batches)
            progress = EvaluationProgress(name, "batch", batch_job.prompt, done, total)
            self.progress[name] = progress
            self.notify(progress)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            sleep(min(left, BREATH_SECONDS))
            for progress in self.progress.values():
                self.notify(progress)
