"""What an evaluation is made of before and after its requests: its configuration, its responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from unitune.evaluate.inference.budget import Budget, usd
from unitune.evaluate.inference.pricing import AnswerPrices
from unitune.evaluate.inference.sources import Places
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
        fingerprint: Of the model that was asked.
        price: Of its tokens, where it is known.
        origin: Which model the job named, as `Record.origin` has it.
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
    def errors(self) -> int:
        """Questions without an answer."""
        return sum(record.error is not None for record in self.records)

    @property
    def usd(self) -> Decimal | None:
        """What the answers cost; None where tokens or their price are not known."""
        if self.price is None:
            return None
        costs = [
            usd(self.price, record.prompt_tokens, record.completion_tokens)
            for record in self.records
            if record.error is None
        ]
        known = [cost for cost in costs if cost is not None]
        return sum(known, Decimal(0)) if len(known) == len(costs) else None


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """Which contenders answer which cases, and how.

    Args:
        job: What is evaluated.
        contenders: All of them, in the job's order.
        task: Cases and scorers.
        folder: Where answers are written down.
        prices: Of tokens.
        budget: What may be spent.
        tuned: The tuned model, when a contender is, and it is to answer.
        training: Fingerprint of the training that made it.
        batch: Whether test cases are answered in batches, wherever a backend can.
        replay: Whether recorded answers are all there is, and no request is sent.
        use_cache: Whether answers from other comparisons are taken.
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
    def places(self) -> Places:
        """Where the contenders' models are."""
        job = self.job
        return Places(job.backend, job.base_model, self.tuned, job.folder, self.training)


class EvaluationResponses(NamedTuple):
    """The contenders with their answers, in the job's order, and what the tuned model retains."""

    contenders: tuple[Answered, ...]
    retention: Retained | None
    budget: Budget
