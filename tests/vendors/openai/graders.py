"""What OpenAI refuses as a grader: its fields against the published description.

Source: openai/openai-openapi 2.3.0, Grader*; a formula is made of the graders' names, numbers and
operators (OpenAI's guide on graders, a copy).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, cast

FIELDS: Mapping[str, Mapping[str, type]] = {
    "string_check": {"name": str, "input": str, "reference": str, "operation": str},
    "text_similarity": {"name": str, "input": str, "reference": str, "evaluation_metric": str},
    "python": {"name": str, "source": str},
    "score_model": {"name": str, "input": list, "model": str},
    "label_model": {
        "name": str,
        "input": list,
        "model": str,
        "labels": list,
        "passing_labels": list,
    },
    "multi": {"name": str, "graders": dict, "calculate_output": str},
    "lambda": {"lambda": dict},
}
"""The required fields by type of grader; Bedrock's own is the last."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "operation": ("eq", "ne", "like", "ilike"),
    "evaluation_metric": (
        *("cosine", "fuzzy_match", "bleu", "gleu", "meteor"),
        *("rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"),
    ),
}


def problem_of(grader: object, kinds: tuple[str, ...]) -> str | None:
    """Return what is wrong with a grader; None if nothing."""
    given = cast("dict[str, Any]", grader) if isinstance(grader, dict) else dict[str, Any]()
    kind = given.get("type")
    if kind not in kinds:
        return f"unknown type {kind!r}"
    for name, required in FIELDS[str(kind)].items():
        if not isinstance(given.get(name), required) or not given[name]:
            return f"missing required parameter: {name!r}"
        if name in CHOICES and given[name] not in CHOICES[name]:
            return f"invalid value for {name!r}: {given[name]!r}"
    return _problem_of_parts(given) if kind == "multi" else None


def _problem_of_parts(multi: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the graders of a multi grader, or with its formula."""
    graders = cast("dict[str, Any]", multi["graders"])
    for name, part in graders.items():
        problem = problem_of(part, tuple(set(FIELDS) - {"multi", "lambda"}))
        if problem:
            return f"graders.{name}: {problem}"
    try:
        formula = ast.parse(multi["calculate_output"], mode="eval")
    except SyntaxError:
        return f"calculate_output cannot be read: {multi['calculate_output']!r}"
    called = {
        node.func.id
        for node in ast.walk(formula)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    named = {node.id for node in ast.walk(formula) if isinstance(node, ast.Name)} - called
    unknown = sorted(named - graders.keys())
    return f"calculate_output names {unknown[0]!r}, which is no grader" if unknown else None
