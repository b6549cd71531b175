"""What a tuning job of Vertex AI says of itself, in our words; pure functions over its JSON.

There is no list of events at Vertex AI. Events are made from what a job keeps: when it was created,
started and ended, what was counted in its data, epochs done, and checkpoints. Since all of these
stay in the job, a late poll makes the same events as many early ones. The finer words of a running
job, which do not stay, are in `Status.raw`. Losses by step are only in Vertex AI's console.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from unitune.backends.capabilities import Checkpoint, ImportedJob, JobDescription
from unitune.backends.protocol import Event, State
from unitune.errors import Unsupported
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.vertex.cloud import Cloud
from unitune_providers.vertex_options import ADAPTER_SIZES

NAME = "vertex"
LABEL = "unitune"
"""Label that holds the launch key; also on the model and endpoint that come of it."""
STATES: Mapping[str, State] = {
    "JOB_STATE_QUEUED": State.QUEUED,
    "JOB_STATE_PENDING": State.QUEUED,
    "JOB_STATE_RUNNING": State.RUNNING,
    "JOB_STATE_UPDATING": State.RUNNING,
    "JOB_STATE_PAUSED": State.PAUSED,
    "JOB_STATE_CANCELLING": State.CANCELLING,
    "JOB_STATE_SUCCEEDED": State.SUCCEEDED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": State.SUCCEEDED,
    "JOB_STATE_FAILED": State.FAILED,
    "JOB_STATE_EXPIRED": State.FAILED,
    "JOB_STATE_CANCELLED": State.CANCELLED,
}
FINER: Mapping[str, State] = {
    "TUNING_JOB_STATE_WAITING_FOR_QUOTA": State.QUEUED,
    "TUNING_JOB_STATE_WAITING_FOR_CAPACITY": State.QUEUED,
    "TUNING_JOB_STATE_PROCESSING_DATASET": State.VALIDATING,
}
"""What a running job is really doing, where that is not running."""
SPECS = {"sft": "supervisedTuningSpec", "dpo": "preferenceOptimizationSpec"}
MOST_EPOCHS = 1000
"""Of those that are read; a response may name any number."""


def state_of(job: Fields) -> State:
    """Return a job's state; a word that we do not know is unknown."""
    state = STATES.get(job.text("state") or "", State.UNKNOWN)
    finer = job.text("tuningJobState") or ""
    return FINER.get(finer, state) if state is State.RUNNING else state


def word_of(job: Fields) -> str:
    """Return a job's state in Vertex AI's words, with the finer one while it goes on."""
    word, finer = job.text("state") or "JOB_STATE_UNSPECIFIED", job.text("tuningJobState")
    return word if state_of(job).ended or not finer else f"{word} {finer}"


def base_of(job: Fields) -> str:
    """Return the base model's name: a published model's own, or a tuned model's resource."""
    tuned = job.fields("preTunedModel")
    name = job.text("baseModel") or tuned.text("tunedModelName") or tuned.text("baseModel") or ""
    return name.removeprefix("publishers/google/models/")


def spec_of(job: Fields) -> tuple[str, Fields]:
    """Return a job's method and what it was tuned with; an empty method where it is not ours."""
    for method, name in SPECS.items():
        if name in job.all:
            return method, job.fields(name)
    return "", Fields({})


def description_of(job: Fields) -> JobDescription:
    """Return what a run must know of a job before it takes it for its own."""
    key = job.fields("labels").text(LABEL)
    return JobDescription(key, base_of(job) or None, spec_of(job)[1].text("trainingDatasetUri"))


def tuned_model(job: Fields) -> TunedModel | None:
    """Return what a job left behind: the endpoint that answers, which Vertex AI deploys itself."""
    tuned = job.fields("tunedModel")
    name = tuned.text("endpoint") or tuned.text("model")
    return TunedModel(backend=NAME, name=name, base=base_of(job)) if name else None


def checkpoints_of(job: Fields, base: str) -> list[Checkpoint]:
    """Return a job's checkpoints that take requests, oldest first.

    Args:
        job: As read.
        base: Name of the base model.
    """
    checkpoints = [
        Checkpoint(
            step=count(item, "step") or 0,
            model=TunedModel(backend=NAME, name=endpoint, base=base),
            metrics={"checkpoint_id": item.text("checkpointId"), "epoch": count(item, "epoch")},
        )
        for item in job.fields("tunedModel").items("checkpoints")
        if (endpoint := item.text("endpoint"))
    ]
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)


def data_stats(job: Fields) -> Fields:
    """Return what Vertex AI counted in the training file, once it has."""
    stats = job.fields("tuningDataStats")
    supervised = stats.fields("supervisedTuningDataStats")
    return supervised if supervised.all else stats.fields("preferenceOptimizationDataStats")


def events_of(job: Fields) -> Iterator[Event]:
    """Yield everything that has happened to a job, in its order."""
    for key, field in (("created", "createTime"), ("started", "startTime")):
        if time := job.time(field):
            yield Event(key, "message", time, {"text": f"Vertex AI has {key} the job"})
    begun = job.time("startTime") or job.time("createTime")
    yield from _data_events(data_stats(job), begun)
    latest = job.time("updateTime") or begun
    epochs = count(job.fields("tuningJobMetadata"), "completedEpochCount") or 0
    for epoch in range(1, min(epochs, MOST_EPOCHS) + 1):
        data: dict[str, JsonValue] = {"text": f"epoch {epoch} done", "progress": epoch}
        yield Event(f"epoch {epoch}", "message", latest, data)
    for checkpoint in checkpoints_of(job, base_of(job)):
        name, step = checkpoint.model.name, checkpoint.step
        data = {"text": f"checkpoint of step {step}", "step": step, "model": name}
        yield Event(f"checkpoint {name}", "checkpoint", latest, {**data, **checkpoint.metrics})
    if time := job.time("endTime"):
        data = {"text": f"the job has ended: {job.text('state')}"}
        yield Event("ended", "message", time, data)


def _data_events(stats: Fields, time: float) -> Iterator[Event]:
    if not stats.all:
        return
    counts: dict[str, JsonValue] = {
        "rows": count(stats, "tuningDatasetExampleCount"),
        "billable_tokens": count(stats, "totalBillableTokenCount"),
        "steps": count(stats, "tuningStepCount"),
    }
    text = "Vertex AI counts {rows} rows, {billable_tokens} billable tokens and {steps} steps"
    yield Event("data", "message", time, {"text": text.format(**counts), **counts})
    reasons = [str(reason) for reason in stats.values("droppedExampleReasons")]
    if reasons:
        text = f"Vertex AI left rows out: {'; '.join(dict.fromkeys(reasons))}"
        yield Event("dropped", "warning", time, {"text": text})


def failure_of(job: Fields) -> str:
    """Return why a job failed."""
    message = job.fields("error").text("message")
    return message or f"Vertex AI gives no reason ({job.text('state')})"


def count(fields: Fields, name: str) -> int | None:
    """Return a whole number, which Google's JSON writes as a text where it may be large."""
    text = fields.text(name)
    return int(text) if text is not None and text.isdecimal() else fields.whole(name)


def imported(job: Fields, cloud: Cloud) -> ImportedJob:
    """Return a job that was launched by other means, with its files.

    Args:
        job: As read.
        cloud: Where its files are.

    Raises:
        Unsupported: It was tuned by a method that is not ours.
    """
    method, spec = spec_of(job)
    if not method:
        raise Unsupported(
            f"{job.text('name') or 'the job'} is neither supervised nor preference tuning; nothing "
            "else can be imported. Write the job file by hand."
        )
    settings, notes = spec.fields("hyperParameters"), list[str]()
    tuning: dict[str, JsonValue] = {}
    if epochs := count(settings, "epochCount"):
        tuning["epochs"] = epochs
    size = settings.text("adapterSize")
    if ranks := [rank for rank, word in ADAPTER_SIZES.items() if word == size]:
        tuning["lora"] = {"rank": ranks[0]}
    options: dict[str, JsonValue] = {
        "learning_rate_multiplier": settings.number("learningRateMultiplier"),
        "export_last_checkpoint_only": spec.all.get("exportLastCheckpointOnly"),
        "pre_tuned_model_checkpoint_id": job.fields("preTunedModel").text("checkpointId"),
        "beta": settings.number("beta"),
    }
    if settings.all.keys() & {"learningRate", "batchSize"}:
        notes.append("Learning rate and batch size of open models are not carried over.")
    return ImportedJob(
        base_model=base_of(job),
        method=method,
        training=_rows(cloud, spec.text("trainingDatasetUri"), "training", notes),
        validation=_rows(cloud, spec.text("validationDatasetUri"), "validation", notes),
        tuning=tuning,
        options={name: value for name, value in options.items() if value is not None},
        model=tuned_model(job),
        notes=tuple(notes),
    )


def _rows(cloud: Cloud, uri: str | None, use: str, notes: list[str]) -> bytes | None:
    if not uri:
        return None
    if not uri.startswith("gs://"):
        notes.append(f"The {use} data is {uri}, which is no file in Cloud Storage.")
        return None
    content = cloud.read(uri)
    if content is None:
        notes.append(f"The {use} file {uri} is gone.")
    return content
