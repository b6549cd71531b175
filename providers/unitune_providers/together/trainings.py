"""Manage files and trainings at Together AI; see `backend` for models and endpoints.

Jobs have no labels at Together, so the launch key is the suffix of the model's name, and `find`
reads the list of all jobs, which comes in one response. A checkpoint is named NAME:STEP, as in the
request of a training that starts from it.

Sources: together 3.1.1 (its SDK); togethercomputer/openapi, 2026-04-28.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import JsonValue

from unitune.backends.capabilities import Checkpoint, ImportedJob, JobDescription, JobPage
from unitune.backends.kit.api import REDIRECTS, Api, created_id
from unitune.backends.kit.connection import LARGEST_FILE
from unitune.backends.kit.errors import Endpoint
from unitune.backends.kit.hosted import (
    Cursor,
    HostedBackend,
    content_name,
    wait_for_file,
    without_none,
)
from unitune.backends.protocol import Event, Launch, State, Status, Upload
from unitune.errors import CONFLICT, BackendError, NotFoundError, Unreachable, Unsupported
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.progress import counted_file
from unitune_providers.together import options as settings
from unitune_providers.together.options import TogetherOptions, check_job

TRAININGS = ("v1", "fine-tunes")
FILES = ("v1", "files")
# Unit of a job's total_price, per US dollar (together 3.1.1, lib/utils/tools.py)
NANODOLLARS = 1_000_000_000
WAITING = ("PENDING", "QUEUED", "RUNNING")
REFUSED = ("FAILED", "INVALID_FORMAT")
STEP = "train/global_step"
LOSSES: Mapping[Literal["step", "validation"], str] = {
    "step": "train/loss",
    "validation": "eval/loss",
}
FAILURES = ("job_error", "billing_limit")


class TogetherTrainings(HostedBackend[TogetherOptions]):
    """Files and trainings of an account at Together AI."""

    capabilities = ("DescribesJobs", "ListsJobs", "Imports", "Checkpoints", "Quotes")
    address = "https://api.together.ai"
    address_variable = "TOGETHER_BASE_URL"
    key_variable = "TOGETHER_API_KEY"
    headers_variable = "TOGETHER_CUSTOM_HEADERS"
    options = TogetherOptions
    states: ClassVar[Mapping[str, State]] = {
        "pending": State.QUEUED,
        "queued": State.QUEUED,
        "running": State.RUNNING,
        "compressing": State.RUNNING,
        "uploading": State.RUNNING,
        "cancel_requested": State.CANCELLING,
        "cancelled": State.CANCELLED,
        "error": State.FAILED,
        "user_error": State.FAILED,
        "completed": State.SUCCEEDED,
    }

    def job_options(self, job: Job) -> TogetherOptions:
        """Return a job's options; also refuse options of another method."""
        options = super().job_options(job)
        check_job(options, job)
        return options

    def upload(self, path: Path, sha256: str) -> Upload:
        name, size = f"{content_name(sha256)}.jsonl", path.stat().st_size
        files = self.api.get(*FILES, action="list the files", largest=LARGEST_FILE).items("data")
        ref = next((file.text("id") for file in files if _is_sent(file, name, size)), None)
        ref = ref or self._send_file(path, name, sha256)
        wait_for_file(partial(self._is_valid, ref), f"together: file {ref}")
        return Upload(ref, sha256)

    def submit(self, launch: Launch) -> str:
        body = self._create_body(launch)
        created = self.api.post(*TRAININGS, action="create the training", body=body)
        return created_id(created, self.api.endpoint)

    def find(self, launch_key: str, folder: Path) -> list[str]:
        del folder
        return [ref for ref, job in self._jobs().items() if _carries(job, launch_key)]

    def describe_job(self, job_id: str) -> JobDescription:
        job = self._job(job_id)
        return JobDescription(*map(job.text, ("model_output_name", "model", "training_file")))

    def poll(self, job_id: str, cursor: str) -> Status:
        """Return the status of a job; its state is read first so that no event is missed."""
        job = self._job(job_id)
        action = f"list the events of training {job_id}"
        happened = self.api.get(*TRAININGS, job_id, "events", action=action).items("data")
        step = Cursor.read(cursor).counts.get("step")
        metrics = self.api.get(
            *(*TRAININGS, job_id, "metrics"),
            action=f"list the metrics of training {job_id}",
            query={} if step is None else {"global_step_from": step},
        )
        steps = max((event.whole("total_steps") or 0 for event in happened), default=0)
        messages = list(_messages(happened))
        events = [*messages, *_losses(metrics.items("metrics"), messages, steps or None)]
        status = self.status(job.text("status"), events, cursor, self._model(job), _error(happened))
        price = job.number("total_price")
        return replace(
            status,
            billed_tokens=job.whole("token_count") or None,
            billed_usd=Decimal(price) / NANODOLLARS if price else None,
        )

    def cancel(self, job_id: str) -> None:
        self.api.post(*TRAININGS, job_id, "cancel", action=f"cancel training {job_id}")

    def list_jobs(self, cursor: str) -> JobPage:
        """Return all jobs with their states, newest first, in one page."""
        del cursor
        jobs = self._jobs()
        newest = sorted(jobs, key=lambda ref: jobs[ref].text("created_at") or "", reverse=True)
        return JobPage({ref: self.state_of(jobs[ref].text("status")) for ref in newest})

    def limits(self, base: str) -> Fields | None:
        """Return Together's limits for a base model; None if it does not tune it."""
        query = {"model_name": base}
        return self.api.find(
            *TRAININGS, "models", "limits", action=f"read the limits of {base}", query=query
        )

    def quote(self, launch: Launch) -> Decimal:
        """Return Together's price of a training with uploaded files."""
        body = self._create_body(launch)
        priced = {name: body[name] for name in settings.PRICED if name in body}
        estimate = self.api.post(
            *(*TRAININGS, "estimate-price"),
            action="estimate the price",
            body=priced,
            changes_nothing=True,
        )
        price = estimate.number("estimated_total_price")
        if price is None or estimate.all.get("estimation_available") is False:
            reason = estimate.text("unavailable_reason") or "no reason given"
            raise Unsupported(f"together did not return a price for this training: {reason}.")
        return Decimal(str(price))

    def checkpoints(self, job_id: str, base: str) -> Sequence[Checkpoint]:
        model = self._model(self._job(job_id))
        name = model.name if model else job_id
        # A LoRA job lists each step twice, as adapter and merged model.
        kinds = {
            step: checkpoint.text("checkpoint_type")
            for checkpoint in self._list_checkpoints(job_id)
            if (step := checkpoint.whole("step")) is not None
        }
        return [
            Checkpoint(
                step=step,
                model=TunedModel(backend=self.name, name=f"{name}:{step}", base=base),
                metrics={"checkpoint_type": kinds[step]},
            )
            for step in sorted(kinds)
        ]

    def import_job(self, job_id: str) -> ImportedJob:
        job = self.api.find(*TRAININGS, job_id, action=f"read training {job_id}")
        if job is None:
            hint = "`tg fine-tuning list` lists existing trainings."
            raise NotFoundError("training at together", job_id, (), hint)
        succeeded = self.state_of(job.text("status")) is State.SUCCEEDED
        return ImportedJob(
            base_model=job.text("model") or "",
            method=job.fields("training_method").text("method") or "sft",
            training=self._content(job.text("training_file")),
            validation=self._content(job.text("validation_file")),
            tuning=settings.imported_tuning(job),
            options=settings.imported_options(job),
            model=self._model(job) if succeeded else None,
            start=job.text("from_checkpoint") or None,
            notes=settings.imported_notes(job),
        )

    def delete_file(self, ref: str) -> None:
        self.api.delete(*FILES, ref, action=f"delete file {ref}")

    def _send_file(self, path: Path, name: str, sha256: str) -> str:
        api, action = self.api, f"accept {path.name}"
        form = {"purpose": "fine-tune", "file_name": name, "file_type": "jsonl", "checksum": sha256}
        parts, expected = {key: (None, form[key]) for key in form}, (*REDIRECTS, CONFLICT)
        place = api.request("POST", *FILES, action=action, expected=expected, files=parts)
        if place.status == CONFLICT:  # a file with this content exists, possibly under another name
            return created_id(place.fields, api.endpoint, "file_id")
        address, ref = place.headers.get("location"), place.headers.get("x-together-file-id")
        if not address or not ref:
            raise Unreachable("together did not return an address for the upload.")
        with path.open("rb") as file:
            content = counted_file(file, f"uploading {path.name}")
            signed = Api(Endpoint(api.endpoint.vendor, address))  # without the key
            signed.request("PUT", action=action, content=content)
        api.post(*FILES, ref, "preprocess", action=f"validate file {ref}")
        return ref

    def _is_valid(self, ref: str) -> bool:
        file = self.api.get(*FILES, ref, action=f"read file {ref}")
        word = file.text("processing_status")
        if word in REFUSED:
            reason = file.fields("validation_report").text("error") or "no reason given"
            raise BackendError(
                f"together refused file {file.text('filename')} ({ref}, {word}): {reason}. "
                "Correct the rows and launch again.",
                status=400,
            )
        return word not in WAITING

    def _content(self, ref: str | None) -> bytes | None:
        path = (*FILES, ref or "", "content")
        return self.api.find_content(*path, action=f"read {ref}") if ref else None

    def _create_body(self, launch: Launch) -> dict[str, JsonValue]:
        base, options = launch.job.base_model, self.job_options(launch.job)
        try:
            limits = self.limits(base)
        except BackendError as error:
            if not error.is_ambiguous:
                raise
            # Nothing was created yet, so the error must not be ambiguous.
            raise BackendError(f"{error} Nothing was created; launch again.") from error
        if limits is None:
            raise Unsupported(
                f"together does not tune {base!r}. See `tg fine-tuning model-limits MODEL` for "
                "another model, or "
                "https://docs.together.ai/docs/fine-tuning/supported-models for all."
            )
        return settings.create_body(launch, options, limits)

    def _jobs(self) -> dict[str, Fields]:
        jobs = self.api.get(*TRAININGS, action="list the trainings", largest=LARGEST_FILE)
        return {ref: job for job in jobs.items("data") if (ref := job.text("id"))}

    def _job(self, job_id: str) -> Fields:
        return self.api.get(*TRAININGS, job_id, action=f"read training {job_id}")

    def _list_checkpoints(self, job_id: str) -> list[Fields]:
        action = f"list the checkpoints of training {job_id}"
        return self.api.get(*TRAININGS, job_id, "checkpoints", action=action).items("data")

    def _model(self, job: Fields) -> TunedModel | None:
        names = ("model_output_name", "model_object_name", "adapter_object_name")
        name = next(filter(None, map(job.text, names)), None)
        base = job.text("model") or ""
        return TunedModel(backend=self.name, name=name, base=base) if name else None


def _is_sent(file: Fields, name: str, size: int) -> bool:
    is_same = (file.text("filename"), file.whole("bytes")) == (name, size)
    return is_same and file.text("processing_status") != "PENDING"


def _carries(job: Fields, launch_key: str) -> bool:
    if suffix := job.text("suffix"):
        return suffix == launch_key
    # Together appends the suffix and eight digits to the base model's name.
    name = rf"(^|[/-]){re.escape(launch_key)}(-[0-9a-f]{{8}})?$"
    return re.search(name, job.text("model_output_name") or "") is not None


def _error(events: Sequence[Fields]) -> str | None:
    reasons = [event.text("message") for event in events if _is_failure(event)]
    return next(filter(None, reversed(reasons)), None)


def _is_failure(event: Fields) -> bool:
    return event.text("type") in FAILURES or event.text("level") == "error"


def _messages(events: Sequence[Fields]) -> Iterator[Event]:
    """Yield the messages of a job; one without a time gets that of the previous one."""
    when = 0.0
    for event in events:
        when = event.time("created_at") or when
        kind, step = event.text("type") or "event", event.whole("step")
        text = event.text("message") or kind
        parts = f"{kind}|{event.text('created_at')}|{step}|{text}"
        key = f"event-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
        data: dict[str, JsonValue] = {"type": kind, "text": text, "step": step or None}
        data["kept_step"] = event.whole("early_stopping_best_step")
        shown: Literal["message", "checkpoint", "warning"] = "message"
        if kind == "checkpoint_save":
            shown = "checkpoint"
        elif "warning" in (kind, event.text("level")) or _is_failure(event):
            shown = "warning"
        yield Event(key, shown, when, without_none(data))


def _losses(
    metrics: Sequence[Fields], messages: Sequence[Event], steps: int | None
) -> Iterator[Event]:
    """Yield the losses; they have no time at Together and get that of the previous message."""
    latest, marks = 0, list[tuple[float, int]]()
    for message in sorted(messages, key=lambda event: event.time):
        step = message.data.get("step")
        latest = max(latest, step if isinstance(step, int) else 0)
        marks.append((message.time, latest))
    for row in sorted(metrics, key=lambda row: row.whole(STEP) or 0):
        step, rate = row.whole(STEP), row.number("train/learning_rate")
        for kind, field in LOSSES.items():
            loss = row.number(field)
            if step is not None and loss is not None:
                when = max((moment for moment, mark in marks if mark < step), default=time.time())
                data: dict[str, JsonValue] = {"step": step, "steps": steps, "loss": loss}
                data |= {"learning_rate": rate if kind == "step" else None}
                yield Event(f"{kind}-{step}", kind, when, without_none(data))
