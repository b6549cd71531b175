"""A job that others launched on OpenAI's wire, as an `ImportedJob`: its words turned into ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from openai.types.fine_tuning import FineTuningJob
from pydantic import JsonValue

from unitune.abilities import ImportedJob
from unitune.models import TunedModel
from unitune_providers.openai.request import METHODS, OUR_TUNING, OWN_HYPERPARAMETERS

OUR_METHODS = {theirs: ours for ours, theirs in METHODS.items()}


def imported(
    job: FineTuningJob,
    files: Mapping[str, bytes | None],
    model: TunedModel | None,
) -> ImportedJob:
    """Return a job in our words.

    Args:
        job: As the vendor tells it.
        files: Content by the vendor's file id; None for a file that is gone.
        model: What it left behind.
    """
    kind = job.method.type if job.method else "supervised"
    given = _hyperparameters(job, kind)
    tuning, options, notes = _sorted(given)
    tuning |= {"seed": job.seed} if "seed" in job.model_fields_set else {}
    options |= _extras(job, kind)
    gone = [name for name, content in files.items() if content is None]
    notes += [f"file {name} is gone at the vendor; give your own copy of its rows" for name in gone]
    return ImportedJob(
        base_model=job.model,
        method=OUR_METHODS.get(kind, kind),
        training=files.get(job.training_file),
        validation=files.get(job.validation_file) if job.validation_file else None,
        tuning=tuning,
        options=options,
        model=model,
        notes=tuple(notes),
    )


def _hyperparameters(job: FineTuningJob, kind: str) -> dict[str, JsonValue]:
    """Return what was set or chosen; what is still `auto` says nothing."""
    method = job.method.to_dict() if job.method else {}
    inner = cast("dict[str, dict[str, JsonValue]]", method.get(kind) or {})
    old = cast("object", job.hyperparameters)
    top = job.hyperparameters.to_dict() if old is not None else {}
    given = inner.get("hyperparameters") or cast("dict[str, JsonValue]", top)
    return {name: value for name, value in given.items() if value not in ("auto", None)}


def _sorted(
    given: Mapping[str, JsonValue],
) -> tuple[dict[str, JsonValue], dict[str, JsonValue], list[str]]:
    """Return hyperparameters as tuning, as options, and as notes on what is neither."""
    tuning: dict[str, JsonValue] = {}
    options: dict[str, JsonValue] = {}
    notes: list[str] = []
    for name, value in given.items():
        if name in OUR_TUNING:
            _put(tuning, OUR_TUNING[name], value)
        elif name in OWN_HYPERPARAMETERS:
            options[name] = value
        else:
            notes.append(f"hyperparameter {name} was {value!r}")
    return tuning, options, notes


def _extras(job: FineTuningJob, kind: str) -> dict[str, JsonValue]:
    """Return options that are no hyperparameters."""
    found: dict[str, JsonValue] = {}
    if kind == "reinforcement" and job.method and job.method.reinforcement:
        grader = job.method.reinforcement.to_dict().get("grader")
        found["grader"] = cast("JsonValue", grader)
    for one in job.integrations or ():
        found["wandb"] = cast("JsonValue", one.wandb.to_dict())
    return found


def _put(into: dict[str, JsonValue], dotted: str, value: JsonValue) -> None:
    outer, _, name = dotted.rpartition(".")
    if not outer:
        into[name] = value
        return
    inner = cast("dict[str, JsonValue]", into.setdefault(outer, {}))
    inner[name] = value
