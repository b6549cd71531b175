"""Let a language model judge answers: by the clauses of a rubric, or two answers side by side.

The judge's requests are sent after all contenders have answered (`unitune.evaluate.judging`); this
scorer reads their results. Without labels of people (`evaluate.labels`) a judge is shown next to
the other scorers, and no verdict rests on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import fmean
from textwrap import shorten
from typing import Annotated, Literal, Self, cast

from pydantic import Field, JsonValue, field_validator, model_validator

from unitune.documents import Spec
from unitune.errors import JobError
from unitune.scorers.interface import Attempt, Case, Kind, Score, Scorer, Unscorable
from unitune.security.addresses import Address, VariableName

# More steps are not told apart: scores of wide numeric scales cluster at 7 and 8 of 10
MOST_STEPS = 5
COLUMN_CHARACTERS = 60  # of a clause in a heading
PASS_FAIL = ("fail", "pass")
_NUMBER = re.compile(r"\s*[-+]?\d+([.,]\d+)?\s*")
NO_NUMBERS = (
    "a numeric scale is refused: judges give nearly all answers a 7 or an 8, so its steps mean "
    f"nothing. Name 2 to {MOST_STEPS} steps, worst first, such as [wrong, incomplete, right], or "
    "leave `scale` out for pass and fail"
)


class ColumnText(Spec):
    """Text that each row brings itself."""

    column: Annotated[str, Field(min_length=1)]
    """Custom key of the rows with the text."""

    def of(self, case: Case) -> str:
        """Return the text of a case; empty without one."""
        return "; ".join(_texts(case.content.get(self.column)))


class NamedModel(Spec):
    """Chat model of a backend or a server that is not a contender."""

    model: str
    """Name of the model at its backend or server."""
    backend: str | None = None
    """Backend of the model; `unitune backends` lists them."""
    url: Address | None = None
    """Base URL of a server with OpenAI's chat completions API, instead of a backend."""
    api_key_variable: VariableName | None = None
    """Environment variable with the server's key. You must allow it for this address first
    (`unitune keys allow`)."""

    @model_validator(mode="after")
    def _at_one_place(self) -> Self:
        if (self.backend is None) == (self.url is None):
            raise ValueError("give either the backend of the model or the url of a server")
        if self.api_key_variable and self.url is None:
            raise ValueError("api_key_variable is for a server with a url")
        return self


class Judge(NamedModel, Scorer):
    """A language model grades the answer.

    With `rubric`, the judge reads one answer and gives each clause a step of the scale (pass or
    fail). The score is the lowest step of any clause, so an answer passes if it meets all of them.
    With `compare`, it reads the answers of the candidate and of another contender, twice with the
    order swapped. Two equal verdicts count as a win; a tie, or verdicts that follow the order,
    count as half for both.

    Why: open-ended answers have no single right text. It leaves out whatever the judge does not
    notice or prefers for other reasons, such as length; `evaluate.labels` calibrates it.
    """

    kind = Kind.GRADED
    needs_expected = False
    type: Literal["judge"] = "judge"
    name: Annotated[str, Field(min_length=1)] = "judge"
    rubric: tuple[Annotated[str, Field(min_length=1)] | ColumnText, ...] = ()
    """Clauses that a good answer meets. ``{column: notes}`` takes the clause from each row."""
    compare: Annotated[str, Field(min_length=1)] | None = None
    """Criterion that decides between two answers, such as ``more helpful to the customer``."""
    scale: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=2)] = (
        PASS_FAIL
    )
    """Names of the steps for each clause, worst first; at most five, no numbers."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature of the judge."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest judgement in tokens, with its reasons."""
    images: bool = True
    """Send the images of a question, too, which the judging model must accept."""

    @field_validator("scale", mode="before")
    @classmethod
    def _named_steps(cls, value: object) -> object:
        steps = cast("Sequence[object]", value if isinstance(value, list | tuple) else [value])
        names = [str(step) for step in steps]
        if len(names) < 2 or any(_NUMBER.fullmatch(name) for name in names):
            raise ValueError(NO_NUMBERS)
        if len(names) > MOST_STEPS or len(set(map(str.casefold, names))) < len(names):
            raise ValueError(f"name 2 to {MOST_STEPS} different steps, worst first")
        return names

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if bool(self.rubric) == (self.compare is not None):
            raise ValueError("give either a rubric (clauses) or compare (a criterion)")
        if self.compare is not None and self.scale != PASS_FAIL:
            raise ValueError("compare does not take a scale; a rubric does")
        return self

    @property
    def closeness(self) -> str:
        """Empty: a judge does not measure closeness."""
        return ""

    @property
    def clause_names(self) -> tuple[str, ...]:
        """Each clause, or the column that it is taken from."""
        return tuple(
            each if isinstance(each, str) else f"column {each.column}" for each in self.rubric
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Short name of each clause, as a column of the report."""
        names = (each if isinstance(each, str) else each.column for each in self.rubric)
        return tuple(f"{self.name}: {shorten(name, COLUMN_CHARACTERS)}" for name in names)

    def clauses(self, case: Case) -> tuple[str, ...]:
        """Return the rubric's clauses for a case. Raises JobError if its row lacks a column."""
        return tuple(self._clause(each, case) for each in self.rubric)

    def _clause(self, clause: str | ColumnText, case: Case) -> str:
        if isinstance(clause, str):
            return clause
        if not (text := clause.of(case)):
            raise JobError(
                f"the rubric of the scorer {self.name!r} takes a clause from the column "
                f"{clause.column!r}, but test case {case.case_id} has no text there. Add it to "
                "the row, or remove the clause."
            )
        return text

    def value(self, step: str) -> float:
        """Return a step's value, from 0 for the worst to 1 for the best."""
        return self.scale.index(step) / (len(self.scale) - 1)

    def reward(self, verdicts: Sequence[str]) -> float:
        """Return the mean value of an answer's clauses, which also rewards partial progress."""
        return fmean(map(self.value, verdicts))

    def judge(self, attempt: Attempt) -> Score:
        if (score := attempt.judged.get(self.name)) is None:
            raise Unscorable("the judge gave no verdict on this answer")
        return score


def _texts(value: JsonValue) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str | int | float) and str(each).strip():
            yield str(each).strip()
