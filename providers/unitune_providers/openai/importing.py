"""A job that others launched on OpenAI's wire, as an `ImportedJob`: its words turned into ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from unitune.backends.capabilities import ImportedJob
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.openai.request import METHODS, OUR_TUNING, OWN_HYPERPARAMETERS
from unitune_providers.openai.status import hyperparameters_of

OUR_METHODS = {theirs: ours for ours, theirs in METHODS.items()}


def imported(
    job: Fields,
    files: Mapping[str, bytes | None],
    model: TunedModel | None,
) -> ImportedJob:
    """Return a job in our words.

    Args:
        job: As the vendor tells it.
        files: Content by the vendor's file id; None for a file that is gone.
        model: What it left behind.
    """
    kind = job.fields("method").text("type") or "supervised"
    # What is still `auto` says nothing.
    chosen = hyperparameters_of(job).all
    given = {name: value for name, value in chosen.items() if value not in ("auto", None)}
    tuning, options, notes = _sorted(given)
    tuning |= {"seed": job.whole("seed")} if "seed" in job.all else {}
    options |= _extras(job, kind)
    gone = [name for name, content in files.items() if content is None]
    notes += [f"file {name} is gone at the vendor; give your own copy of its rows" for name in gone]
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


def _extras(job: Fields, kind: str) -> dict[str, JsonValue]:
    """Return options that are no hyperparameters."""
    found: dict[str, JsonValue] = {}
    if grader := job.fields("method").fields(kind).fields("grader").all:
        found["grader"] = {**grader}
    for one in job.items("integrations"):
        if wandb := one.fields("wandb").all:
            found["wandb"] = {**wandb}
    return found


def _put(into: dict[str, JsonValue], dotted: str, value: JsonValue) -> None:
    outer, _, name = dotted.rpartition(".")
    if not outer:
        into[name] = value
        return
    inner = cast("dict[str, JsonValue]", into.setdefault(outer, {}))
    inner[name] = value
