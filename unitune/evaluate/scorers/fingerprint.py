"""By what a changed scorer is seen: a short hash of everything of ours that makes its scores."""

from __future__ import annotations

from pathlib import Path

from pydantic import JsonValue

from unitune.data.example import digest
from unitune.evaluate.scorers.functions import module_spec
from unitune.evaluate.scorers.graders import load_grader
from unitune.evaluate.scorers.interface import Setting
from unitune.evaluate.scorers.json_text import load_definition
from unitune.job.scorers import JsonSchema, Labelled, OpenAIGrader, PythonFunction, ScorerSpec

DIGITS = 16
"""Hex digits: 64 bits, far beyond chance for the few scorers of a baseline."""


UNSCORED = {"name", "api_key_variable", "run_code"}
"""Options that change no score."""


def scorer_fingerprint(spec: ScorerSpec, setting: Setting | None = None) -> str:
    """Return a hash that changes when a scorer may score differently.

    It covers the type with our version of it, every option that is not its default, the labels that
    train gives, and the content of a schema, grader or Python file that the options name. It leaves
    out what a Python file imports, and versions of the packages beneath, which known answers in our
    tests hold in place.

    Args:
        spec: What is to score.
        setting: Folder and labels of the job.

    Raises:
        JobError: A file that the options name cannot be read.
    """
    options: JsonValue = spec.model_dump(mode="json", exclude=UNSCORED, exclude_defaults=True)
    return digest([spec.type, spec.version, options, _material(spec, setting or Setting())])[
        :DIGITS
    ]


def _material(spec: ScorerSpec, setting: Setting) -> JsonValue:
    """Return what scores depend on and no option holds."""
    match spec:
        case Labelled(options=None):
            return list(setting.labels)
        case JsonSchema(definition=str()):
            return digest([load_definition(spec, setting.folder)])
        case OpenAIGrader(grader=str()):
            return load_grader(spec, setting.folder).model_dump(mode="json")
        case PythonFunction(function=function):
            found = module_spec(function.rpartition(":")[0], setting.folder)
            source = Path(found.origin) if found and found.origin else None
            return source.read_text(encoding="utf-8") if source and source.is_file() else None
        case _:
            return None
