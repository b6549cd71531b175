"""What one contender is to answer: all of its questions, chosen prompt included.

Not here: handing it in and collecting the answers (`unitune.evaluate.inference.batch_runner`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unitune.backends.output_limit import widened
from unitune.evaluate.inference.batch_file import Pair
from unitune.evaluate.inference.engine import Question, request_hash
from unitune.evaluate.inference.journal import Journal
from unitune.models import Request, TunedModel


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What one contender is to answer in batches.

    Args:
        contender: Its name.
        prompt: The prompt that it goes into the test with, in words.
        model: As its backend knows it.
        fingerprint: Of that model.
        questions: With distinct cases.
        thinks: Whether the model is known to think before it answers, and so needs more room.
    """

    contender: str
    prompt: str
    model: str | TunedModel
    fingerprint: str
    questions: Sequence[Question]
    thinks: bool = False

    def requested(self) -> dict[Pair, Question]:
        """Return the questions, in order."""
        return {Pair(q.case, request_hash(self.fingerprint, q)): q for q in self.questions}

    def request(self, question: Question) -> Request:
        """Return a question as it is handed in."""
        request = question.request
        return widened(request) if self.thinks else request

    def unanswered(self, rows: Journal) -> dict[Pair, Request]:
        """Return what is asked and has no answer yet, in order."""
        return {
            pair: self.request(question)
            for pair, question in self.requested().items()
            if rows.answer(self.contender, *pair) is None
        }
