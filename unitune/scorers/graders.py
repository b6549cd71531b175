"""Evaluate OpenAI's grader objects locally (scorer `grader`).

Schemas are Grader* of openai/openai-openapi 2.3.0 (2026-08-21); semantics follow OpenAI's guide
"Graders", developers.openai.com/api/docs/guides/graders, read 2026-11-25.

If the answer lacks a variable, its grade is 0; if the row lacks one, it is refused before any
request. Where the guide is silent, `fuzzy_match` is rapidfuzz's `WRatio` without case and
punctuation, `bleu` is sacrebleu's sentence BLEU, and `rouge_*` uses no stemmer.
A multi grader's formula is compiled by the same guide, and never runs as code.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from unitune.documents import Spec
from unitune.errors import JobError
from unitune.files.validation import first_problem
from unitune.scorers.interface import Attempt, Case, Kind, Score, Scorer, Setting, Unscorable, share
from unitune.scorers.overlap import gleu, rouge_l, rouge_n

# Maps values by name to the result; raises ArithmeticError or ValueError if there is none
Formula: TypeAlias = Callable[[Mapping[str, float]], float]
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "abs": math.fabs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
_OPERATORS: Mapping[type[ast.AST], Callable[..., float]] = {
    ast.Add: float.__add__,
    ast.Sub: float.__sub__,
    ast.Mult: float.__mul__,
    ast.Div: float.__truediv__,
    ast.Pow: math.pow,
    ast.USub: float.__neg__,
    ast.UAdd: float.__pos__,
}


def compile_formula(text: str, names: Collection[str]) -> Formula:
    """Compile a formula over named values (``^`` is a power); raises `ValueError`."""
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
        return _compiled(tree, text, names)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"calculate_output {text!r} is not a formula") from error


def _compiled(tree: ast.expr, text: str, names: Collection[str]) -> Formula:
    match tree:
        case ast.Constant(value=int() | float() as number):
            return lambda _: float(number)
        case ast.Name(id=name) if name in names:
            return lambda values: float(values[name])
        case ast.Name(id=name):
            known = ", ".join(sorted(names))
            raise ValueError(f"calculate_output uses {name!r}, but the graders are {known}")
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            function, arguments = _OPERATORS[type(op)], [left, right]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            function, arguments = _OPERATORS[type(op)], [operand]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if (
            name in _FUNCTIONS and (len(arguments) == 1 or (arguments and name in ("min", "max")))
        ):
            function = _FUNCTIONS[name]
        case _:
            raise ValueError(
                f"calculate_output {text!r} may contain only numbers, graders' names, + - * / ^ "
                f"and {', '.join(sorted(_FUNCTIONS))}"
            )
    inner = [_compiled(argument, text, names) for argument in arguments]
    return lambda values: float(function(*(part(values) for part in inner)))


Context: TypeAlias = Mapping[str, JsonValue]  # `item` and `sample`, as templates read them
# Packages needed by metrics, of an extra
PACKAGES = {"fuzzy_match": "rapidfuzz", "rouge_l": "rapidfuzz", "bleu": "sacrebleu"}

_PLACEHOLDER = re.compile(r"\{\{\s*(.+?)\s*\}\}")
# A placeholder's content: a namespace and a path, such as ``sample.output_tools[0].type``
_VARIABLE = re.compile(r"(item|sample)((?:\.[\w-]+|\[\d+\])+)")
_STEP = re.compile(r"\.([\w-]+)|\[(\d+)\]")
_A_JUDGE = (
    "needs a model as judge, which unitune does not support. Remove it, or use string_check, "
    "text_similarity or multi"
)
_REFUSED = {  # unsupported graders and metrics, with the reasons
    "score_model": _A_JUDGE,
    "label_model": _A_JUDGE,
    "python": "is code; put its function in a file and name it in the scorer `python`",
    "meteor": "needs WordNet, which is not available; use rouge_l or fuzzy_match",
    "cosine": "needs an embedding model; write a function for the scorer `python`",
}


class Absent(LookupError):
    """A variable has no value."""


def look_up(variable: str, context: Context) -> JsonValue:
    """Return a variable's value; raises `Absent`."""
    path = _VARIABLE.fullmatch(variable)
    assert path is not None, "placeholders are checked when the job is read"
    value: Any = context[path[1]]
    for key, index in _STEP.findall(path[2]):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError, TypeError):
            raise Absent(f"{variable} does not exist") from None
    return cast("JsonValue", value)


def _render(template: str, context: Context) -> str:
    def text_of(match: re.Match[str]) -> str:
        value = look_up(match[1], context)
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _PLACEHOLDER.sub(text_of, template)


def _only_known_placeholders(text: str) -> str:
    for placeholder in _PLACEHOLDER.findall(text):
        if not _VARIABLE.fullmatch(placeholder):
            raise ValueError(
                f"{{{{ {placeholder} }}}} is not a variable; use {{{{ item.KEY }}}} for a key of "
                "the row or {{ sample.output_text }}, sample.output_json, sample.output_tools"
            )
    return text


def _not_refused(value: object) -> object:
    kind = value if isinstance(value, str) else _mapping(value).get("type")
    if isinstance(kind, str) and kind in _REFUSED:
        what = "" if isinstance(value, str) else "a grader of type "
        raise ValueError(f"{what}{kind} {_REFUSED[kind]}")
    return value


# A string that may contain placeholders
Text: TypeAlias = Annotated[str, AfterValidator(_only_known_placeholders)]
Metric: TypeAlias = Literal[
    "fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


class OfTwoTexts(Spec):
    """Grader that compares two texts."""

    name: str = ""
    input: Text
    """Text to check."""
    reference: Text
    """Text to compare with."""

    def grade(self, context: Context) -> float:
        """Return the grade of an answer; raises `Absent`."""
        return self.compare(_render(self.input, context), _render(self.reference, context))

    def compare(self, given: str, wanted: str) -> float:
        raise NotImplementedError


class StringCheck(OfTwoTexts):
    """Comparison of two texts."""

    type: Literal["string_check"]
    operation: Literal["eq", "ne", "like", "ilike"]
    """Equal, not equal, input contains reference, or the last ignoring case."""

    def compare(self, given: str, wanted: str) -> float:
        holds = {
            "eq": given == wanted,
            "ne": given != wanted,
            "like": wanted in given,
            "ilike": wanted.lower() in given.lower(),
        }
        return float(holds[self.operation])


class TextSimilarity(OfTwoTexts):
    """Similarity of two texts."""

    type: Literal["text_similarity"]
    evaluation_metric: Annotated[Metric, BeforeValidator(_not_refused)]
    """Similarity metric."""
    pass_threshold: float | None = None
    """Lowest similarity with grade 1; below it, the grade is 0. In a multi grader it has no effect,
    because the formula uses the similarity itself."""

    def compare(self, given: str, wanted: str) -> float:
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


def _mapping(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


SingleGrader: TypeAlias = Annotated[
    Annotated[StringCheck | TextSimilarity, Field(discriminator="type")],
    BeforeValidator(_not_refused),
]


def _by_name(value: object) -> object:
    """Return a multi grader's graders by name.

    OpenAI's guide writes a mapping, its schema's example a list, and the schema a single grader.
    """
    graders = [value] if isinstance(_mapping(value).get("type"), str) else value
    if not isinstance(graders, list):
        return value
    listed = cast("list[object]", graders)
    named = {_mapping(grader).get("name"): grader for grader in listed}
    if not all(named) or len(named) < len(listed):
        raise ValueError("every grader of a list needs a unique name for the formula")
    return named


class Multi(Spec):
    """Several graders and a formula over their grades."""

    type: Literal["multi"]
    name: str = ""
    graders: Annotated[dict[str, SingleGrader], BeforeValidator(_by_name)]
    """Graders by their names in the formula; a list of named graders is accepted too."""
    calculate_output: str
    """Formula over the graders' names: + - * / ^, min, max, abs, floor, ceil, exp, sqrt, log."""

    @model_validator(mode="after")
    def _check_formula(self) -> Self:
        compile_formula(self.calculate_output, self.graders)
        return self

    def grade(self, context: Context) -> float:
        """Return the grade of an answer; a part that lacks a variable is 0."""
        values = dict.fromkeys(self.graders, 0.0)
        for name, part in self.graders.items():
            with suppress(Absent):
                values[name] = part.grade(context)
        try:
            return compile_formula(self.calculate_output, self.graders)(values)
        except (ArithmeticError, ValueError) as error:
            raise Unscorable(f"calculate_output fails on {values}: {error}") from error


Grader: TypeAlias = Annotated[
    Annotated[StringCheck | TextSimilarity | Multi, Field(discriminator="type")],
    BeforeValidator(_not_refused),
]


class OpenAIGrader(Scorer):
    """Grader object of OpenAI, unchanged.

    Why: the objects already define what a team accepts as right. It leaves out what their types
    leave out: `string_check` is as strict as `exact` or as lenient as `contains`.
    """

    kind = Kind.GRADED
    type: Literal["grader"] = "grader"
    name: str = "grader"
    grader: Grader | str
    """Grader object, or path of a JSON file with one."""
    _loaded: Grader | None = PrivateAttr(None)

    @property
    def closeness(self) -> str:
        parts = _parts(self._loaded) if self._loaded else ()
        alike = any(isinstance(part, TextSimilarity) for part in parts)
        return "the reference's wording" if alike else ""

    def prepare(self, setting: Setting) -> None:
        self._loaded = self.load(setting)
        for part in _parts(self._loaded):
            if isinstance(part, TextSimilarity) and part.evaluation_metric in PACKAGES:
                self.require(PACKAGES[part.evaluation_metric])

    def material(self, setting: Setting) -> JsonValue:
        if not isinstance(self.grader, str):
            return None
        return self.load(setting).model_dump(mode="json")

    def wire(self, folder: Path) -> dict[str, JsonValue]:
        """Return the object in OpenAI's format, with names; raises `JobError`."""
        content = self.load(Setting(folder)).model_dump(mode="json", exclude_none=True)
        parts = cast("dict[str, dict[str, JsonValue]]", content.get("graders", {}))
        for name, part in ((self.name, content), *parts.items()):
            part["name"] = part["name"] or name
        return content

    def judge(self, attempt: Attempt) -> Score:
        grader = self._loaded
        assert grader is not None, "`build` reads the grader"
        message: dict[str, JsonValue] = {"role": "assistant", "content": attempt.text}
        sample: dict[str, JsonValue] = {"output_text": attempt.text}
        if attempt.tool_calls:
            sample["output_tools"] = message["tool_calls"] = [*attempt.tool_calls]
        with suppress(ValueError, RecursionError):  # text that is not JSON has none
            sample["output_json"] = json.loads(attempt.text)
        sample["choices"] = [{"index": 0, "message": message}]
        try:
            grade = grader.grade({"item": _item(attempt.case), "sample": sample})
        except Absent as error:
            return Score(0.0, str(error))
        if isinstance(grader, TextSimilarity) and grader.pass_threshold is not None:
            grade = float(grade >= grader.pass_threshold)
        return Score(share(grade, "the grader gave"))

    def refusal(self, case: Case) -> str | None:
        assert self._loaded is not None, "`build` reads the grader"
        texts = "".join(part.input + part.reference for part in _parts(self._loaded))
        for variable in _PLACEHOLDER.findall(texts):
            try:
                if variable.startswith("item"):
                    look_up(variable, {"item": _item(case)})
            except Absent:
                return f"the row has no {variable.removeprefix('item.')!r}, which the grader reads"
        return None

    def load(self, setting: Setting) -> Grader:
        """Return the grader, read from its file if it names one; raises `JobError`."""
        if not isinstance(self.grader, str):
            return self.grader
        try:
            return TypeAdapter[Grader](Grader).validate_python(self.json_of(self.grader, setting))
        except ValidationError as error:
            path, why = setting.folder / self.grader, first_problem(error)
            raise JobError(f"{path}: the grader is not supported: {why}.") from error


def _parts(grader: Grader) -> list[StringCheck | TextSimilarity]:
    return [*grader.graders.values()] if isinstance(grader, Multi) else [grader]


def _item(case: Case) -> dict[str, JsonValue]:
    expected = {} if case.answer is None else {"expected": case.answer}
    return {**expected, **case.content}
