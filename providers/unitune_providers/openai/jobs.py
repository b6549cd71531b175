"""Read jobs of OpenAI's API: launch keys, hyperparameters and events, and import jobs.

Any field of the vendor's JSON may be missing: only supervised jobs have documented hyperparameters,
and steps of reinforcement have a reward instead of a loss.

Sources: OpenAI's published description (API 2.3.0, 2026-08-21), FineTuningJob and
FineTuningJobEvent; its guide on reinforcement fine-tuning, a copy (`train_mean_reward` and
`full_valid_mean_reward` in the data of an event).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import cast

from pydantic import JsonValue

from unitune.backends.capabilities import ImportedJob
from unitune.backends.kit.api import item_key
from unitune.backends.kit.hosted import without_none
from unitune.backends.protocol import Event, State
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.openai.options import METHODS, NEBIUS_TUNING, OWN_HYPERPARAMETERS, Body

METADATA_KEY = "unitune"  # key of the launch key in the metadata of a job or batch
STATES = {
    "validating_files": State.VALIDATING,
    "queued": State.QUEUED,
    "pending": State.QUEUED,  # Azure's older word
    "running": State.RUNNING,
    "paused": State.PAUSED,
    "succeeded": State.SUCCEEDED,
    "failed": State.FAILED,
    "cancelled": State.CANCELLED,
}
STEP_OF_STEPS = re.compile(r"Step (?P<step>\d+)/(?P<steps>\d+)")
OUR_METHODS = {theirs: ours for ours, theirs in METHODS.items()}
OUR_TUNING = {  # our names by those of all vendors with this API
    **{theirs: ours for ours, theirs in NEBIUS_TUNING.items()},
    "beta": "preference.beta",
}
TRAINING = {  # vendors' names of a step's figures; the first present one counts
    "loss": ("train_loss", "training_loss"),
    "reward": ("train_mean_reward", "train_reward_mean"),
}
VALIDATION = {  # on validation rows; the whole file is preferred to a batch
    "loss": ("full_valid_loss", "valid_loss", "validation_loss"),
    "reward": ("full_valid_mean_reward", "valid_mean_reward", "valid_reward_mean"),
}


def launch_keys(job: Fields) -> list[str]:
    """Return all texts of a job that may be its launch key."""
    texts = (
        job.fields("metadata").text(METADATA_KEY),
        job.text("user_provided_suffix"),  # at OpenAI and Azure
        job.text("suffix"),  # at Nebius
    )
    return [text for text in texts if text]


def hyperparameters_of(job: Fields) -> Fields:
    """Return the set or chosen hyperparameters, also from where older jobs have them."""
    method = job.fields("method")
    inner = method.fields(method.text("type") or "supervised").fields("hyperparameters")
    # The vendor replaces `auto` by its choice, possibly in only one of the places.
    return Fields({**inner.all, **_chosen(job.fields("hyperparameters"))})


def error_of(job: Fields) -> str | None:
    """Return the reason of a job's failure, in the vendor's words."""
    error = job.fields("error")
    message, code = error.text("message"), error.text("code")
    return " ".join(part for part in (message, f"[{code}]" if code else "") if part) or None


def events_of(event: Fields) -> Iterator[Event]:
    """Convert a vendor's event: a step with its validation, or a message."""
    key, time = item_key(event), event.number("created_at") or 0.0
    data, step = event.fields("data"), event.fields("data").whole("step")
    message = event.text("message") or ""
    if event.text("type") != "metrics" or step is None:
        kind = "message" if event.text("level") in ("info", None) else "warning"
        yield Event(key, kind, time, {"text": message, **data.all})
        return
    counted = STEP_OF_STEPS.search(message)
    steps = data.whole("total_steps") or (int(counted["steps"]) if counted else None)
    numbers = without_none({"step": step, "steps": steps})
    read = {"step", "total_steps", *chain(*TRAINING.values())}
    others = {name: value for name, value in data.all.items() if name not in read}
    yield Event(key, "step", time, {**numbers, **_figures(data, TRAINING), **others})
    if validated := _figures(data, VALIDATION):
        yield Event(f"{key}:validation", "validation", time, {**numbers, **validated})


def imported(
    job: Fields, files: Mapping[str, bytes | None], model: TunedModel | None
) -> ImportedJob:
    """Convert a job with its files by id; a file is None if it is gone."""
    kind = job.fields("method").text("type") or "supervised"
    tuning, options, notes = Body(), Body(), list[str]()
    for name, value in _chosen(hyperparameters_of(job)).items():
        if name in OUR_TUNING:
            _put(tuning, OUR_TUNING[name], value)
        elif name in OWN_HYPERPARAMETERS:
            options[name] = value
        else:
            notes.append(f"hyperparameter {name} was {value!r}")
    if "seed" in job.all:
        tuning["seed"] = job.whole("seed")
    if grader := job.fields("method").fields(kind).fields("grader").all:
        options["grader"] = {**grader}
    if training_type := job.text("trainingType"):
        options["training_type"] = training_type  # at Azure, as its `azd ai finetuning` reads it
    for integration in job.items("integrations"):
        if wandb := integration.fields("wandb").all:
            options["wandb"] = {**wandb}
    gone = [name for name, content in files.items() if content is None]
    notes += [f"file {name} is gone at the vendor; use your own copy of its rows" for name in gone]
    return ImportedJob(
        base_model=job.text("model") or "",
        method=OUR_METHODS.get(kind, kind),
        training=files.get(job.text("training_file") or ""),
        validation=files.get(job.text("validation_file") or ""),
        tuning=tuning,
        options=options,
        model=model,
        notes=tuple(notes),
    )


def _chosen(hyperparameters: Fields) -> Body:
    return {n: value for n, value in hyperparameters.all.items() if value not in ("auto", None)}


def _figures(data: Fields, names: Mapping[str, tuple[str, ...]]) -> Body:
    figures = {
        ours: next((number for name in theirs if (number := data.number(name)) is not None), None)
        for ours, theirs in names.items()
    }
    return without_none(figures)


def _put(into: Body, dotted: str, value: JsonValue) -> None:
    outer, _, name = dotted.rpartition(".")
    inner = cast("Body", into.setdefault(outer, {})) if outer else into
    inner[name] = value
