"""The one interface of all scorers: an `Attempt` at a case goes in, a `Score` comes out.

A `Scorer` is made of its specification by `unitune.evaluate.scorers.build`. It sees what was
answered and what was expected, never the model, the prompt or another case, and it keeps nothing:
the same rows always give the same scores, so that a changed scorer rescores without asking again.

Scores are shares from 0 to 1, and more is better. What is more than a mean over cases (BLEU, F1
over classes) says in `over_all` from which sums it is made; its score of a single case is for
people to read. A scorer that cannot say raises `Unscorable`, and the case is recorded so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from unitune.data.example import Example
from unitune.errors import BackendError, UnituneError
from unitune.evaluate.results import Confusion, Record
from unitune.evaluate.scorers.sums import Sums, mean_of
from unitune.job.scorers import QualitySpec
from unitune.models import ToolCalls
from unitune.security.json_fields import whole_text

T = TypeVar("T")


class Kind(StrEnum):
    """What the scores of cases are, and how they make up the score of all."""

    BINARY = "binary"
    """0 or 1; the score is their mean."""
    GRADED = "graded"
    """From 0 to 1; the score is their mean."""
    CORPUS = "corpus"
    """From 0 to 1; the score is made of all cases together."""


class Unscorable(Exception):
    """A scorer cannot say how good an answer is, through no fault of the answer."""


def guarded(call: Callable[[], T]) -> T:
    """Return what code that is not ours returns.

    Raises:
        Unscorable: It raised, whatever it was; only Ctrl-C goes through.
    """
    try:
        return call()
    except (Exception, SystemExit) as error:
        raise Unscorable(f"{type(error).__name__}: {error}"[:300]) from error


def share(value: float, who: str) -> float:
    """Return a value that is a share from 0 to 1, but for rounding.

    Raises:
        Unscorable: It is not.
    """
    if not -1e-9 <= value <= 1 + 1e-9:
        raise Unscorable(f"{who} {value!r}; a score is from 0 to 1")
    return min(1.0, max(0.0, value))


@dataclass(frozen=True, slots=True)
class Attempt:
    """An answer to a case: all that a scorer sees.

    Args:
        case: What was asked, with what was expected.
        text: What was answered; empty where there was no answer.
        tool_calls: Which tools the answer calls.
        given: Scores that stand beside a recorded answer.
    """

    case: Example
    text: str
    tool_calls: ToolCalls = ()
    given: Mapping[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def of(cls, case: Example, record: Record) -> Attempt:
        """Return what was recorded as an attempt; an error is an empty one."""
        if record.error:
            return cls(case, "")
        return cls(case, record.text, record.tool_calls or (), record.given or {})

    @property
    def expected(self) -> str:
        """What should have been answered."""
        return self.case.answer or ""


@dataclass(frozen=True, slots=True)
class Score:
    """How good an answer is.

    Args:
        value: From 0 to 1.
        reason: Why, in a few words; may be empty.
        failed: Whether the scorer could not say; the value is then 0, and the reason says why.
    """

    value: float
    reason: str = ""
    failed: bool = False


class Paid(Protocol):
    """What scorers that ask a model pay with (`unitune.evaluate.inference.budget`)."""

    def afford(self, scorer: str, most: int) -> None:
        """Refuse to ask where so many tokens may pass what may be spent."""
        ...

    def pay(self, scorer: str, key: str, most: int, told: int | None) -> None:
        """Count what was asked: at most so many tokens, and as many as the endpoint says."""
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What scorers need of the job beside their options.

    Args:
        folder: Where relative paths start.
        labels: Distinct answers of train, in their order; for scorers that look for labels.
        cache: Folder for what is dear to compute twice.
        paid: Pays for what a scorer asks of a model; None: nobody counts.
        replay: Whether nobody may be asked.
    """

    folder: Path = Path()
    labels: tuple[str, ...] = ()
    cache: Path = Path()
    paid: Paid | None = None
    replay: bool = False


def _any_answer_may_be_right(_: Example) -> str | None:
    return None


def _some_answer_may_be_wrong(_: Example) -> str | None:
    return None


def _may_yet_be_right(_: Attempt) -> bool:
    return False


def _nothing_to_fetch(_: Sequence[Attempt]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Scorer:
    """A scorer that is ready to score.

    Args:
        spec: What it was made of.
        kind: What its scores are.
        judge: Scores one attempt; may raise, which fails that case alone.
        refusal: Says why no answer to a case could ever be right; None where one can.
        indulgence: Says why every answer to a case would be right; None where one can be wrong.
        wrong_already: Whether an answer that was cut off is wrong, whatever would have followed.
        fetch: Gets at once what judging many attempts takes, for scorers that ask a server.
        over_all: Sums that the score of all cases is made of; None: the mean over cases.
        confusion: Which label was answered where which was expected, for scorers of labels.
        fingerprint: Changes when the same answer may get another score; `build` sets it.
    """

    spec: QualitySpec
    kind: Kind
    judge: Callable[[Attempt], float | Score]
    refusal: Callable[[Example], str | None] = _any_answer_may_be_right
    indulgence: Callable[[Example], str | None] = _some_answer_may_be_wrong
    wrong_already: Callable[[Attempt], bool] = _may_yet_be_right
    fetch: Callable[[Sequence[Attempt]], None] = _nothing_to_fetch
    over_all: Callable[[Sequence[Attempt]], Sums] | None = None
    confusion: Callable[[Sequence[Attempt]], Confusion] | None = None
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """Under which its scores stand."""
        return self.spec.name

    def score(self, attempt: Attempt) -> Score:
        """Score one attempt; what goes wrong with it is in the score, never raised.

        Raises:
            UnituneError: What scores are made of cannot be had, such as from an endpoint.
        """
        try:
            found = self.judge(attempt)
            score = found if isinstance(found, Score) else Score(float(found))
            return Score(share(score.value, "the score is"), whole_text(score.reason), score.failed)
        except UnituneError:
            raise
        except Unscorable as error:
            return Score(0.0, whole_text(str(error)), failed=True)
        except Exception as error:  # noqa: BLE001 - no text that a model writes ends a command
            why = f"{type(error).__name__}: {error}"
            return Score(0.0, whole_text(why[:300]), failed=True)

    def prepare(self, attempts: Sequence[Attempt]) -> None:
        """Get at once what judging these attempts takes.

        Raises:
            UnituneError: It cannot be had.
        """
        try:
            self.fetch(attempts)
        except UnituneError:
            raise
        except Exception as error:
            raise BackendError(
                f"the scorer {self.name} cannot get what it scores by: "
                f"{type(error).__name__}: {error}"[:500]
            ) from error

    def sums(self, attempts: Sequence[Attempt], scores: Sequence[float]) -> Sums:
        """Return what the score over all cases, or over any resample of them, is made of.

        Args:
            attempts: One a case.
            scores: What `score` gave them; 0 for a case in error.
        """
        if self.over_all is not None:
            return self.over_all(attempts)
        return mean_of(np.asarray(scores, dtype=np.float64))
