"""Tune open models at Fireworks AI with SFT, DPO and RFT.

The launch key is the job's id, so a repeated create call makes one job. A tuned model answers only
from a deployment (`FireworksDeployments`). Progress is reported in percent; loss files are not read
because their format is not published. Fireworks estimates a training's cost but does not report its
bill.

Sources: docs.fireworks.ai, its gateway's OpenAPI 4.259.0 (upload-dataset-files,
create-supervised-fine-tuning-job, supervisedFineTuningJobs:estimateCost); fireworks-ai 1.2.30.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue

from unitune.backends.capabilities import JobDescription, JobPage
from unitune.backends.kit.api import multipart
from unitune.backends.kit.hosted import content_name, explicit, wait_for_file, without_none
from unitune.backends.protocol import Event, Guarantee, Launch, State, Status, Upload
from unitune.documents import Spec
from unitune.errors import BackendError, JobError, Unsupported
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.progress import counted_file
from unitune_providers.fireworks_deployments import FireworksDeployments

# Collection of a method's jobs; the create call has the job's id as ``dpoJobId``, … in its query
COLLECTIONS = {
    "sft": "supervisedFineTuningJobs",
    "dpo": "dpoJobs",
    "rft": "reinforcementFineTuningJobs",
}


class FireworksOptions(Spec):
    """Job options under ``options: {fireworks: …}``.

    Source: fireworks-ai 1.2.30, types of the three create calls.
    """

    evaluator: str | None = None
    """Evaluator that grades answers in reinforcement: accounts/ACCOUNT/evaluators/NAME."""
    region: str | None = None
    """Region of the training, such as EU_FRANKFURT_1."""


class FireworksBackend(FireworksDeployments[FireworksOptions]):
    """Backend that tunes and serves models at Fireworks AI."""

    capabilities = ("DescribesJobs", "ListsJobs", "Deletes", "Quotes")
    guarantee: ClassVar[Guarantee] = Guarantee.OWN_ID
    options = FireworksOptions
    states: ClassVar[Mapping[str, State]] = {
        "JOB_STATE_CREATING": State.QUEUED,
        "JOB_STATE_PENDING": State.QUEUED,
        "JOB_STATE_RE_QUEUEING": State.QUEUED,
        "JOB_STATE_VALIDATING": State.VALIDATING,
        "JOB_STATE_CREATING_INPUT_DATASET": State.VALIDATING,
        "JOB_STATE_RUNNING": State.RUNNING,
        "JOB_STATE_WRITING_RESULTS": State.RUNNING,
        "JOB_STATE_PAUSED": State.PAUSED,
        "JOB_STATE_CANCELLING": State.CANCELLING,
        "JOB_STATE_COMPLETED": State.SUCCEEDED,
        "JOB_STATE_EARLY_STOPPED": State.SUCCEEDED,
        "JOB_STATE_FAILED": State.FAILED,
        "JOB_STATE_EXPIRED": State.FAILED,
        "JOB_STATE_CANCELLED": State.CANCELLED,
        "JOB_STATE_DELETING": State.CANCELLED,
        "JOB_STATE_DELETING_CLEANING_UP": State.CANCELLED,
    }

    def validate_options(self, job: Job) -> None:
        """Refuse a job with invalid options or without a required evaluator."""
        if job.tuning.early_stopping and job.method != "sft":
            raise JobError(
                f"fireworks supports tuning.early_stopping only with method sft, but the job's "
                f"method is {job.method}. Remove tuning.early_stopping."
            )
        if self.job_options(job).evaluator is None and job.method == "rft":
            raise JobError(
                "fireworks grades answers with an evaluator in your account. Create one there and "
                "set options.fireworks.evaluator: accounts/ACCOUNT/evaluators/NAME."
            )

    def upload(self, path: Path, sha256: str) -> Upload:
        """Upload a file as a dataset named by its hash and wait until it is ready."""
        name, datasets = content_name(sha256), self._ref("datasets")
        ref = f"{datasets}/{name}"
        with path.open("rb") as file:
            if (dataset := self._find(ref)) is None:
                content: JsonValue = {"exampleCount": str(sum(1 for _ in file)), "userUploaded": {}}
                body: dict[str, JsonValue] = {"datasetId": name, "dataset": content}
                dataset = self.api.post(datasets, action=f"create {ref}", body=body)
                file.seek(0)
            if dataset.text("state") != "READY":
                action = f"take {path.name}"
                sent = multipart(path.name, counted_file(file, f"uploading {path.name}"))
                self.api.request("POST", f"{ref}:upload", action=action, **sent)
                wait_for_file(lambda: self._is_ready(ref), f"fireworks: {ref}")
        return Upload(ref, sha256)

    def submit(self, launch: Launch) -> str:
        """Create the job with the launch key as its id, unless it exists."""
        self.validate_options(launch.job)
        collection = COLLECTIONS[str(launch.job.method)]
        id_parameter = f"{collection.removesuffix('s')}Id"
        self._create(collection, id_parameter, launch.key, self._create_body(launch))
        return f"{collection}/{launch.key}"

    def find(self, launch_key: str, folder: Path) -> list[str]:
        """Return the job with the launch key as its id."""
        del folder
        ids = [f"{collection}/{launch_key}" for collection in COLLECTIONS.values()]
        return [job_id for job_id in ids if self._find(self._ref(job_id), {"readMask": "name"})]

    def quote(self, launch: Launch) -> Decimal:
        """Return Fireworks' estimate for a supervised training with uploaded files."""
        if launch.job.method != "sft":
            raise Unsupported("fireworks estimates only the cost of supervised trainings (sft).")
        estimate = self.api.post(
            f"{self._ref(COLLECTIONS['sft'])}:estimateCost",
            action="estimate the cost",
            body=self._create_body(launch),
            changes_nothing=True,
        )
        usd = _estimated_usd(estimate)
        if usd is None:
            raise Unsupported(
                "fireworks did not return an estimate in US dollars for this training."
            )
        return usd

    def poll(self, job_id: str, cursor: str) -> Status:
        job, settings = self._job(job_id)
        name = settings.text("outputModel") or job_id.rpartition("/")[2]
        full = name if "/" in name else self._ref("models", name)
        model = TunedModel(backend=self.name, name=full, base=settings.text("baseModel") or "")
        error = job.fields("status").text("message")
        status = self.status(job.text("state"), _events(job), cursor, model, error)
        return replace(status, epochs=settings.whole("epochs"))

    def cancel(self, job_id: str) -> None:
        self.api.post(f"{self._ref(job_id)}:cancel", action=f"cancel {job_id}", body={})

    def describe_job(self, job_id: str) -> JobDescription:
        job, settings = self._job(job_id)
        key = job_id.rpartition("/")[2]
        return JobDescription(key, settings.text("baseModel"), job.text("dataset"))

    def list_jobs(self, cursor: str) -> JobPage:
        """Return a page of jobs, one method after the other."""
        collections = [*COLLECTIONS.values(), ""]
        collection, _, token = (cursor or collections[0]).partition("|")
        query = {"pageSize": "200", "pageToken": token}
        page = self.api.get(self._ref(collection), action="list the jobs", query=query)
        jobs = {(job.text("name") or "").rpartition("/")[2]: job for job in page.items(collection)}
        states = {
            f"{collection}/{name}": self.state_of(job.text("state")) for name, job in jobs.items()
        }
        after = collections[collections.index(collection) + 1]
        more = page.text("nextPageToken")
        return JobPage(states, f"{collection}|{more}" if more else after)

    def delete_file(self, ref: str) -> None:
        self._delete(ref)

    def delete_model(self, model: TunedModel) -> None:
        self._delete(model.name)

    def _create_body(self, launch: Launch) -> dict[str, JsonValue]:
        job, options = launch.job, self.job_options(launch.job)
        training: dict[str, JsonValue] = {
            # The base must not be given together with a model to continue from (docs, warm-start).
            "baseModel": None if launch.start else job.base_model,
            "warmStartFrom": launch.start and launch.start.model.name.partition("#")[0],
            "outputModel": launch.key,
            "epochs": explicit(job.tuning.epochs),
            "batchSizeSamples": explicit(job.tuning.batch_size),
            "learningRate": explicit(job.tuning.learning_rate),
            "maxContextLength": explicit(job.tuning.sequence_length),
            "loraRank": explicit(job.tuning.lora.rank),
            "learningRateWarmupSteps": explicit(job.tuning.warmup),
            "region": options.region,
        }
        validation = launch.validation and launch.validation.ref
        body: dict[str, JsonValue] = {"displayName": job.name, "dataset": launch.training.ref}
        if job.method == "sft":
            stops = True if job.tuning.early_stopping else None
            body |= {**training, "evaluationDataset": validation, "earlyStop": stops}
            return without_none(body)
        body["trainingConfig"] = without_none(training)
        if job.method == "dpo":
            # The documented default losses contradict each other, so the loss is always sent.
            preference = job.tuning.preference
            loss = "ORPO" if preference.loss == "orpo" else "DPO"
            beta = without_none({"beta": explicit(preference.beta)})
            return {**body, "lossConfig": {"method": loss, "dpo": beta}}
        reward = job.tuning.reward
        sampling: dict[str, JsonValue] = {
            "responseCandidatesCount": explicit(reward.group_size),
            "maxOutputTokens": explicit(reward.max_tokens),
            "temperature": explicit(reward.temperature),
        }
        body |= {"evaluator": options.evaluator, "evaluationDataset": validation}
        return without_none({**body, "inferenceParameters": without_none(sampling)})

    def _job(self, job_id: str) -> tuple[Fields, Fields]:
        """Return a job and its settings, which are nested only for some methods."""
        job = self.api.get(self._ref(job_id), action=f"read job {job_id}")
        return job, Fields({**job.fields("trainingConfig").all, **job.all})

    def _is_ready(self, ref: str) -> bool:
        dataset = self._find(ref) or Fields({})
        status = dataset.fields("status")
        if status.text("code") not in (None, "OK"):
            reason = status.text("message") or status.text("code")
            raise BackendError(f"fireworks refused {ref}: {reason}. Correct the rows.", status=400)
        return dataset.text("state") == "READY"


def _estimated_usd(resource: Fields) -> Decimal | None:
    """Parse an estimated cost (google.type.Money); return None if it is not in US dollars."""
    money = resource.fields("estimatedCost")
    units, nanos = money.text("units") or "0", money.whole("nanos") or 0
    if not money.all or money.text("currencyCode") not in (None, "", "USD") or nanos < 0:
        return None
    return Decimal(units) + Decimal(nanos).scaleb(-9) if units.isdecimal() else None


def _events(job: Fields) -> Iterator[Event]:
    progress, created = job.fields("jobProgress"), job.time("createTime")
    yield Event("created", "message", created, {"text": "created"})
    if (usd := _estimated_usd(job)) is not None:
        text = f"fireworks estimates the cost of the job at ${usd:.2f}"
        yield Event(f"estimated-{usd}", "message", created, {"text": text})
    percent = 100 * (progress.whole("epoch") or 0) + (progress.whole("percent") or 0)
    for done in range(10, min(percent, 10_000) + 1, 10):  # a response may contain any number
        epoch = (done - 1) // 100
        text = f"epoch {epoch + 1}: {done - 100 * epoch} % done"
        yield Event(f"progress-{done}", "message", time.time(), {"text": text, "progress": done})
