"""Build tuning jobs at Vertex AI and read their state, events and settings.

Vertex AI has no list of events. They are derived from fields that stay in the job: its times, data
counts, finished epochs and checkpoints. So a late poll yields the same events as many early ones.
Finer states of a running job are in `Status.raw`. Losses by step are only in Vertex AI's console.
Needs none of Google's packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from unitune.backends.capabilities import Checkpoint, ImportedJob
from unitune.backends.kit.hosted import explicit, without_none
from unitune.backends.protocol import Event, Launch, State
from unitune.documents import Spec
from unitune.errors import JobError, Unsupported
from unitune.job.job import Job
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.vertex.rewards import reward_settings

NAME = "vertex"
LABEL = "unitune"  # label with the launch key; also on the resulting model and endpoint
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
FINER: Mapping[str, State] = {  # finer states of a running job that differ from running
    "TUNING_JOB_STATE_WAITING_FOR_QUOTA": State.QUEUED,
    "TUNING_JOB_STATE_WAITING_FOR_CAPACITY": State.QUEUED,
    "TUNING_JOB_STATE_PROCESSING_DATASET": State.VALIDATING,
}
SPECS = {  # fields with a job's files and settings, by method
    "sft": "supervisedTuningSpec",
    "dpo": "preferenceOptimizationSpec",
    "rft": "reinforcementTuningSpec",
}
MOST_EPOCHS = 1000  # limit, as a response may contain any number
# Sizes by rank. Some models support only some of them; Vertex AI then refuses the job.
ADAPTER_SIZES = {
    1: "ADAPTER_SIZE_ONE",
    2: "ADAPTER_SIZE_TWO",
    4: "ADAPTER_SIZE_FOUR",
    8: "ADAPTER_SIZE_EIGHT",
    16: "ADAPTER_SIZE_SIXTEEN",
    32: "ADAPTER_SIZE_THIRTY_TWO",
}
LONGEST_NAME = 128
RFT_ONLY, NOT_RFT = ("reward", "thinking_level"), ("export_last_checkpoint_only",)


class VertexOptions(Spec):
    """Job options under ``options: {vertex: …}``."""

    learning_rate_multiplier: Annotated[float, Field(gt=0)] | None = None
    """Factor for the model's own learning rate; default 1."""
    export_last_checkpoint_only: bool = False
    """Keep only the last checkpoint; otherwise each epoch's gets an endpoint."""
    pre_tuned_model_checkpoint_id: str | None = None
    """Checkpoint of a tuned model to continue from; default its default checkpoint."""
    reward: dict[str, JsonValue] | None = None
    """RFT: a reward function in Vertex AI's format, single (``rewardName`` and a scorer) or
    composite (``weightedRewardConfigs``), instead of `tuning.reward.scorers`."""
    thinking_level: Literal["minimal", "low", "medium", "high"] | None = None
    """RFT: amount of reasoning before answers."""


def check_job(job: Job, options: VertexOptions) -> None:
    """Raise `JobError` for a job that cannot be created."""
    rank = job.tuning.lora.rank
    is_tuned = job.start is not None or _is_tuned(job.base_model)
    if options.pre_tuned_model_checkpoint_id is not None and not is_tuned:
        raise JobError(
            "options.vertex.pre_tuned_model_checkpoint_id is for continuing a tuned model, but the "
            f"job has no `start`; model is {job.base_model!r}. Remove it or set `start`."
        )
    if rank != "auto" and rank not in ADAPTER_SIZES:
        allowed = ", ".join(str(size) for size in ADAPTER_SIZES)
        raise JobError(f"tuning.lora.rank is {rank}; Vertex AI supports {allowed} or auto.")
    for name in RFT_ONLY if job.method != "rft" else NOT_RFT:
        if getattr(options, name):
            raise JobError(
                f"options.vertex.{name} has no effect with method {job.method}. Remove it."
            )
    if job.method == "rft":
        reward_settings(job, options.reward)


def create_body(
    launch: Launch, options: VertexOptions, start: str | None = None
) -> dict[str, JsonValue]:
    """Return a create call; without a display name, a tuned model would get a new version."""
    job, rank, reward = launch.job, launch.job.tuning.lora.rank, launch.job.tuning.reward
    settings: dict[str, JsonValue] = {
        "epochCount": explicit(job.tuning.epochs),
        "adapterSize": None if rank == "auto" else ADAPTER_SIZES[rank],
        "learningRateMultiplier": options.learning_rate_multiplier,
        "beta": explicit(job.tuning.preference.beta),
        "samplesPerPrompt": explicit(reward.group_size),
        "maxOutputTokens": explicit(reward.max_tokens),
        "thinkingLevel": options.thinking_level and options.thinking_level.upper(),
    }
    spec: dict[str, JsonValue] = {
        "trainingDatasetUri": launch.training.ref,
        "validationDatasetUri": launch.validation and launch.validation.ref,
        "hyperParameters": without_none(settings) or None,
        "exportLastCheckpointOnly": options.export_last_checkpoint_only or None,
        **(reward_settings(job, options.reward) if job.method == "rft" else {}),
    }
    base: dict[str, JsonValue] = {"baseModel": job.base_model}
    before = start or (job.base_model if _is_tuned(job.base_model) else None)
    if before is not None:
        checkpoint = options.pre_tuned_model_checkpoint_id
        tuned: dict[str, JsonValue] = {"tunedModelName": before, "checkpointId": checkpoint}
        base = {"preTunedModel": without_none(tuned)}
    return {
        **base,
        "tunedModelDisplayName": f"{job.name} {launch.key}"[:LONGEST_NAME],
        "labels": {LABEL: launch.key},
        SPECS[str(job.method)]: without_none(spec),
    }


def _is_tuned(model: str) -> bool:
    return model.startswith("projects/")


def state_of(job: Fields) -> State:
    """Map a job's state to ours."""
    state = STATES.get(job.text("state") or "", State.UNKNOWN)
    finer = job.text("tuningJobState") or ""
    return FINER.get(finer, state) if state is State.RUNNING else state


def word_of(job: Fields) -> str:
    """Return a job's state in Vertex AI's words, with the finer one while it runs."""
    word, finer = job.text("state") or "JOB_STATE_UNSPECIFIED", job.text("tuningJobState")
    return word if state_of(job).ended or not finer else f"{word} {finer}"


def base_of(job: Fields) -> str:
    """Return the base model's name: a published model's own, or a tuned model's resource."""
    tuned = job.fields("preTunedModel")
    name = job.text("baseModel") or tuned.text("tunedModelName") or tuned.text("baseModel") or ""
    return name.removeprefix("publishers/google/models/")


def spec_of(job: Fields) -> tuple[str, Fields]:
    """Return a job's method and settings; the method is empty if unsupported."""
    for method, name in SPECS.items():
        if name in job.all:
            return method, job.fields(name)
    return "", Fields({})


def tuned_model(job: Fields) -> TunedModel | None:
    """Return a job's tuned model: the endpoint that Vertex AI deployed."""
    tuned = job.fields("tunedModel")
    name = tuned.text("endpoint") or tuned.text("model")
    return TunedModel(backend=NAME, name=name, base=base_of(job)) if name else None


def checkpoints_of(job: Fields, base: str) -> list[Checkpoint]:
    """Return a job's checkpoints with an endpoint, oldest first."""
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
    """Return Vertex AI's counts of the training file, once known."""
    stats = job.fields("tuningDataStats")
    supervised = stats.fields("supervisedTuningDataStats")
    return supervised if supervised.all else stats.fields("preferenceOptimizationDataStats")


def events_of(job: Fields) -> Iterator[Event]:
    """Yield all events of a job, in order."""
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
        text = f"Vertex AI dropped rows: {'; '.join(dict.fromkeys(reasons))}"
        yield Event("dropped", "warning", time, {"text": text})


def count(fields: Fields, name: str) -> int | None:
    """Return a whole number, which Google's JSON writes as text if it may be large."""
    text = fields.text(name)
    return int(text) if text is not None and text.isdecimal() else fields.whole(name)


def imported(job: Fields, read: Callable[[str], bytes | None]) -> ImportedJob:
    """Convert a job that was not launched by unitune; `read` returns the content of a file."""
    method, spec = spec_of(job)
    if not method:
        raise Unsupported(
            f"{job.text('name') or 'the job'} is not supervised, preference or reinforcement "
            "tuning, so it cannot be imported. Write the job file yourself."
        )
    settings, notes, tuning = spec.fields("hyperParameters"), list[str](), dict[str, JsonValue]()
    if epochs := count(settings, "epochCount"):
        tuning["epochs"] = epochs
    size = settings.text("adapterSize")
    if ranks := [rank for rank, word in ADAPTER_SIZES.items() if word == size]:
        tuning["lora"] = {"rank": ranks[0]}
    if beta := settings.number("beta"):
        tuning["preference"] = {"beta": beta}
    sampling = {"group_size": "samplesPerPrompt", "max_tokens": "maxOutputTokens"}
    if reward := without_none({ours: count(settings, own) for ours, own in sampling.items()}):
        tuning["reward"] = reward
    options: dict[str, JsonValue] = {
        "learning_rate_multiplier": settings.number("learningRateMultiplier"),
        "export_last_checkpoint_only": spec.all.get("exportLastCheckpointOnly"),
        "pre_tuned_model_checkpoint_id": job.fields("preTunedModel").text("checkpointId"),
        "reward": spec.all.get("singleRewardConfig") or spec.all.get("compositeRewardConfig"),
        "thinking_level": (settings.text("thinkingLevel") or "").lower() or None,
    }
    if settings.all.keys() & {"learningRate", "batchSize"}:
        notes.append("Learning rate and batch size of open models are not imported.")
    files = dict[str, bytes | None]()
    for use in ("training", "validation"):
        uri = spec.text(f"{use}DatasetUri") or ""
        is_file = uri.startswith("gs://")
        files[use] = read(uri) if is_file else None
        if uri and files[use] is None:
            why = "is gone" if is_file else "is not a file in Cloud Storage"
            notes.append(f"The {use} data {uri} {why}.")
    return ImportedJob(
        base_model=base_of(job),
        method=method,
        training=files["training"],
        validation=files["validation"],
        tuning=tuning,
        options=without_none(options),
        model=tuned_model(job),
        notes=tuple(notes),
    )
