"""OpenAI's grader objects, as its fine-tuning and evaluation interfaces take them; their grades.

A team that leaves OpenAI's evaluations, or that tunes with a grader, has these objects already.
Their shapes are those of openai/openai-openapi 2.3.0 (2026-08-21), schemas Grader*; what they mean
is in OpenAI's guide "Graders", developers.openai.com/api/docs/guides/graders, read 2026-11-25.

Differs from OpenAI in these points, all where its guide is silent: `fuzzy_match` is rapidfuzz's
`WRatio` without case and punctuation, as in the guide's example of a grader in Python; `bleu` is
sacrebleu's sentence BLEU, and `rouge_*` is without a stemmer; Python source runs with this
machine's packages, without a sandbox and without a time limit.

Graders that ask a model (`score_model`, `label_model`) are refused: they need a judge, and no
judge is here yet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from unitune.scorers.functions import read_score
from unitune.scorers.grader_formula import compile_formula
from unitune.scorers.interface import Unscorable, guarded
from unitune.scorers.overlap import gleu, rouge_l, rouge_n
from unitune.security.spec import Spec

Context: TypeAlias = Mapping[str, JsonValue]
"""`item` and `sample`, as templates and functions read them."""
Metric: TypeAlias = Literal[
    "fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]
PACKAGES: Mapping[str, str] = {
    "fuzzy_match": "rapidfuzz",
    "rouge_l": "rapidfuzz",
    "bleu": "sacrebleu",
}
"""What metrics need beyond a plain install."""

_PLACEHOLDER = re.compile(r"\{\{\s*(.+?)\s*\}\}")
_VARIABLE = re.compile(r"(item|sample)((?:\.[\w-]+|\[\d+\])+)")
"""A placeholder's content: a namespace and a path, such as ``sample.output_tools[0].type``."""
_STEP = re.compile(r"\.([\w-]+)|\[(\d+)\]")


class Absent(LookupError):
    """A variable has no value here."""


def look_up(variable: str, context: Context) -> JsonValue:
    """Return a variable's value.

    Raises:
        Absent: It has none.
    """
    path = _VARIABLE.fullmatch(variable)
    assert path is not None, "placeholders were checked when the job was read"
    value: Any = context[path[1]]
    for key, index in _STEP.findall(path[2]):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError, TypeError):
            raise Absent(f"there is no {variable}") from None
    return cast("JsonValue", value)


def _render(template: str, context: Context) -> str:
    """Return a text with its placeholders filled in: texts as they are, other values as JSON.

    Raises:
        Absent: A variable has no value.
    """

    def text_of(match: re.Match[str]) -> str:
        value = look_up(match[1], context)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _PLACEHOLDER.sub(text_of, template)


def _only_known_placeholders(text: str) -> str:
    for placeholder in _PLACEHOLDER.findall(text):
        if not _VARIABLE.fullmatch(placeholder):
            raise ValueError(
                f"{{{{ {placeholder} }}}} is no variable; write {{{{ item.KEY }}}} for a key of "
                "the row or {{ sample.output_text }}, sample.output_json, sample.output_tools"
            )
    return text


Text: TypeAlias = Annotated[str, AfterValidator(_only_known_placeholders)]
"""A text that may hold placeholders."""


class _OfTwoTexts(Spec):
    name: str = ""
    input: Text
    """What is checked."""
    reference: Text
    """What it is checked against."""

    @property
    def variables(self) -> list[str]:
        """What its texts read."""
        return _PLACEHOLDER.findall(self.input + self.reference)

    def grade(self, context: Context) -> float:
        """Return how good an answer is; raises `Absent`."""
        return self._compare(_render(self.input, context), _render(self.reference, context))

    def _compare(self, given: str, wanted: str) -> float:
        raise NotImplementedError


class StringCheck(_OfTwoTexts):
    """Compare two texts."""

    type: Literal["string_check"]
    operation: Literal["eq", "ne", "like", "ilike"]
    """Equal, not equal, input contains reference, the same without regard to case."""

    def _compare(self, given: str, wanted: str) -> float:
        match self.operation:
            case "eq":
                return float(given == wanted)
            case "ne":
                return float(given != wanted)
            case "like":
                return float(wanted in given)
            case "ilike":
                return float(wanted.lower() in given.lower())


class TextSimilarity(_OfTwoTexts):
    """How alike two texts are."""

    type: Literal["text_similarity"]
    evaluation_metric: Metric
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

    def _compare(self, given: str, wanted: str) -> float:
        match self.evaluation_metric:
            case "fuzzy_match":
                from rapidfuzz import fuzz, utils  # noqa: PLC0415 - an extra

                return fuzz.WRatio(given, wanted, processor=utils.default_process) / 100
            case "bleu":
                from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - an extra

                bleu = BLEU(effective_order=True, force=True)
                return min(1.0, bleu.sentence_score(given, [wanted]).score / 100)
            case "gleu":
                return gleu(given, wanted)
            case "rouge_l":
                return rouge_l(given, wanted)
            case rouge:
                return rouge_n(given, wanted, n=int(rouge.removeprefix("rouge_")))


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

    @property
    def variables(self) -> list[str]:
        """What its texts read: none."""
        return []

    def grade(self, context: Context) -> float:
        """Return how good an answer is."""
        function = function_in(self.source)
        return read_score(guarded(lambda: function(context["sample"], context["item"]))).value


@cache
def function_in(source: str) -> Callable[..., object]:
    """Run a Python grader's source, once; raises whatever it raises."""
    names: dict[str, Any] = {"__name__": "grader"}
    exec(compile(source, "<grader>", "exec"), names)  # noqa: S102 - by run_code
    return names["grade"]


SingleGrader: TypeAlias = Annotated[
    StringCheck | TextSimilarity | PythonCode, Field(discriminator="type")
]


def _mapping(value: object) -> dict[str, object]:
    """Return a mapping as it is, and an empty one for whatever is none."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


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


class Multi(Spec):
    """Several graders and a formula over their results.

    Thresholds of the parts decide nothing here: the formula takes their likeness itself.
    """

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
        compile_formula(self.calculate_output, self.graders)
        return self

    def grade(self, context: Context) -> float:
        """Return how good an answer is; a part that reads what the answer lacks is 0."""
        values: dict[str, float] = {}
        for name, part in self.graders.items():
            try:
                values[name] = part.grade(context)
            except Absent:
                values[name] = 0.0
        try:
            return compile_formula(self.calculate_output, self.graders)(values)
        except (ArithmeticError, ValueError) as error:
            raise Unscorable(f"calculate_output fails on {values}: {error}") from error


Grader: TypeAlias = Annotated[
    Annotated[StringCheck | TextSimilarity | PythonCode | Multi, Field(discriminator="type")],
    BeforeValidator(_no_judge),
]


def parts_of(grader: Grader) -> list[StringCheck | TextSimilarity | PythonCode]:
    """Return the graders that a grader is made of."""
    return [*grader.graders.values()] if isinstance(grader, Multi) else [grader]
