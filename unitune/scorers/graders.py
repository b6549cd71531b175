"""The scorer `grader`: OpenAI's grader objects, computed on this machine.

A row of the test file is the grader's `item`, with its `expected` answer; the answer is its
`sample`: `output_text`, `output_tools`, and `output_json` where the text is JSON. A variable that
the answer lacks (``sample.output_json.name`` of an answer that is not JSON) is the model's failure,
and that grade is 0. A key that the row lacks is refused before anything is asked.

Differs from OpenAI in these points, all where its guide is silent: `fuzzy_match` is rapidfuzz's
`WRatio` without case and punctuation, as in the guide's example of a grader in Python; `bleu` is
sacrebleu's sentence BLEU, and `rouge_*` is without a stemmer; Python source runs with this
machine's packages, without a sandbox and without a time limit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, cast

from pydantic import JsonValue, PrivateAttr, TypeAdapter, ValidationError, model_validator

from unitune.errors import JobError
from unitune.scorers.functions import read_score
from unitune.scorers.grader_formula import calculate, parse_formula
from unitune.scorers.grader_objects import (
    PLACEHOLDER,
    VARIABLE,
    Grader,
    Multi,
    PythonCode,
    StringCheck,
    TextSimilarity,
    code_in,
)
from unitune.scorers.interface import (
    Attempt,
    Case,
    Kind,
    Score,
    Scorer,
    Setting,
    Unscorable,
    guarded,
    share,
)
from unitune.scorers.overlap import gleu, rouge_l, rouge_n
from unitune.workspace.filesystem import content_of

Context: TypeAlias = dict[str, JsonValue]
"""`item` and `sample`, as templates and functions read them."""
Grade: TypeAlias = Callable[[Context], float]
SingleGrader: TypeAlias = StringCheck | TextSimilarity | PythonCode

_STEP = re.compile(r"\.([\w-]+)|\[(\d+)\]")


class Absent(LookupError):
    """A variable has no value here."""


def context_of(attempt: Attempt) -> Context:
    """Return what a grader sees of an attempt."""
    case = attempt.case
    message: dict[str, JsonValue] = {"role": "assistant", "content": attempt.text}
    sample: dict[str, JsonValue] = {"output_text": attempt.text}
    if attempt.tool_calls:
        calls: list[JsonValue] = list(attempt.tool_calls)
        sample["output_tools"] = message["tool_calls"] = calls
    with suppress(ValueError, RecursionError):  # a text that is no JSON has none
        sample["output_json"] = json.loads(attempt.text)
    sample["choices"] = [{"index": 0, "message": message}]
    return {"item": _item(case), "sample": sample}


def render(template: str, context: Context) -> str:
    """Return a text with its placeholders filled in: texts as they are, other values as JSON.

    Raises:
        Absent: A variable has no value.
    """
    return PLACEHOLDER.sub(lambda found: _shown(look_up(found[1], context)), template)


def look_up(variable: str, context: Context) -> JsonValue:
    """Return a variable's value.

    Raises:
        Absent: It has none.
    """
    found = VARIABLE.fullmatch(variable)
    assert found is not None, "placeholders were checked when the job was read"
    value: Any = context[found[1]]
    for key, index in _STEP.findall(found[2]):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError, TypeError):
            raise Absent(f"there is no {variable}") from None
    return cast("JsonValue", value)


class OpenAIGrader(Scorer):
    """A grader object of OpenAI, as it is.

    Why: the objects say what a team counts as right already. They leave out what their own types
    do: `string_check` is as strict as `exact` or as lenient as `contains`.
    """

    kind = Kind.GRADED
    type: Literal["grader"] = "grader"
    name: str = "grader"
    grader: Grader | str
    """The object, or the path of a JSON file that holds it."""
    run_code: bool = False
    """Whether a grader of type python may run its source in this process, with your rights."""
    _loaded: Grader | None = PrivateAttr(None)
    _grade: Grade | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _code_is_allowed(self) -> Self:
        if not isinstance(self.grader, str):
            self._check_code(self.grader)
        return self

    def _check_code(self, grader: Grader) -> None:
        if not self.run_code and code_in(grader):
            raise ValueError(
                "a grader of type python runs its source in this process, with your rights. "
                "Read it, and say `run_code: true` beside `grader`"
            )

    def prepare(self, setting: Setting) -> None:
        """Read the grader.

        Raises:
            JobError: It cannot be read, or would run code without `run_code`.
            MissingExtra: It needs a package that is not installed.
        """
        self._loaded = self._load(setting.folder)
        self._grade = _maker(self._loaded, self)

    def material(self, setting: Setting) -> JsonValue:
        if not isinstance(self.grader, str):
            return None
        return self._load(setting.folder).model_dump(mode="json")

    def judge(self, attempt: Attempt) -> Score:
        assert self._grade is not None, "`build` reads the grader"
        try:
            return Score(share(self._grade(context_of(attempt)), "the grader gave"))
        except Absent as error:
            return Score(0.0, str(error))

    def refusal(self, case: Case) -> str | None:
        assert self._loaded is not None, "`build` reads the grader"
        for variable in _item_variables(self._loaded):
            try:
                look_up(variable, {"item": _item(case)})
            except Absent:
                return f"the row has no {variable.removeprefix('item.')!r}, which the grader reads"
        return None

    def _load(self, folder: Path) -> Grader:
        if not isinstance(self.grader, str):
            return self.grader
        path = folder / self.grader
        try:
            grader: Grader = TypeAdapter[Grader](Grader).validate_json(content_of(path))
            self._check_code(grader)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise JobError(f"{path}: this is no grader that can be used here: {why}") from error
        except (OSError, ValueError) as error:
            raise JobError(
                f"{path}: the scorer {self.name!r} cannot be made of it: {error}"
            ) from error
        return grader


def _maker(grader: Grader, spec: OpenAIGrader) -> Grade:
    if isinstance(grader, Multi):
        return _multi(grader, spec)
    grade = _single(grader, spec)
    threshold = getattr(grader, "pass_threshold", None)
    return grade if threshold is None else lambda context: float(grade(context) >= threshold)


def _single(grader: SingleGrader, spec: OpenAIGrader) -> Grade:
    match grader:
        case StringCheck():
            return partial(_string_check, grader)
        case TextSimilarity():
            return _text_similarity(grader, spec)
        case PythonCode():
            return _python(grader)


def _multi(grader: Multi, spec: OpenAIGrader) -> Grade:
    """Thresholds of the parts decide nothing here: the formula takes their likeness itself."""
    formula = parse_formula(grader.calculate_output)
    parts = {name: _single(part, spec) for name, part in grader.graders.items()}

    def grade(context: Context) -> float:
        values = {name: _grade_or_zero(part, context) for name, part in parts.items()}
        try:
            return calculate(formula, values)
        except (ArithmeticError, ValueError) as error:
            raise Unscorable(f"calculate_output fails on {values}: {error}") from error

    return grade


def _grade_or_zero(part: Grade, context: Context) -> float:
    try:
        return part(context)
    except Absent:
        return 0.0


def _string_check(grader: StringCheck, context: Context) -> float:
    given, wanted = render(grader.input, context), render(grader.reference, context)
    match grader.operation:
        case "eq":
            return float(given == wanted)
        case "ne":
            return float(given != wanted)
        case "like":
            return float(wanted in given)
        case "ilike":
            return float(wanted.lower() in given.lower())


def _text_similarity(grader: TextSimilarity, spec: OpenAIGrader) -> Grade:
    likeness = _likeness(grader.evaluation_metric, spec)
    return lambda context: likeness(
        render(grader.input, context), render(grader.reference, context)
    )


def _likeness(metric: str, spec: OpenAIGrader) -> Callable[[str, str], float]:
    if metric == "gleu":
        return gleu
    if metric == "bleu":
        spec.require("sacrebleu")
        return _sentence_bleu
    if metric.startswith("rouge_") and metric != "rouge_l":
        return partial(rouge_n, n=int(metric.removeprefix("rouge_")))
    spec.require("rapidfuzz")
    return rouge_l if metric == "rouge_l" else _fuzzy_match


def _sentence_bleu(given: str, wanted: str) -> float:
    from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - an extra

    score = BLEU(effective_order=True, force=True).sentence_score(given, [wanted]).score
    return min(1.0, score / 100)


def _fuzzy_match(given: str, wanted: str) -> float:
    from rapidfuzz import fuzz, utils  # noqa: PLC0415 - an extra

    return fuzz.WRatio(given, wanted, processor=utils.default_process) / 100


def _python(grader: PythonCode) -> Grade:
    names: dict[str, Any] = {"__name__": "grader"}
    try:
        exec(compile(grader.source, "<grader>", "exec"), names)  # noqa: S102 - by run_code
        function = names["grade"]
    except Exception as error:
        raise JobError(
            "a grader of type python must define grade(sample, item), and its source fails: "
            f"{type(error).__name__}: {error}"
        ) from error

    def grade(context: Context) -> float:
        return read_score(guarded(lambda: function(context["sample"], context["item"]))).value

    return grade


def _item_variables(grader: Grader) -> list[str]:
    parts: Sequence[SingleGrader]
    parts = list(grader.graders.values()) if isinstance(grader, Multi) else [grader]
    texts = [
        text
        for part in parts
        if not isinstance(part, PythonCode)
        for text in (part.input, part.reference)
    ]
    found = [variable for text in texts for variable in PLACEHOLDER.findall(text)]
    return [variable for variable in found if variable.startswith("item")]


def _item(case: Case) -> dict[str, JsonValue]:
    return {"expected": case.answer, **case.content}


def _shown(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
