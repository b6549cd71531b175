"""The one interface of all scorers: an `Attempt` at a case goes in, a `Score` comes out.

A scorer is one class: its fields are its options in a job file, its docstring's first line is what
reports and documentation call it, and its methods score. It sees what was answered and what was
expected, never the model, the prompt or another case: the same rows always give the same scores, so
a changed scorer rescores without new requests.

    class Shout(Scorer):
        \"\"\"The answer is the expected one in capitals.\"\"\"

        type: Literal["shout"] = "shout"
        name: str = "shout"

        def judge(self, attempt: Attempt) -> bool:
            return attempt.text == attempt.expected.upper()

That file in this folder is all: job files, JSON Schema, reports and documentation follow.

Scores are shares from 0 to 1, and more is better. A scorer that is more than a mean over cases
(BLEU, F1 over classes) has the kind corpus and overrides `sums`; its score of a single case is for
people to read. A scorer that cannot score raises `Unscorable`, and the case is recorded so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self, TypeAlias, cast

from pydantic import JsonValue, PrivateAttr

from unitune.errors import JobError, MissingExtra, UnituneError
from unitune.security.json_fields import whole_text
from unitune.security.spec import Closed, Typed
from unitune.workspace.filesystem import content_of
from unitune.workspace.install import install_command

if TYPE_CHECKING:
    from unitune.scorers.formulas import Sums

ToolCalls: TypeAlias = tuple[dict[str, JsonValue], ...]  # calls of tools in OpenAI's form


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


def share(value: float, subject: str) -> float:
    """Return a value that is a share from 0 to 1, but for rounding.

    Raises:
        Unscorable: It is not.
    """
    if not -1e-9 <= value <= 1 + 1e-9:
        raise Unscorable(f"{subject} {value!r}; a score is from 0 to 1")
    return min(1.0, max(0.0, value))


class Turn(Protocol):
    """What scorers read of a message."""

    @property
    def role(self) -> str: ...
    @property
    def tool_calls(self) -> ToolCalls | None: ...


class Case(Protocol):
    """What scorers read of a case; `unitune.Example` is one."""

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
    """An answer as measures see it; None is not known."""

    text: str
    tokens: int | None = None  # as the backend counted them
    seconds: float | None = None  # from request to the whole answer
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An answer to a case: all that a scorer sees."""

    case: Case
    text: str  # empty where there was no answer
    tool_calls: ToolCalls = ()
    # Scores that stand beside a recorded answer
    given: Mapping[str, float] = field(default_factory=dict[str, float])
    measured: Measured | None = None  # what measures see of it; None where that is not known
    # Why it ended, in the vendor's word; None where that is not known
    finish_reason: str | None = None

    @property
    def expected(self) -> str:
        """What should have been answered."""
        return self.case.answer or ""


@dataclass(frozen=True, slots=True)
class Score:
    """How good an answer is."""

    value: float  # from 0 to 1
    reason: str = ""  # why, in a few words
    failed: bool = False  # whether the scorer could not score it; the value is then 0


@dataclass(frozen=True, slots=True)
class Setting:
    """What scorers need of the job beside their options."""

    folder: Path = Path()
    labels: tuple[str, ...] = ()


class Confusion(Closed):
    """Which label was answered how often where which was expected."""

    labels: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    """By expected label, then by answered one, which is "" for none; what is 0 is left out."""


class Entry(Typed):
    """An entry of a job's `scorers`: a `Scorer`, or a measure that decides nothing."""

    version: ClassVar[int] = 1
    """Raised when the same options begin to give other scores, so that a stored baseline shows."""
    needs_expected: ClassVar[bool] = True
    """Whether a case must have an expected answer."""
    grades_groups: ClassVar[bool] = False
    """Whether it grades all answers to a prompt together, as a reward of rft alone."""
    name: str

    @classmethod
    def type_name(cls) -> str:
        """Return its type, as job files have it."""
        return cast("str", cls.model_fields["type"].default)

    @classmethod
    def words(cls) -> str:
        """What it is, for a sentence: the docstring's first line."""
        first = (cls.__doc__ or "").partition("\n")[0].rstrip(".")
        acronym = first[1:2].isupper() or first[1:2].isdigit()
        return first if acronym else first[:1].lower() + first[1:]


class Scorer(Entry):
    """What all scorers share; `build` makes one ready to score."""

    kind: ClassVar[Kind] = Kind.BINARY
    expects_text: ClassVar[bool] = False
    """Whether no answer could be right where an empty one is expected."""
    compares_wording: ClassVar[bool] = False
    """Whether a higher score says only that an answer is closer to the expected one's wording."""
    packages: ClassVar[tuple[str, ...]] = ()
    """What it needs beyond a plain install, of the extra `metrics`."""
    _fingerprint: str = PrivateAttr("")

    @property
    def fingerprint(self) -> str:
        """Changes when the same answer may get another score; empty before `build`."""
        return self._fingerprint

    @property
    def closeness(self) -> str:
        """What its score is closeness to; empty where it says whether an answer is right."""
        return "the reference's wording" if self.compares_wording else ""

    @property
    def caution(self) -> str:
        """What a score that measures closeness cannot show, as a sentence; else empty."""
        return self.closeness and (
            f"{self.name} measures closeness to {self.closeness}. It cannot show that an answer is "
            "right, or that readers prefer it: a wrong fact in the reference's words scores high."
        )

    def ready(self, setting: Setting, fingerprint: str) -> Self:
        """Return the scorer with everything that scoring needs."""
        for package in self.packages:
            self.require(package)
        made = self.model_copy()
        made.prepare(setting)
        made._fingerprint = fingerprint  # noqa: SLF001 - its own
        return made

    def require(self, package: str) -> None:
        """Refuse the scorer where a package is not installed.

        Raises:
            MissingExtra: The message has the install command.
        """
        if find_spec(package) is None:
            raise MissingExtra(
                f"the scorer {self.name!r} needs the package {package!r}, which is not installed. "
                f"Install it with: {install_command('metrics')}"
            )

    def json_of(self, option: JsonValue, setting: Setting) -> JsonValue:
        """Return an option that is JSON, or that is the path of a JSON file.

        Raises:
            JobError: The file cannot be read, or is not JSON.
        """
        if not isinstance(option, str):
            return option
        path = setting.folder / option
        try:
            return json.loads(content_of(path))
        except (OSError, ValueError, RecursionError) as error:
            raise JobError(
                f"{path}: the scorer {self.name!r} cannot be made of it: {error}"
            ) from error

    def prepare(self, setting: Setting) -> None:
        """Load what judging takes: labels, a schema, a function."""

    def material(self, setting: Setting) -> JsonValue:
        """Return what scores depend on and no option holds, such as a file's content."""
        return None

    def judge(self, attempt: Attempt) -> float | Score:
        """Score one attempt; may raise, which fails that case alone."""
        raise NotImplementedError

    def asserted(self, case: Case) -> str:
        """Say what it wants of an answer beside the expected one; empty: nothing."""
        return ""

    def refusal(self, case: Case) -> str | None:
        """Say why no answer to a case could ever be right; None where one can."""
        blank = self.expects_text and not (case.answer or "").strip()
        return "the expected answer is empty" if blank else None

    def indulgence(self, case: Case) -> str | None:
        """Say why every answer to a case would be right; None where one can be wrong."""
        return None

    def wrong_already(self, attempt: Attempt) -> bool:
        """Whether an answer that was cut off is wrong, whatever would have followed."""
        return False

    def confusion(self, attempts: Sequence[Attempt]) -> Confusion | None:
        """Return which label was answered where which was expected; None: it has no labels."""
        return None

    def sums(self, attempts: Sequence[Attempt], scores: Sequence[float]) -> Sums:
        """Return what the score over all cases, or over any resample of them, is made of."""
        from unitune.scorers.formulas import mean_of  # noqa: PLC0415 - brings numpy

        return mean_of(scores)

    def score(self, attempt: Attempt) -> Score:
        """Score one attempt; what goes wrong with it is in the score, never raised.

        Raises:
            UnituneError: What scores are made of cannot be had, such as from an endpoint.
        """
        try:
            judged = self.judge(attempt)
            score = judged if isinstance(judged, Score) else Score(float(judged))
            return Score(share(score.value, "the score is"), whole_text(score.reason), score.failed)
        except UnituneError:
            raise
        except Unscorable as error:
            return Score(0.0, whole_text(str(error)), failed=True)
        except Exception as error:  # noqa: BLE001 - no text that a model writes ends a command
            why = f"{type(error).__name__}: {error}"
            return Score(0.0, whole_text(why[:300]), failed=True)


def leaves(base: type[Entry]) -> list[type[Entry]]:
    """Return the classes below that have a type of their own, and so are entries of a job."""
    below = [leaf for each in base.__subclasses__() for leaf in leaves(each)]
    return [base, *below] if "type" in base.model_fields else below
