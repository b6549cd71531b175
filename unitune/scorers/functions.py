"""Score by a user's function (`python`), or by another tool's recorded score.

    def polite(answer: str, case: unitune.Example) -> float | bool | dict

The function is in a file or an installed module. `case.answer` is the expected answer, and custom
keys are in `case.model_extra`. It returns True or False, a number from 0 to 1, or a dictionary with
a `score` and optionally a `reason`. An exception fails only that case. The function runs in this
process and must be deterministic, because answers are rescored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal, SupportsFloat, TypeAlias, cast

from pydantic import BaseModel, Field, JsonValue, PrivateAttr

from unitune.errors import JobError
from unitune.files.filesystem import content_of
from unitune.scorers.interface import Attempt, Kind, Score, Scorer, Setting, Unscorable, share
from unitune.scorers.user_function import REFERENCE, UserFunction

Function: TypeAlias = Callable[..., object]


def read_score(returned: object) -> Score:
    """Return a function's result as a score from 0 to 1; raises `Unscorable`."""
    score = read_number(returned)
    return Score(share(score.value, "it returned"), score.reason)


def read_number(returned: object) -> Score:
    """Return a function's result as a score of any size; raises `Unscorable`."""
    reason = ""
    if isinstance(returned, Mapping):
        content = cast("Mapping[str, object]", returned)
        if "score" not in content:
            raise Unscorable(f"it returned {dict(content)!r}, which has no `score`"[:300])
        returned, reason = content["score"], str(content.get("reason") or "")
    try:
        value = float(cast("SupportsFloat", returned))
    except (TypeError, ValueError) as error:
        raise Unscorable(f"it returned {returned!r}, which is not a number"[:300]) from error
    return Score(value, reason)


class FunctionScorer(Scorer):
    """Base of scorers that call a user's function."""

    function: Annotated[str, Field(pattern=REFERENCE)]
    """``checks.py:polite``, relative to the job's folder, or ``package.module:polite``."""
    _function: Function | None = PrivateAttr(None)

    def prepare(self, setting: Setting) -> None:
        self._function = self._code(setting.folder).load()

    @property
    def loaded(self) -> Function:
        """The imported function."""
        assert self._function is not None, "`ready` imports it"
        return self._function

    def material(self, setting: Setting) -> JsonValue:
        return self._code(setting.folder).source()

    def check(self, folder: Path) -> None:
        """Raise `JobError` for a missing function, without running any of its code."""
        self._code(folder).check()

    def _code(self, folder: Path) -> UserFunction:
        return UserFunction(self.function, folder, f"the scorer {self.name!r}")


class PythonFunction(FunctionScorer):
    """Custom Python function ``def f(answer, case)``."""

    kind = Kind.GRADED
    type: Literal["python"] = "python"
    name: str = "python"

    def judge(self, attempt: Attempt) -> Score:
        try:
            returned = self.loaded(attempt.text, attempt.case)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise Unscorable(f"{type(error).__name__}: {error}"[:300]) from error
        return read_score(returned)


class ScoredAnswer(BaseModel):
    """An answer with another tool's scores; other keys are ignored."""

    case: str
    text: str
    scores: dict[str, float]


class RecordedScore(Scorer):
    """Score that another tool gave to an answer, stored with it or in a file.

    Why: scores from a judge or from code that runs nowhere else get a paired verdict without being
    computed again. It leaves out whether the other tool scored well, and every answer that it did
    not score.

    A `file` scores answers of any contender: compare once with another scorer, add `scores` to each
    line of the comparison's ``rows.jsonl``, and name that file here. A score counts only for its
    exact answer.
    """

    kind = Kind.GRADED
    needs_expected = False
    type: Literal["recorded_score"] = "recorded_score"
    name: str = "recorded_score"
    key: str
    """Key in the answer's `scores`, such as `match` or ``acc,none``."""
    file: str | None = None
    """JSON Lines with `case`, `text` (the answer) and `scores`; None for scores stored with
    answers."""
    _scores: Mapping[tuple[str, str], Mapping[str, float]] = PrivateAttr({})

    def prepare(self, setting: Setting) -> None:
        self._scores = {(row.case, row.text): row.scores for row in self._read(setting)}

    def _read(self, setting: Setting) -> list[ScoredAnswer]:
        if self.file is None:
            return []
        path = setting.folder / self.file
        try:
            return list(map(ScoredAnswer.model_validate_json, content_of(path).splitlines()))
        except (OSError, ValueError) as error:
            raise JobError(
                f"{path}: the scorer {self.name!r} cannot read this file. Each line needs case, "
                f"text and scores: {error}"
            ) from error

    def material(self, setting: Setting) -> JsonValue:
        return [row.model_dump() for row in self._read(setting)] or None

    def judge(self, attempt: Attempt) -> float:
        given, where = attempt.given, "with the recorded answer"
        if self.file is not None:
            given = self._scores.get((attempt.case.case_id, attempt.text), {})
            where = f"in {self.file} for this answer"
        if self.key not in given:
            there = ", ".join(given) or "none"
            raise Unscorable(f"score {self.key!r} is missing {where}; available: {there}")
        return share(given[self.key], f"{self.key} is")
