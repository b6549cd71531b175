"""OpenAI's grader objects, as its fine-tuning and evaluation interfaces take them.

A team that leaves OpenAI's evaluations, or that tunes with a grader, has these objects already;
`unitune.scorers.graders` scores by them on this machine. Their shapes are those of
openai/openai-openapi 2.3.0 (2026-08-21), schemas Grader*; what they mean is in OpenAI's guide
"Graders", developers.openai.com/api/docs/guides/graders, read 2026-11-25. OpenAI has deprecated
them, and its own graders answer nobody after 2026-11-30; the objects stay useful.

Graders that ask a model (`score_model`, `label_model`) are refused: they need a judge, and no
judge is here yet.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from unitune.scorers.grader_formula import check_formula
from unitune.security.spec import Spec

SimilarityMetric: TypeAlias = Literal[
    "fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]

PLACEHOLDER = re.compile(r"\{\{\s*(.+?)\s*\}\}")
"""``{{ namespace.variable }}`` in a grader's texts."""
VARIABLE = re.compile(r"(item|sample)((?:\.[\w-]+|\[\d+\])+)")
"""A placeholder's content: a namespace and a path, such as ``sample.output_tools[0].type``."""


def _only_known_placeholders(text: str) -> str:
    for placeholder in PLACEHOLDER.findall(text):
        if not VARIABLE.fullmatch(placeholder):
            raise ValueError(
                f"{{{{ {placeholder} }}}} is no variable; write {{{{ item.KEY }}}} for a key of "
                "the row or {{ sample.output_text }}, sample.output_json, sample.output_tools"
            )
    return text


Text: TypeAlias = Annotated[str, AfterValidator(_only_known_placeholders)]
"""A text that may hold placeholders."""


class StringCheck(Spec):
    """Compare two texts."""

    type: Literal["string_check"]
    name: str = ""
    input: Text
    """What is checked."""
    reference: Text
    """What it is checked against."""
    operation: Literal["eq", "ne", "like", "ilike"]
    """Equal, not equal, input contains reference, the same without regard to case."""


class TextSimilarity(Spec):
    """How alike two texts are."""

    type: Literal["text_similarity"]
    name: str = ""
    input: Text
    """What is checked."""
    reference: Text
    """What it is checked against."""
    evaluation_metric: SimilarityMetric
    """Which likeness."""
    pass_threshold: float | None = None
    """When set, the grade is 1 from this likeness on, else 0."""

    @field_validator("evaluation_metric", mode="before")
    @classmethod
    def _can_be_computed_here(cls, metric: JsonValue) -> JsonValue:
        if metric == "meteor":
            raise ValueError("meteor needs WordNet, which is not here; take rouge_l or fuzzy_match")
        if metric == "cosine":
            raise ValueError("cosine asks a model; use the scorer `embedding`, which says which")
        return metric


class PythonCode(Spec):
    """Source with a function ``grade(sample, item)``."""

    type: Literal["python"]
    name: str = ""
    source: str
    """Python source."""
    image_tag: str | None = None
    """OpenAI's container; the packages of this machine are used instead."""
    pass_threshold: float | None = None
    """When set, the grade is 1 from this result on, else 0."""


SingleGrader: TypeAlias = Annotated[
    StringCheck | TextSimilarity | PythonCode, Field(discriminator="type")
]


def _no_judge(value: object) -> object:
    kind = _mapping(value).get("type")
    if kind in ("score_model", "label_model"):
        raise ValueError(
            f"a grader of type {kind} asks a model to judge, and unitune has no judge yet. "
            "Leave it out, or use string_check, text_similarity, python or multi"
        )
    return value


def _by_name(value: object) -> object:
    """Return a multi grader's graders by name.

    OpenAI's guide has them by name, its schema's example as a list, and the schema as a single one.
    """
    graders = [value] if isinstance(_mapping(value).get("type"), str) else value
    if not isinstance(graders, list):
        return value
    listed = cast("list[object]", graders)
    named = {_mapping(grader).get("name"): grader for grader in listed}
    if not all(named) or len(named) < len(listed):
        raise ValueError("every grader of a list needs a name of its own for the formula to use")
    return named


def _mapping(value: object) -> dict[str, object]:
    """Return a mapping as it is, and an empty one for whatever is none."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


class Multi(Spec):
    """Several graders and a formula over their results."""

    type: Literal["multi"]
    name: str = ""
    graders: Annotated[
        dict[str, Annotated[SingleGrader, BeforeValidator(_no_judge)]], BeforeValidator(_by_name)
    ]
    """By the name that the formula uses; a list of named graders will do."""
    calculate_output: str
    """Formula over the graders' names: + - * / ^, min, max, abs, floor, ceil, exp, sqrt, log."""

    @model_validator(mode="after")
    def _formula_is_one(self) -> Self:
        check_formula(self.calculate_output, self.graders)
        return self


Grader: TypeAlias = Annotated[
    Annotated[StringCheck | TextSimilarity | PythonCode | Multi, Field(discriminator="type")],
    BeforeValidator(_no_judge),
]


def code_in(grader: Grader) -> bool:
    """Whether a grader would run Python source."""
    parts = grader.graders.values() if isinstance(grader, Multi) else (grader,)
    return any(isinstance(part, PythonCode) for part in parts)
