"""Scores from elsewhere: a function of the user's (`python`), what another tool gave.

    def polite(answer: str, case: unitune.Example) -> float | bool | dict

A function stands in a file or an installed module. It gets the answer's text and the case, whose
`answer` is the expected one and whose custom keys are in `model_extra`. It returns True or False, a
number from 0 to 1, or a dictionary with such a `score` and a `reason` or none. What it raises, or
returns otherwise, is recorded as the failure of that one case. It runs in this process, and should
give the same score for the same answer on every call, or rescoring means nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal, SupportsFloat, TypeAlias, cast

from pydantic import BaseModel, Field, JsonValue, PrivateAttr

from unitune.errors import JobError
from unitune.scorers.interface import Attempt, Kind, Score, Scorer, Setting, Unscorable, share
from unitune.scorers.user_function import REFERENCE, UserFunction
from unitune.workspace.filesystem import content_of

Function: TypeAlias = Callable[..., object]


def read_score(returned: object) -> Score:
    """Return what a user's function returned as a score.

    Raises:
        Unscorable: It is none.
    """
    score = read_number(returned)
    return Score(share(score.value, "it returned"), score.reason)


def read_number(returned: object) -> Score:
    """Return what a user's function returned as a score of any size.

    Raises:
        Unscorable: It is not a number, nor a dictionary with a number as `score`.
    """
    reason = ""
    if isinstance(returned, Mapping):
        content = cast("Mapping[str, object]", returned)
        if "score" not in content:
            raise Unscorable(f"it returned {dict(content)!r}, which has no `score`"[:300])
        returned, reason = content["score"], str(content.get("reason") or "")
    try:
        value = float(cast("SupportsFloat", returned))
    except (TypeError, ValueError) as error:
        raise Unscorable(f"it returned {returned!r}, which is no number"[:300]) from error
    return Score(value, reason)


class FunctionScorer(Scorer):
    """What scorers by a function of the user's have in common."""

    function: Annotated[str, Field(pattern=REFERENCE)]
    """``checks.py:polite``, a file from the job's folder, or ``package.module:polite``."""
    _function: Function | None = PrivateAttr(None)

    def prepare(self, setting: Setting) -> None:
        self._function = self._code(setting.folder).load()

    @property
    def loaded(self) -> Function:
        """The function, once the scorer is ready."""
        assert self._function is not None, "`ready` imports it"
        return self._function

    def material(self, setting: Setting) -> JsonValue:
        return self._code(setting.folder).source()

    def check(self, folder: Path) -> None:
        """Refuse a function that is not there, by its file alone: none of its code runs.

        Raises:
            JobError: The file is missing or no Python, or has nothing of that name.
        """
        self._code(folder).check()

    def _code(self, folder: Path) -> UserFunction:
        return UserFunction(self.function, folder, f"the scorer {self.name!r}")


class PythonFunction(FunctionScorer):
    """A function of yours scores: ``def f(answer, case)``."""

    kind = Kind.GRADED
    type: Literal["python"] = "python"
    name: str = "python"

    def judge(self, attempt: Attempt) -> Score:
        try:
            returned = self.loaded(attempt.text, attempt.case)
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise Unscorable(f"{type(error).__name__}: {error}"[:300]) from error
        return read_score(returned)


class ScoredAnswer(BaseModel):
    """An answer with the scores that another tool gave it; other keys are ignored."""

    case: str
    text: str
    scores: dict[str, float]


class RecordedScore(Scorer):
    """The score that another tool gave to an answer, kept beside it or in a file.

    Why: what a team has measured already, by a judge or by code that runs nowhere else, gets its
    paired verdict without being measured again. It leaves out everything: whether the other tool
    scored well, and every answer that it has not seen.

    A `file` scores answers of any contender, tuned and few-shot ones too: compare once by another
    scorer, add `scores` to each line of the comparison's ``rows.jsonl``, and name that file here.
    A score counts for the answer that it was given for; a new answer to the case has none.
    """

    kind = Kind.GRADED
    needs_expected = False
    type: Literal["recorded_score"] = "recorded_score"
    name: str = "recorded_score"
    key: str
    """Which of the answer's `scores`, such as `match` or ``acc,none``."""
    file: str | None = None
    """JSON Lines with `case`, `text` (the answer) and `scores`; None: the scores beside answers."""
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
                f"{path}: the scorer {self.name!r} cannot read it. Each line needs case, text and "
                f"scores: {error}"
            ) from error

    def material(self, setting: Setting) -> JsonValue:
        return [row.model_dump() for row in self._read(setting)] or None

    def judge(self, attempt: Attempt) -> float:
        given, where = attempt.given, "beside the recorded answer"
        if self.file is not None:
            given = self._scores.get((attempt.case.case_id, attempt.text), {})
            where = f"in {self.file} for this answer"
        if self.key not in given:
            there = ", ".join(given) or "none"
            raise Unscorable(f"no score {self.key!r} stands {where}; there: {there}")
        return share(given[self.key], f"{self.key} is")
