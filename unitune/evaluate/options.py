"""Options of `compare` and of other commands that let models answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from unitune.evaluate.inference.engine import EvaluationProgress

Notify = Callable[[EvaluationProgress], None]


def ignore(_: object) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerOptions:
    """Options for answers; see `unitune.compare`."""

    deploy_seconds: float | None = None
    deploy_options: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    batch: bool = False
    replay: bool = False
    use_cache: bool = False
    allow_unpriced: bool = False
    progress: Notify = ignore
    announce: Callable[[str], None] = ignore


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions(AnswerOptions):
    """Options for comparing contenders; see `unitune.compare`."""

    out: str | os.PathLike[str] | None = None
    update_baseline: bool = False
    limit: int | None = None
    new_answers: str | None = None
    # True for a check of a model in use: all answers are new, and nothing is chosen
    verifies: bool = False
