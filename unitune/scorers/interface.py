"""Interface of all scorers: an `Attempt` at a case goes in, a `Score` comes out.

A scorer is one class. Its fields are its options in a job file, and the first line of its docstring
is its name in reports and documentation. It sees the answer and the case, never the model, so a
changed scorer can rescore old answers.

    class Shout(Scorer):
        \"\"\"The answer is the expected one in capitals.\"\"\"

        type: Literal["shout"] = "shout"
        name: str = "shout"

        def judge(self, attempt: Attempt) -> bool:
            return attempt.text == attempt.expected.upper()

Put such a file in this folder; job files, JSON Schema, reports and documentation follow.

Scores are from 0 to 1, and more is better. A scorer that is not a mean over cases (BLEU, F1 over
classes) has the kind corpus and overrides `sums`. A scorer that cannot score an answer raises
`Unscorable`, which is recorded for the case.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, TypeAlias, cast

from pydantic import JsonValue, PrivateAttr

from unitune.documents import Closed, Typed
from unitune.errors import JobError, MissingExtra, UnituneError
from unitune.files.filesystem import content_of
from unitune.security.json_fields import whole_text
from unitune.workspace.install import install_command

if TYPE_CHECKING:
    from unitune.scorers.formulas import Sums

ToolCalls: TypeAlias = tuple[dict[str, JsonValue], ...]  # tool calls in OpenAI's form


class Kind(StrEnum):
    """Range of a scorer's case scores, and how they are combined."""

    BINARY = "binary"
    """0 or 1; the total is the mean."""
    GRADED = "graded"
    """Between 0 and 1; the total is the mean."""
    CORPUS = "corpus"
    """Between 0 and 1; the total is computed over all cases together."""


class Unscorable(Exception):
    """A scorer cannot score an answer for a reason other than the answer."""


def share(value: float, subject: str) -> float:
    """Return a value from 0 to 1, up to rounding; raises `Unscorable`."""
    if not -1e-9 <= value <= 1 + 1e-9:
        raise Unscorable(f"{subject} {value!r}, but a score is from 0 to 1")
    return min(1.0, max(0.0, value))


class Turn(Protocol):
    """Parts of a message that scorers read."""

    @property
    def role(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def tool_calls(self) -> ToolCalls | None: ...


class Case(Protocol):
    """Parts of a case that scorers read; `unitune.Example` is one."""

    @property
    def case_id(self) -> str: ...
    @property
    def answer(self) -> str | None: ...
    @property
    def messages(self) -> Sequence[Turn]: ...
    @property
    def tools(self) -> ToolCalls | None: ...
    @property
    def content(self) -> dict[str, JsonValue]: ...


@dataclass(frozen=True, slots=True)
class Measured:
    """An answer for measures; None means unknown."""

    text: str
    tokens: int | None = None  # as counted by the backend
    seconds: float | None = None  # from the request to the complete answer
    usd: float | None = None
    score: float | None = None  # by the deciding scorer
    # Scores of the answers to harmless changes of the same question
    changed: Mapping[str, float] = field(default_factory=dict[str, float])
    turns: int | None = None  # answers of a dialogue
    tool_errors: int | None = None  # results of its tools that are errors


@dataclass(frozen=True, slots=True)
class Attempt:
    """An answer to a case, as scorers see it."""

    case: Case
    text: str  # empty if there was no answer
    tool_calls: ToolCalls = ()
    # Scores stored with a recorded answer
    given: Mapping[str, float] = field(default_factory=dict[str, float])
    measured: Measured | None = None  # values for measures; None if unknown
    # Why the answer ended, in the vendor's word; None if unknown
    finish_reason: str | None = None
    # Turns of a dialogue after its question: answers with their calls, and results of tools
    trajectory: Sequence[Turn] = ()
    # Scores by judges, which are requested before scoring
    judged: Mapping[str, Score] = field(default_factory=dict[str, "Score"])

    @property
    def expected(self) -> str:
        """The expected answer, or an empty string."""
        return self.case.answer or ""


@dataclass(frozen=True, slots=True)
class Score:
    """Score of an answer."""

    value: float  # from 0 to 1
    reason: str = ""  # reason in a few words
    failed: bool = False  # True if the scorer could not score it; the value is then 0
    # Values of its parts, such as the clauses of a rubric, which are shown as measures
    parts: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Setting:
    """Settings of the job that scorers need."""

    folder: Path = Path()
    labels: tuple[str, ...] = ()


class Confusion(Closed):
    """Number of answers by expected and answered label."""

    labels: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    """Counts by expected, then answered label ("" for none); zeros are left out."""


class Entry(Typed):
    """Entry of a job's `scorers`: a `Scorer`, or a measure that decides nothing."""

    version: ClassVar[int] = 1
    """Version, raised when the same options give other scores, so stored baselines show it."""
    needs_expected: ClassVar[bool] = True
    """True if a case must have an expected answer."""
    grades_groups: ClassVar[bool] = False
    """True if all answers to a prompt are graded together, as by a reward of rft."""
    name: str

    @classmethod
    def type_name(cls) -> str:
        """Return the type in job files."""
        return cast("str", cls.model_fields["type"].default)

    @classmethod
    def words(cls) -> str:
        """Return the first line of the docstring, for use in a sentence."""
        first = (cls.__doc__ or "").partition("\n")[0].rstrip(".")
        acronym = first[1:2].isupper() or first[1:2].isdigit()
        return first if acronym else first[:1].lower() + first[1:]


class Scorer(Entry):
    """Base of all scorers; `build` makes one ready to score."""

    kind: ClassVar[Kind] = Kind.BINARY
    expects_text: ClassVar[bool] = False
    """True if no answer can be right when an empty one is expected."""
    compares_wording: ClassVar[bool] = False
    """True if the score only measures similarity to the expected answer's wording."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages of the extra `metrics` that the scorer needs."""
    _fingerprint: str = PrivateAttr("")

    @property
    def fingerprint(self) -> str:
        """Hash that changes when scores may change; empty before `build`."""
        return self._fingerprint

    @property
    def closeness(self) -> str:
        """Target of a score that measures closeness; empty if it measures correctness."""
        return "the reference's wording" if self.compares_wording else ""

    @property
    def caution(self) -> str:
        """Warning about a score that measures closeness, or an empty string."""
        return self.closeness and (
            f"{self.name} measures closeness to {self.closeness}. It cannot show that an answer is "
            "right or preferred by readers: a wrong fact in the reference's words scores high."
        )

    def ready(self, setting: Setting, fingerprint: str) -> Self:
        """Return a copy that is ready to score."""
        for package in self.packages:
            self.require(package)
        made = self.model_copy()
        made.prepare(setting)
        made._fingerprint = fingerprint  # noqa: SLF001 - its own
        return made

    def require(self, package: str) -> None:
        """Raise `MissingExtra` with the install command if a package is not installed."""
        if find_spec(package) is None:
            raise MissingExtra(
                f"the scorer {self.name!r} needs the package {package!r}, which is not installed. "
                f"Install it with: {install_command('metrics')}"
            )

    def json_of(self, option: JsonValue, setting: Setting) -> JsonValue:
        """Return a JSON option, read from a JSON file if it is a path; raises `JobError`."""
        if not isinstance(option, str):
            return option
        path = setting.folder / option
        try:
            return json.loads(content_of(path))
        except (OSError, ValueError, RecursionError) as error:
            raise JobError(
                f"{path}: the scorer {self.name!r} cannot use this file: {error}"
            ) from error

    def prepare(self, setting: Setting) -> None:
        """Load labels, a schema or a function."""

    def material(self, setting: Setting) -> JsonValue:
        """Return other inputs of scores, such as a file's content."""
        return None

    def judge(self, attempt: Attempt) -> float | Score:
        """Score one attempt; an exception fails only that case."""
        raise NotImplementedError

    def asserted(self, case: Case) -> str:
        """Return requirements of the case besides its expected answer, or an empty string."""
        return ""

    def refusal(self, case: Case) -> str | None:
        """Return why no answer to a case could be right, or None."""
        blank = self.expects_text and not (case.answer or "").strip()
        return "the expected answer is empty" if blank else None

    def indulgence(self, case: Case) -> str | None:
        """Return why every answer to a case would be right, or None."""
        return None

    def wrong_already(self, attempt: Attempt) -> bool:
        """Return whether a truncated answer is wrong whatever would have followed."""
        return False

    def confusion(self, attempts: Sequence[Attempt]) -> Confusion | None:
        """Return counts by expected and answered label; None without labels."""
        return None

    def sums(self, attempts: Sequence[Attempt], scores: Sequence[float]) -> Sums:
        """Return the summands of the score over all cases or a resample."""
        from unitune.scorers.formulas import mean_of  # noqa: PLC0415 - imports numpy

        return mean_of(scores)

    def score(self, attempt: Attempt) -> Score:
        """Score one attempt; failures are recorded in the score.

        Raises:
            UnituneError: A resource of the scorer is unavailable, such as an endpoint.
        """
        try:
            judged = self.judge(attempt)
            score = judged if isinstance(judged, Score) else Score(float(judged))
            value = share(score.value, "the score is")
            return replace(score, value=value, reason=whole_text(score.reason))
        except UnituneError:
            raise
        except Unscorable as error:
            return Score(0.0, whole_text(str(error)), failed=True)
        except Exception as error:  # noqa: BLE001 - no model output may end a command
            why = f"{type(error).__name__}: {error}"
            return Score(0.0, whole_text(why[:300]), failed=True)


def leaves(base: type[Entry]) -> list[type[Entry]]:
    """Return the subclasses with their own type, which are entries of a job."""
    below = [leaf for each in base.__subclasses__() for leaf in leaves(each)]
    return [base, *below] if "type" in base.model_fields else below
