"""The configuration of an evaluation, and its responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from unitune.evaluate.inference.budget import Budget, usd
from unitune.evaluate.inference.pricing import AnswerPrices
from unitune.evaluate.inference.sources import Models
from unitune.evaluate.prompts.build import Contender
from unitune.evaluate.prompts.dev import Choice
from unitune.evaluate.records import Record
from unitune.evaluate.results import Retained
from unitune.evaluate.task import Task
from unitune.job.job import Job, TokenPrice
from unitune.models import TunedModel


@dataclass(frozen=True, slots=True)
class Answered:
    """A contender with its answers to all test cases.

    Args:
        choice: The contender and its prompt.
        records: One a case and repeat, in the task's order, the repeats of a case together.
        fingerprint: Of the model that answered.
        price: Of its tokens, where it is known.
        origin: As `Record.origin`.
    """

    choice: Choice
    records: tuple[Record, ...]
    fingerprint: str
    price: TokenPrice | None = None
    origin: str = ""

    @property
    def name(self) -> str:
        """The contender's name."""
        return self.choice.contender.name

    @property
    def succeeded(self) -> list[Record]:
        """Records that are no errors."""
        return [record for record in self.records if record.error is None]

    @property
    def usd(self) -> Decimal | None:
        """Cost of the answers; None where tokens or their price are not known."""
        if self.price is None:
            return None
        total = Decimal(0)
        for record in self.succeeded:
            cost = usd(self.price, record.prompt_tokens, record.completion_tokens)
            if cost is None:
                return None
            total += cost
        return total


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """Which contenders answer which cases, and how; the flags are those of `compare`.

    Args:
        contenders: All of them, in the job's order.
        folder: Where answers are recorded.
        tuned: The tuned model, when a contender is, and it is to answer.
        training: Fingerprint of the training that made it.
        announce: Called with what the user should know, a sentence.
    """

    job: Job
    contenders: tuple[Contender, ...]
    task: Task
    folder: Path
    prices: AnswerPrices
    budget: Budget
    tuned: TunedModel | None = None
    training: str = ""
    batch: bool = False
    replay: bool = False
    use_cache: bool = False
    announce: Callable[[str], None] | None = None

    @property
    def models(self) -> Models:
        """The contenders' models."""
        job = self.job
        return Models(job.backend, job.base_model, self.tuned, job.folder, self.training)


class EvaluationResponses(NamedTuple):
    """The contenders with their answers, in the job's order, and what the tuned model retains."""

    contenders: tuple[Answered, ...]
    retention: Retained | None
    budget: Budget
