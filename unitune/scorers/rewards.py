"""Grade all answers to a prompt together with any finite number, for ``method: rft`` only.

    def shortest(answers: list[str], case: unitune.Example) -> list[float]

A parameter `trajectories` gets the turns of each dialogue (`evaluate.dialogue`), as in `python`.
A reward function returns one entry per answer, in order: a number, True or False, None if it cannot
grade the answer, or a dictionary with such a `score` and optionally a `reason`. An ``async def``
runs in a separate event loop per group, and groups run concurrently.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Sequence
from typing import Annotated, Literal, cast

from pydantic import Field

from unitune.scorers.functions import FunctionScorer, read_number
from unitune.scorers.interface import Attempt, Case, Kind, Score, Scorer, Turn, Unscorable
from unitune.security.addresses import Address


def grade(
    scorer: Scorer, case: Case, texts: Sequence[str], trajectories: Sequence[Sequence[Turn]] = ()
) -> list[Score]:
    """Score all answers to a case by a prepared scorer; failures are recorded in the scores."""
    if not isinstance(scorer, RewardFunction):
        paths = trajectories or [()] * len(texts)
        pairs = zip(texts, paths, strict=True)
        return [scorer.score(Attempt(case, text, trajectory=path)) for text, path in pairs]
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
    row. The server responds with ``{"scores": [...]}``, one entry per answer: a number, null if it
    cannot grade the answer, or ``{"score": 0.5, "reason": "..."}``. A failed request (no response,
    status 408, 429 or from 500) is retried with increasing pauses. No key is sent.
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
