"""`Run`: the handle on one durable launch, the same in every process that holds it.

It keeps nothing of its own: the properties show the ledger's record as it was last read, and what
acts takes the run's lease, reads again, and calls `unitune.run.launching`. Runs are launched and
found by `unitune.run.run`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

from unitune._shown import Shown
from unitune.backends.capabilities import Checkpoint
from unitune.backends.exports import Exported, ExportForm
from unitune.backends.protocol import WORSE, Event, State
from unitune.backends.retry import retry_delay
from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Reconciliation
from unitune.errors import BackendError, LockTimeout, RunFailed, UserError
from unitune.job.job import Job
from unitune.ledger import Ledger, RunRecord, Transition, budgeting
from unitune.models import Start, TunedModel
from unitune.run import creating, deleting, exporting, launching
from unitune.run.in_notebook import show_steps
from unitune.run.lineage import Lineage, lineage
from unitune.run.model_client import ModelClient
from unitune.run.notifying import notify_end
from unitune.tracking.feed import feeding, trackers_to_feed

SLOWEST_POLL_SECONDS = 5.0
MISSED_POLLS = 20  # polls in a row that may go unanswered before `watch` gives up; over a minute


class Run(Shown):
    """One durable launch."""

    def __init__(self, ledger: Ledger, record: RunRecord) -> None:
        self._ledger = ledger
        self._record = record

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.name!r} on {self.backend_name}: {self.state}>"

    @property
    def id(self) -> str:
        """Its name, for every command."""
        return self._record.id

    @property
    def name(self) -> str:
        """Name of its job, and in a sweep its values: ``triage learning_rate=0.0001``."""
        return self._record.name

    @property
    def state(self) -> State:
        """Where it stands, in our words."""
        return self._record.state

    @property
    def raw(self) -> str:
        """Where it stands, in the backend's words."""
        return self._record.raw

    @property
    def error(self) -> str | None:
        """Why it failed or is uncertain."""
        return self._record.error

    @cached_property
    def job(self) -> Job:
        """The job as it was launched."""
        return self._ledger.job(self.id)

    @property
    def folder(self) -> Path:
        """Where its files stand, on the machine that launched it."""
        return self._ledger.run_folder(self.id)

    @property
    def backend_name(self) -> str:
        """Who trains."""
        return self._record.backend

    @property
    def base_model(self) -> str:
        """Name of the base model at the backend."""
        return self._record.base_model

    @property
    def job_id(self) -> str | None:
        """The backend's id of the job, once there is one."""
        return self._record.job_id

    @property
    def launch_key(self) -> str:
        """The key that the job carries at the backend."""
        return self._record.launch_key

    @property
    def attempt(self) -> int:
        """Counted from 1; resuming a failed run begins the next."""
        return self._record.attempt

    @property
    def fingerprint(self) -> str:
        """`training_fingerprint` of what it trains."""
        return self._record.fingerprint

    @property
    def start(self) -> Start | None:
        """What its training goes on from; None: it begins at the base model."""
        return self._record.start

    @property
    def lineage(self) -> Lineage:
        """What it has gone on from, and what goes on from it."""
        return lineage(self._ledger, self._record)

    @property
    def created(self) -> datetime:
        """When it was launched, UTC."""
        return datetime.fromtimestamp(self._record.created, UTC)

    @property
    def updated(self) -> datetime:
        """When its record last changed, UTC."""
        return datetime.fromtimestamp(self._record.updated, UTC)

    @property
    def tuned_model(self) -> TunedModel | None:
        """The record of the model that it left behind; None unless it succeeded."""
        return self._record.model

    @cached_property
    def model(self) -> ModelClient:
        """The tuned model, for requests such as ``run.model.ask("Where is my parcel?")``.

        Raises:
            UserError: The run has no model, or none yet.
        """
        return ModelClient(self._ledger, self.id, exporting.model_of(self._record))

    @cached_property
    def base(self) -> ModelClient:
        """The untuned base of `model`, to hold its answers against; raises as `model` does."""
        return ModelClient(self._ledger, self.id, exporting.model_of(self._record), base=True)

    @cached_property
    def estimate(self) -> Estimate | None:
        """What it was estimated to cost; None on this machine, and where that is not on record."""
        approval = budgeting.approval_of(self._ledger, self.id)
        return approval and approval.estimate

    @property
    def reconciliation(self) -> Reconciliation | None:
        """What the newest attempt has cost beside its estimate, once it has ended."""
        return budgeting.reconciled(self._ledger, self._record)

    @property
    def interrupted(self) -> bool:
        """Whether its launch was begun, is not done, and no process is at it: `resume` goes on."""
        at_work = self._ledger.is_held(self.id)
        self._reload()  # after the lease was read: a launch may just have been done
        return not at_work and self.state in launching.BEFORE_JOB

    def events(self) -> list[Event]:
        """Return the recorded events of the current attempt, oldest first; polls nothing."""
        return [seen.event for seen in self._ledger.events(self.id, self.attempt)]

    @property
    def worse_than_start(self) -> str | None:
        """Why the model is worse than before the training, if it is known to be."""
        warnings = self._ledger.events(self.id, self.attempt, key="warning")
        marked = (seen.event.data for seen in warnings if WORSE in seen.event.data)
        return next((str(data["text"]) for data in marked), None)

    def transitions(self) -> list[Transition]:
        """Return the states that it went through, all attempts, oldest first."""
        return self._ledger.transitions(self.id)

    def refresh(self) -> Run:
        """Ask the backend once and write down what is new.

        An uncertain run looks for a job that carries its key, and adopts it if there is just one.

        Raises:
            Unreachable: No answer came.
        """
        self._reload()
        if launching.has_open_job(self._record) or self.state is State.UNCERTAIN:
            self._act(launching.refresh)
        return self

    def watch(self, poll_seconds: float = 0.5) -> Iterator[Event]:
        """Yield the recorded events, then those that come, until the run `is_at_rest`.

        Stopping to watch, Ctrl-C included, does nothing to the run. At its end the user is told as
        they have configured (`unitune.run.notifying`), and its job's trackers know all of it.

        Args:
            poll_seconds: Pause between two polls; grows to 5 seconds while nothing happens.

        Raises:
            Unreachable: The backend did not answer many times in a row.
        """
        with feeding(self._ledger, self._record, trackers_to_feed(self._ledger, self._record)):
            yield from self._watched(poll_seconds)

    def _watched(self, poll_seconds: float) -> Iterator[Event]:
        last_id, pause, missed, has_ended = 0, poll_seconds, 0, self.state.ended
        while True:
            failure = self._refresh_patiently(missed)
            if self.state.ended and not has_ended:  # one that ended before is no news
                notify_end(self._ledger, self._record)
            missed = 0 if failure is None else missed + 1
            fresh = self._ledger.events(self.id, self.attempt, last_id)
            for seen in fresh:
                last_id = seen.id
                yield seen.event
            if self.is_at_rest:
                return
            slower = min(pause * 1.5, max(SLOWEST_POLL_SECONDS, poll_seconds))
            pause = poll_seconds if fresh else slower
            self._rest(pause if failure is None else retry_delay(failure, pause))

    def hold_to_budget(self) -> Run:
        """End the run if it costs more than it may, by what is known without asking the backend.

        Raises:
            BackendError: The backend did not take the cancel; the next poll sends it again.
        """
        self._reload()
        if launching.has_open_job(self._record):
            self._act(launching.within_limits)
        return self

    def wait(self, poll_seconds: float = 0.5) -> Run:
        """Follow the run, as `watch` does, until it comes to rest; a notebook shows its steps.

        Raises:
            RunFailed: It failed; the message has the reason.
        """
        show_steps(self.id, self.watch(poll_seconds))
        if self.state is State.FAILED:
            raise RunFailed(f"run {self.id} failed: {self.error or self.raw or 'no reason given'}")
        return self

    def cancel(self) -> Run:
        """End the run; `watch` then shows cancelling and cancelled.

        Raises:
            UserError: It has ended otherwise already, or is uncertain.
        """
        if self.state is State.UNCERTAIN:
            self.refresh()
        return self._act(launching.cancel)

    @property
    def duplicates(self) -> list[str]:
        """The backend's ids of further jobs that were seen to carry the run's key."""
        warnings = self._ledger.events(self.id, self.attempt, key=creating.DUPLICATE)
        return [str(warning.event.data["job"]) for warning in warnings]

    def cancel_duplicate(self, job_id: str) -> None:
        """End a further job that carries the run's key, by its id; the run's own goes on.

        Raises:
            UserError: It is the run's own job, or does not carry the run's key.
        """
        with self._ledger.acting(self.id) as self._record:
            creating.cancel_duplicate(self._ledger, self._record, job_id)

    def pause(self) -> Run:
        """Stop the run for now; `watch` then shows paused, and `resume` goes on.

        Raises:
            UserError: It has no job yet, or has ended.
            Unsupported: Its backend cannot.
        """
        return self._act(launching.pause)

    def resume(self, *, adopt: str | None = None, resubmit: bool = False) -> Run:
        """Let the run go on from wherever it stopped; one that runs or succeeded is left alone.

        An interrupted launch is finished with exactly one job, a paused job goes on from its
        checkpoint, a failed run begins its next attempt, and a cancel is sent again. An uncertain
        run first looks once more for its job; if that shows, nothing need be decided.

        Args:
            adopt: For an uncertain run: the backend's id of the job that is its own.
            resubmit: For an uncertain run: there is no such job, so create one.

        Raises:
            UserError: It was cancelled, or it is uncertain and neither way out is given.
            Unsupported: It is paused at a backend that cannot resume.
            UnituneError: The backend refused or did not answer.
        """
        self._reload()
        if self.state is State.UNCERTAIN and self.refresh().job_id not in (None, adopt):
            if adopt is None:
                return self
            raise UserError(
                f"run {self.id} has just found its own job, {self.job_id}, by its key; {adopt} is "
                f"not adopted. Follow it: unitune watch {self.id}"
            )
        return self._act(partial(launching.resume, adopt_id=adopt, resubmit=resubmit))

    def checkpoints(self) -> list[Checkpoint]:
        """Return the models saved during the training, oldest first; raises as `download`."""
        return exporting.checkpoints(self._record)

    def download(self, folder: str | os.PathLike[str], *, step: int | None = None) -> Path:
        """Write the weights of the tuned model into a folder, and return the file.

        Args:
            folder: Made when it is not there.
            step: Of a checkpoint; None for the model that the run ended with.

        Raises:
            UserError: There is no model, or no such checkpoint; Unsupported: nor any download.
        """
        return exporting.download(self._record, Path(folder), step)

    def export(
        self,
        to: ExportForm,
        folder: str | os.PathLike[str] | None = None,
        *,
        quantization: str | None = None,
    ) -> Exported:
        """Write the tuned model in another program's form, verified by its answers.

        Raises as `download`, and a `Mismatch` where it would answer otherwise; that is not kept.

        Args:
            to: What it is made for.
            folder: That it becomes, not there yet; by default named after job and form, here.
            quantization: What its weights are rounded to, such as Q8_0; None: the form's usual.
        """
        return exporting.export(self._ledger, self._record, to, folder, quantization)

    def inventory(self, *, reports: bool = False) -> list[str]:
        """Return what `delete` would delete, a line each; raises as `delete` does."""
        return deleting.inventory(self._ledger, self._record, reports=reports)

    def delete(self, *, force: bool = False, reports: bool = False) -> list[str]:
        """Delete what the run alone has left: model and files at the backend, its folder, its rows.

        Args:
            force: Forget the run even if something cannot be deleted.
            reports: Delete the reports of its evaluation, too.

        Returns:
            A sentence for each object that could not be deleted; the run is then still in the
            ledger, unless forced. Nothing: there is no such run any more.

        Raises:
            UserError: It has not ended, or a deployment of its model stands.
        """
        with self._ledger.acting(self.id) as self._record:
            return deleting.delete(self._ledger, self._record, force=force, reports=reports)

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing more will happen before a user acts, as of the last look."""
        if self.state in launching.BEFORE_JOB:
            return self.interrupted
        return self.state.ended or self.state in (State.PAUSED, State.UNCERTAIN)

    def _rest(self, seconds: float) -> None:
        """Wait between two polls; a long wait holds the run to its budget."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLOWEST_POLL_SECONDS))
            if left > SLOWEST_POLL_SECONDS:
                with suppress(BackendError, LockTimeout):  # until the next poll
                    self.hold_to_budget()

    def _refresh_patiently(self, missed: int) -> BackendError | LockTimeout | None:
        """Refresh, and return why that has not worked, as so many times in a row before."""
        try:
            self.refresh()
        except (BackendError, LockTimeout) as error:
            if missed >= MISSED_POLLS or not (isinstance(error, LockTimeout) or error.is_retryable):
                raise
            return error
        return None

    def _reload(self) -> None:
        self._record = self._ledger.record(self.id)

    def _act(self, step: Callable[[Ledger, RunRecord], RunRecord]) -> Run:
        """Be the process that acts for the run, and take it a step on from its present record."""
        with self._ledger.acting(self.id) as current:
            self._record = current  # as it is should the step fail
            self._record = step(self._ledger, current)
        return self
