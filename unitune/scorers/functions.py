"""Score by a user's function (`python`), or by another tool's recorded score.

    def polite(answer: str, case: unitune.Example) -> float | bool | dict
    def polite(answer: str, case: unitune.Example, trajectory: tuple[unitune.Message, ...]) -> …

The function is in a file or an installed module: ``FILE.py:NAME`` or ``MODULE:NAME``. `case.answer`
is the expected answer, and custom keys are in `case.model_extra`. A parameter `trajectory` gets
the turns of a dialogue after its question (`evaluate.dialogue`): answers with their `tool_calls`,
and results of tools. It returns True or False, a number from 0 to 1, or a dictionary with a `score`
and optionally a `reason`. An exception fails only that case. The function runs in this process and
must be deterministic, because answers are rescored.

For ``method: rft`` only, a reward grades all answers to a prompt together with any finite numbers:

    def shortest(answers: list[str], case: unitune.Example) -> list[float]

It may be an ``async def``. A parameter `trajectories` gets the turns of each dialogue. It returns
one entry per answer, in order: as above, or None if it cannot grade the answer.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Annotated, Any, Literal, SupportsFloat, TypeAlias, cast

from pydantic import BaseModel, Field, JsonValue, PrivateAttr

from unitune.errors import JobError
from unitune.files.filesystem import content_of
from unitune.scorers.interface import (
    Attempt,
    Case,
    Kind,
    Score,
    Scorer,
    Setting,
    Turn,
    Unscorable,
    share,
)
from unitune.security.addresses import Address

REFERENCE = r"^[^:]+:[A-Za-z_]\w*$"


def reference_to(value: Any) -> Any:
    """Return the reference to a function given in Python; raises `ValueError` if it has none."""
    if not callable(value):
        return value
    name, file = getattr(value, "__qualname__", ""), inspect.getsourcefile(inspect.unwrap(value))
    if file is None or not name.isidentifier() or not Path(file).is_file():
        raise ValueError(
            "the training is a separate process and cannot import this function. Define it with "
            "`def` at the top level of a .py file"
        )
    return f"{Path(file).resolve()}:{name}"


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A function named in a job, relative to a folder; `owner` names its user in messages."""

    reference: str
    folder: Path
    owner: str

    def load(self) -> Callable[..., object]:
        """Import the function, which runs its module; raises `JobError`."""
        module, _, name = self.reference.rpartition(":")
        spec = self._spec(module)
        try:
            if module.endswith(".py"):
                assert spec.loader is not None, "a file has a loader"
                loaded = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = loaded  # dataclasses look up their module there
                spec.loader.exec_module(loaded)
            else:
                loaded = importlib.import_module(module)
        except (Exception, SystemExit) as error:
            raise self._no_import(error) from error
        function = getattr(loaded, name, None)
        if not callable(function):
            raise self._no_function()
        return function

    def source(self) -> str | None:
        """Return the text of the function's file; None if it has none."""
        spec = module_spec(self.reference.rpartition(":")[0], self.folder)
        source = Path(spec.origin) if spec and spec.origin else None
        if source is None or not source.is_file():
            return None
        # Python files may have other encodings, and an extension module is not text.
        return source.read_text(encoding="utf-8", errors="surrogateescape")

    def check(self) -> None:
        """Raise `JobError` for a missing function, without running any of its code.

        Modules inside packages are not checked, because finding them would run the package.
        """
        module, _, name = self.reference.rpartition(":")
        is_file = module.endswith(".py")
        self._spec(module if is_file else module.partition(".")[0])
        if not is_file:
            return
        try:
            code = compile((self.folder / module).read_bytes(), module, "exec")
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._no_import(error) from error
        if name not in code.co_names and ("*",) not in code.co_consts:  # `import *`
            raise self._no_function()

    def _no_import(self, error: BaseException) -> JobError:
        module = self.reference.rpartition(":")[0]
        return JobError(f"{self.owner} cannot import {module}: {type(error).__name__}: {error}")

    def _spec(self, module: str) -> ModuleSpec:
        if spec := module_spec(module, self.folder):
            return spec
        raise JobError(
            f"{self.owner} names {self.reference.rpartition(':')[0]!r}, which is "
            f"neither a Python file in {self.folder} nor an installed module."
        )

    def _no_function(self) -> JobError:
        module, _, name = self.reference.rpartition(":")
        return JobError(f"{self.owner}: {module} has no function {name!r}.")


def module_spec(module: str, folder: Path) -> ModuleSpec | None:
    """Return the location of a file or an installed module, or None."""
    if module.endswith(".py"):
        path = folder / module
        name = f"unitune_scorer_{path.stem}"
        return importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    try:
        return importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None


Function: TypeAlias = Callable[..., object]


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

    def optional(self, name: str, value: object) -> dict[str, object]:
        """Return an optional argument, if the function has a parameter of this name."""
        try:
            has_it = name in inspect.signature(self.loaded).parameters
        except (TypeError, ValueError):  # a function written in C
            return {}
        return {name: value} if has_it else {}

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
            turns = self.optional("trajectory", tuple(attempt.trajectory))
            returned = self.loaded(attempt.text, attempt.case, **turns)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise Unscorable(f"{type(error).__name__}: {error}"[:300]) from error
        score = read_number(returned)
        return Score(share(score.value, "it returned"), score.reason)


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


def grade(
    scorer: Scorer, case: Case, texts: Sequence[str], trajectories: Sequence[Sequence[Turn]] = ()
) -> list[Score]:
    """Score all answers to a case by a prepared scorer; failures are recorded in the scores."""
    if not isinstance(scorer, RewardFunction):
        paths = trajectories or [()] * len(texts)
        attempts = [
            Attempt(case, text, (path[-1].tool_calls or ()) if path else (), trajectory=path)
            for text, path in zip(texts, paths, strict=True)
        ]
        return [scorer.score(attempt) for attempt in attempts]
    try:
        return scorer.grade(case, texts, trajectories)
    except Unscorable as error:
        why = str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        why = f"{type(error).__name__}: {error}"
    return [Score(0.0, why[:300], failed=True)] * len(texts)


class RewardFunction(FunctionScorer):
    """Custom function ``def f(answers, case)`` that returns a list of numbers."""

    kind = Kind.GRADED
    grades_groups = True
    type: Literal["reward_function"] = "reward_function"
    name: str = "reward_function"

    def grade(
        self, case: Case, texts: Sequence[str], trajectories: Sequence[Sequence[Turn]] = ()
    ) -> list[Score]:
        """Score all answers to a case; raises what the function raises."""
        paths = self.optional("trajectories", list(map(tuple, trajectories)))
        returned = self.loaded(list(texts), case, **paths)
        if inspect.isawaitable(returned):
            returned = asyncio.run(_awaited(returned))
        return read_scores(returned, len(texts))


class HttpGrader(Scorer):
    """Your HTTP server that grades a group.

    For each prompt unitune sends one POST request with the JSON object ``{"messages": [...],
    "expected": "...", "row": {...}, "answers": ["...", ...]}``; `row` holds the other keys of the
    row. If the prompt offers tools, `trajectories` holds the turns of each answer: its calls and,
    in a dialogue, their results. The server responds with ``{"scores": [...]}``, one entry per
    answer: a number, null if it cannot grade the answer, or ``{"score": 0.5, "reason": "..."}``. A
    failed request (no response, status 408, 429 or from 500) is retried with increasing pauses. No
    key is sent.
    """

    kind = Kind.GRADED
    grades_groups = True
    needs_expected = False
    type: Literal["http"] = "http"
    name: str = "http"
    url: Address
    """Address for requests."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait to connect, and for the next bytes of a response."""
    max_requests: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of requests, retries included, after which the training pauses; by default
    unlimited. Each process counts its own, and starts at 0 on a resume."""


async def _awaited(work: Awaitable[object]) -> object:
    return await work


def read_scores(returned: object, answers: int) -> list[Score]:
    """Return one score per answer from a function's or server's result; raises `Unscorable`."""
    try:
        entries = list(cast("Sequence[object]", returned))
    except TypeError as error:
        raise Unscorable(f"it returned {returned!r}, which is not a list"[:300]) from error
    if len(entries) != answers:
        raise Unscorable(f"it returned {len(entries)} scores for {answers} answers")
    return list(map(_read_entry, entries))


def _read_entry(entry: object) -> Score:
    why = "it returned no score for this answer"
    try:
        if entry is not None and math.isfinite((score := read_number(entry)).value):
            return score
    except Unscorable as error:
        why = str(error)
    return Score(0.0, why, failed=True)
