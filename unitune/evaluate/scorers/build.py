"""From specification to scorer: the table of all scorers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from unitune.evaluate.scorers import (
    classes,
    corpus,
    functions,
    graders,
    json_text,
    labels,
    numbers,
    overlap,
    recorded,
    text,
    tools,
)
from unitune.evaluate.scorers.fingerprint import scorer_fingerprint
from unitune.evaluate.scorers.interface import Scorer, Setting
from unitune.job.scorers import Embedding, QualitySpec


def _embedding(spec: Embedding, setting: Setting) -> Scorer:
    from unitune.evaluate.scorers.embeddings import make_embedding  # noqa: PLC0415 - loads httpx

    return make_embedding(spec, setting)


MAKERS: Mapping[str, Callable[[Any, Setting], Scorer]] = {
    "exact": text.make_exact,
    "contains": text.make_contains,
    "regex": text.make_regex,
    "edit_distance": text.make_edit_distance,
    "choice": labels.make_choice,
    "numeric": numbers.make_numeric,
    "json_valid": json_text.make_json_valid,
    "json_equal": json_text.make_json_equal,
    "json_fields": json_text.make_json_fields,
    "json_schema": json_text.make_json_schema,
    "tool_calls": tools.make_tool_calls,
    "token_f1": overlap.make_token_f1,
    "rouge": overlap.make_rouge,
    "sentence_chrf": overlap.make_sentence_chrf,
    "embedding": _embedding,
    "class_f1": classes.make_class_f1,
    "bleu": corpus.make_bleu,
    "chrf": corpus.make_chrf,
    "python": functions.make_python,
    "recorded_score": recorded.make_recorded_score,
    "grader": graders.make_grader,
}
"""By the type of the specification."""


def build(spec: QualitySpec, setting: Setting | None = None) -> Scorer:
    """Return a scorer that is ready to score.

    Args:
        spec: Which, with its options.
        setting: What it may need of the job; a folder for files, the answers of train.

    Raises:
        JobError: What the options name cannot be used: a file, a schema, a function, labels.
        MissingExtra: A package is not installed; the message has the install command.
        UserError: An environment variable is not set.
    """
    setting = setting or Setting()
    scorer = MAKERS[spec.type](spec, setting)
    return replace(scorer, fingerprint=scorer_fingerprint(spec, setting))
