"""The scorer `grader`: OpenAI's grader objects, computed on this machine.

A row of the test file is the grader's `item`, with its `expected` answer; the answer is its
`sample`: `output_text`, `output_tools`, and `output_json` where the text is JSON. A variable that
the answer lacks (``sample.output_json.name`` of an answer that is not JSON) is the model's failure,
and that grade is 0. A key that the row lacks is refused before any request.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from pydantic import JsonValue, PrivateAttr, TypeAdapter, ValidationError, model_validator

from unitune.errors import JobError
from unitune.scorers.grader_objects import (
    PACKAGES,
    Absent,
    Context,
    Grader,
    PythonCode,
    TextSimilarity,
    function_in,
    look_up,
    parts_of,
)
from unitune.scorers.interface import Attempt, Case, Kind, Score, Scorer, Setting, share
from unitune.workspace.filesystem import content_of


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

    @model_validator(mode="after")
    def _code_is_allowed(self) -> Self:
        if not isinstance(self.grader, str):
            self._check_code(self.grader)
        return self

    def _check_code(self, grader: Grader) -> None:
        if not self.run_code and any(isinstance(part, PythonCode) for part in parts_of(grader)):
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
        for part in parts_of(self._loaded):
            if isinstance(part, TextSimilarity) and part.evaluation_metric in PACKAGES:
                self.require(PACKAGES[part.evaluation_metric])
            if isinstance(part, PythonCode):
                try:
                    function_in(part.source)
                except Exception as error:
                    raise JobError(
                        "a grader of type python must define grade(sample, item), and its source "
                        f"fails: {type(error).__name__}: {error}"
                    ) from error

    def material(self, setting: Setting) -> JsonValue:
        if not isinstance(self.grader, str):
            return None
        return self._load(setting.folder).model_dump(mode="json")

    def judge(self, attempt: Attempt) -> Score:
        grader = self._loaded
        assert grader is not None, "`build` reads the grader"
        try:
            grade = grader.grade(_context(attempt))
        except Absent as error:
            return Score(0.0, str(error))
        if isinstance(grader, TextSimilarity | PythonCode) and grader.pass_threshold is not None:
            grade = float(grade >= grader.pass_threshold)
        return Score(share(grade, "the grader gave"))

    def refusal(self, case: Case) -> str | None:
        assert self._loaded is not None, "`build` reads the grader"
        variables = [each for part in parts_of(self._loaded) for each in part.variables]
        for variable in variables:
            try:
                if variable.startswith("item"):
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


def _context(attempt: Attempt) -> Context:
    """Return what a grader sees of an attempt."""
    message: dict[str, JsonValue] = {"role": "assistant", "content": attempt.text}
    sample: dict[str, JsonValue] = {"output_text": attempt.text}
    if attempt.tool_calls:
        sample["output_tools"] = message["tool_calls"] = [*attempt.tool_calls]
    with suppress(ValueError, RecursionError):  # a text that is no JSON has none
        sample["output_json"] = json.loads(attempt.text)
    sample["choices"] = [{"index": 0, "message": message}]
    return {"item": _item(attempt.case), "sample": sample}


def _item(case: Case) -> dict[str, JsonValue]:
    return {"expected": case.answer, **case.content}
