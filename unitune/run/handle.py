"""Define `Run`, the handle on one durable launch, which is the same in every process.

Properties show the ledger's record as last read. Methods that act take the run's lease, read the
record again and call `unitune.run.launching`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

from unitune._shown import Shown
from unitune.backends.capabilities import Checkpoint
from unitune.backends.local_capabilities import Exported, ExportForm
from unitune.backends.protocol import Event, State
from unitune.backends.retry import retry_delay
from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Reconciliation
from unitune.errors import BackendError, LockTimeout, RunFailed, UserError, WaitTimeout
from unitune.job.job import Job
from unitune.ledger import Ledger, RunRecord, Transition, budgeting
from unitune.ledger.finding import Lineage, lineage
from unitune.models import Start, TunedModel
from unitune.run import creating, deleting, exporting, launching
from unitune.run.curves import show_steps
from unitune.run.model_client import ModelClient
from unitune.run.notifying import notify_end
from unitune.tracking.feed import feeding, trackers_to_feed
from unitune.workspace.user_settings import Bound

SLOWEST_POLL_SECONDS = 5.0
MISSED_POLLS = 20  # unanswered polls in a row before `watch` gives up; over a minute


class Run(Bound, Shown):
    """One durable launch."""

    def __init__(self, ledger: Ledger, record: RunRecord) -> None:
        self._ledger = ledger
        self._record = record

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.name!r} on {self.backend_name}: {self.state}>"

    @property
    def id(self) -> str:
        """Id, accepted by every command."""
        return self._record.id

    @property
    def name(self) -> str:
        """Name of the job; in a sweep with its values: ``triage learning_rate=0.0001``."""
        return self._record.name

    @property
    def state(self) -> State:
        """State as defined by unitune."""
        return self._record.state

    @property
    def raw(self) -> str:
        """State as reported by the backend."""
        return self._record.raw

    @property
    def error(self) -> str | None:
        """Reason why it failed or is uncertain."""
        return self._record.error

    @cached_property
    def job(self) -> Job:
        """The launched job."""
        return self._ledger.job(self.id)

    @property
    def folder(self) -> Path:
        """Folder of its files, on the machine that launched it."""
        return self._ledger.run_folder(self.id)

    @property
    def backend_name(self) -> str:
        """Name of the backend."""
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
        """Number of the attempt, from 1; resuming a failed run begins the next."""
        return self._record.attempt

    @property
    def fingerprint(self) -> str:
        """`training_fingerprint` of the training."""
        return self._record.fingerprint

    @property
    def start(self) -> Start | None:
        """Model that the training starts from; None for the base model."""
        return self._record.start

    @property
    def lineage(self) -> Lineage:
        """Runs that it continues from, and runs that continue from it."""
        return lineage(self._ledger, self._record)

    @property
    def created(self) -> datetime:
        """Time of the launch, UTC."""
        return datetime.fromtimestamp(self._record.created, UTC)

    @property
    def updated(self) -> datetime:
        """Time of the last change of its record, UTC."""
        return datetime.fromtimestamp(self._record.updated, UTC)

    @property
    def tuned_model(self) -> TunedModel | None:
        """Record of the tuned model; None unless the run succeeded."""
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
        """The untuned base of `model`, for comparison; raises as `model` does."""
        return ModelClient(self._ledger, self.id, exporting.model_of(self._record), base=True)

    @cached_property
    def estimate(self) -> Estimate | None:
        """Estimated cost; None for a local training or if it was not recorded."""
        approval = budgeting.approval_of(self._ledger, self.id)
        return approval and approval.estimate

    @property
    def reconciliation(self) -> Reconciliation | None:
        """Actual and estimated cost of the newest attempt, once it has ended."""
        return budgeting.reconciled(self._ledger, self._record)

    @property
    def interrupted(self) -> bool:
        """True if its launch is unfinished and no process works on it; call `resume`."""
        at_work = self._ledger.is_held(self.id)
        self._reload()  # after reading the lease: a launch may just have finished
        return not at_work and self.state in launching.BEFORE_JOB

    def events(self) -> list[Event]:
        """Return the recorded events of the current attempt, oldest first, without polling."""
        return [seen.event for seen in self._ledger.events(self.id, self.attempt)]

    @property
    def worse_than_start(self) -> str | None:
        """Reason why the model is known to be worse than before the training."""
        return self._ledger.worse_than_start(self._record)

    def transitions(self) -> list[Transition]:
        """Return the state changes of all attempts, oldest first."""
        return self._ledger.transitions(self.id)

    def refresh(self) -> Run:
        """Poll the backend once and record what is new; raise `Unreachable` without an answer.

        For an uncertain run, search for jobs with its key and adopt the job if there is only one.
        """
        self._reload()
        if launching.has_open_job(self._record) or self.state is State.UNCERTAIN:
            self._act(launching.refresh)
        return self

    def watch(self, poll_seconds: float = 0.5, *, timeout: float | None = None) -> Iterator[Event]:
        """Yield recorded events, then new ones, until the run `is_at_rest`.

        Stopping the iteration, Ctrl-C included, does not affect the run. When the run ends, the
        user is notified as configured (`unitune.run.notifying`) and its trackers are up to date.

        Args:
            poll_seconds: Pause between polls; grows to 5 seconds while nothing happens.
            timeout: Seconds to watch; a poll or tracker under way is completed. None for no limit.

        Raises:
            WaitTimeout: The run is not at rest in time; it continues.
            Unreachable: The backend did not answer many polls in a row.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        last_id, pause, missed, has_ended = 0, poll_seconds, 0, self.state.ended
        with feeding(self._ledger, self._record, trackers_to_feed(self._ledger, self._record)):
            while True:
                failure = self._refresh_patiently(missed)
                if self.state.ended and not has_ended:  # do not notify of an earlier end
                    notify_end(self._ledger, self._record)
                missed = 0 if failure is None else missed + 1
                fresh = self._ledger.events(self.id, self.attempt, last_id)
                for seen in fresh:
                    last_id = seen.id
                    yield seen.event
                if self.is_at_rest:
                    return
                if (left := until - time.monotonic()) <= 0:
                    raise WaitTimeout(f"run {self.id} is {self.state} and continues. Wait again.")
                slower = min(pause * 1.5, max(SLOWEST_POLL_SECONDS, poll_seconds))
                pause = poll_seconds if fresh else slower
                self._rest(min(left, pause if failure is None else retry_delay(failure, pause)))

    def hold_to_budget(self) -> Run:
        """Cancel the run if its known cost exceeds its limit, without polling the backend.

        Raises:
            BackendError: The backend did not accept the cancel; the next poll sends it again.
        """
        self._reload()
        if launching.has_open_job(self._record):
            self._act(launching.within_limits)
        return self

    def wait(self, poll_seconds: float = 0.5, *, timeout: float | None = None) -> Run:
        """Watch the run until it is at rest; arguments as in `watch`. A notebook shows its steps.

        Raises:
            WaitTimeout: The run is not at rest in time; it continues.
            RunFailed: The run failed; the message gives the reason.
        """
        show_steps(self.id, self.watch(poll_seconds, timeout=timeout))
        if self.state is State.FAILED:
            raise RunFailed(f"run {self.id} failed: {self.error or self.raw or 'no reason given'}")
        return self

    def cancel(self) -> Run:
        """Cancel the run; `watch` then shows cancelling and cancelled.

        Raises:
            UserError: It has already ended in another state, or is uncertain.
        """
        if self.state is State.UNCERTAIN:
            self.refresh()
        return self._act(launching.cancel)

    @property
    def duplicates(self) -> list[str]:
        """Ids of further jobs that carry the run's key."""
        warnings = self._ledger.events(self.id, self.attempt, key=creating.DUPLICATE)
        return [str(warning.event.data["job"]) for warning in warnings]

    def cancel_duplicate(self, job_id: str) -> None:
        """Cancel a further job with the run's key; raise `UserError` for any other job."""
        with self._ledger.acting(self.id) as self._record:
            creating.cancel_duplicate(self._ledger, self._record, job_id)

    def pause(self) -> Run:
        """Pause the run until `resume`.

        Raises:
            UserError: It has no job yet, or has ended.
            Unsupported: Its backend cannot pause jobs.
        """
        return self._act(launching.pause)

    def resume(self, *, adopt: str | None = None, resubmit: bool = False) -> Run:
        """Continue the run from where it stopped; do nothing if it runs or succeeded.

        Finish an interrupted launch with exactly one job, continue a paused job from its
        checkpoint, begin the next attempt of a failed run, or send a cancel again. For an uncertain
        run, search once more for its job first.

        Args:
            adopt: Id of the backend's job that belongs to an uncertain run.
            resubmit: Create a new job for an uncertain run, because it has none.

        Raises:
            UserError: The run was cancelled, or it is uncertain and neither argument is given.
            Unsupported: It is paused at a backend that cannot resume jobs.
            UnituneError: The backend refused the request or did not answer.
        """
        self._reload()
        if self.state is State.UNCERTAIN and self.refresh().job_id not in (None, adopt):
            if adopt is None:
                return self
            raise UserError(
                f"run {self.id} is already matched to job {self.job_id} by its key; ignoring "
                f"--adopt {adopt}. Follow it: unitune runs watch {self.id}"
            )
        return self._act(partial(launching.resume, adopt_id=adopt, resubmit=resubmit))

    def checkpoints(self) -> list[Checkpoint]:
        """Return the models saved during the training, oldest first; raises as `download`."""
        return exporting.checkpoints(self._record)

    def download(self, folder: str | os.PathLike[str], *, step: int | None = None) -> Path:
        """Download the weights of the tuned model into a folder, and return the file.

        Args:
            folder: Target folder; created if missing.
            step: Step of a checkpoint; None for the final model.

        Raises:
            UserError: The run has no model, or no such checkpoint.
            Unsupported: The backend does not offer weights.
        """
        return exporting.download(self._record, Path(folder), step)

    def export(
        self,
        to: ExportForm,
        folder: str | os.PathLike[str] | None = None,
        *,
        quantization: str | None = None,
    ) -> Exported:
        """Export the tuned model for another program and verify its answers.

        Raises as `download`, and `Mismatch` if the export answers differently; it is then removed.

        Args:
            to: Form of the export.
            folder: Folder to create; by default named after job and form, in the current folder.
            quantization: Rounding of the weights, such as Q8_0; None for the form's default.
        """
        return exporting.export(self._ledger, self._record, to, folder, quantization)

    def inventory(self, *, reports: bool = False) -> list[str]:
        """List what `delete` would delete, one item per line; raises as `delete` does."""
        return deleting.inventory(self._ledger, self._record, reports=reports)

    def delete(self, *, force: bool = False, reports: bool = False) -> list[str]:
        """Delete the run's model and files at the backend, its folder and its ledger records.

        Args:
            force: Remove the run from the ledger even if something cannot be deleted.
            reports: Also delete the reports of its evaluation.

        Returns:
            A sentence for each object that could not be deleted. If there are any, the run stays in
            the ledger unless forced.

        Raises:
            UserError: It has not ended, or a deployment of its model is running.
        """
        with self._ledger.acting(self.id) as self._record:
            return deleting.delete(self._ledger, self._record, force=force, reports=reports)

    @property
    def is_at_rest(self) -> bool:
        """True if nothing more happens until a user acts, by the last record read."""
        if self.state in launching.BEFORE_JOB:
            return self.interrupted
        return self.state.ended or self.state in (State.PAUSED, State.UNCERTAIN)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLOWEST_POLL_SECONDS))
            if left > SLOWEST_POLL_SECONDS:
                with suppress(BackendError, LockTimeout):  # until the next poll
                    self.hold_to_budget()

    def _refresh_patiently(self, missed: int) -> BackendError | LockTimeout | None:
        """Refresh; return a retryable error unless too many polls in a row were missed."""
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
        with self._ledger.acting(self.id) as current:
            self._record = current  # kept if the step fails
            self._record = step(self._ledger, current)
        return self
