"""Measure what tuning cost a model, apart from the task.

General questions with exact answers go to each tuned model and to its untuned base, greedy and
without a system prompt. For models on this machine, the loss on a general text is computed, too.
All answers are recorded in ``general.jsonl``; the results are computed from this file alone, so a
second comparison or a replay needs no requests.

Models on this machine are asked while they are loaded. Others are asked after the test, so that the
questions never use the budget of the test's answers; a problem with them leaves the verdict alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unitune.data.general_questions import (
    MOST_TOKENS,
    GeneralQuestion,
    general_questions,
    general_text,
)
from unitune.errors import BackendError, OverBudget
from unitune.evaluate.documents.records import Contrast, Record, Retention
from unitune.evaluate.inference.budget import Budget, most_usd
from unitune.evaluate.inference.engine import (
    AnswerOptions,
    EvaluationProgress,
    Question,
    request_hash,
    short_hash,
)
from unitune.evaluate.inference.journal import Journal
from unitune.evaluate.inference.sources import Source, resolve_sources
from unitune.evaluate.statistics.intervals import Units, difference_interval
from unitune.evaluate.statistics.paired import LEVEL, compare_paired
from unitune.evaluate.statistics.significance import holm, sign_flip_p
from unitune.evaluate.task import Task
from unitune.job.contenders import Model, Tuned
from unitune.models import ChatModel, Request, ScoresText
from unitune.planning.preflight import ResolvedJob
from unitune.run.run import Run

QUESTIONS, TEXT = "general questions", "general text"


class Pair(NamedTuple):
    """Names of a tuned contender and of its untuned base, with the base model."""

    tuned: str
    untuned: str
    base_model: str


@dataclass(frozen=True, slots=True)
class RetentionTask:
    """General questions to tuned models and their untuned bases."""

    pairs: tuple[Pair, ...]  # one for each tuned model
    untuned: Mapping[str, Source]  # by the names in `pairs`
    questions: tuple[GeneralQuestion, ...]
    request: Request  # template of all requests
    asks_all: bool  # False to ask only models that can compute the loss of a text
    left: list[str]  # names of models that were not asked yet
    # Reasons why questions were not answered, by the name of the model
    problems: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(
        cls, resolved: ResolvedJob, runs: Mapping[str, Run], task: Task, options: AnswerOptions
    ) -> RetentionTask | None:
        """Return the questions of a comparison, or None for a preview or without a tuned model.

        Raises:
            OverBudget: There is a budget, but the price of an untuned model is unknown.
        """
        job, evaluate = resolved.job, resolved.job.evaluate
        count, asks_all = (evaluate.general_questions(here=here) for here in (True, False))
        pairs, specs, models = list[Pair](), dict[str, Model](), set[str]()
        for spec in () if task.omitted else evaluate.contenders:
            run = runs.get(spec.name)
            backend, base = (
                (run.backend_name, run.base_model) if run else (job.backend, job.base_model)
            )
            model = run.id if run else ""  # other contenders may have the same one
            is_asked = asks_all or (count and resolved.book.offer(backend).is_own)
            if not isinstance(spec, Tuned) or model in models or not is_asked:
                continue
            models.add(model)
            name = f"untuned {base}"
            specs[name] = Model(name=name, backend=backend, model=base, prompt="zero-shot")
            pairs.append(Pair(spec.name, name, base))
        if not pairs:
            return None
        alone = evaluate.model_copy(update={"contenders": tuple(specs.values())})
        job = job.model_copy(update={"evaluate": alone})
        template = Request(
            messages=(),
            max_tokens=MOST_TOKENS,
            chat_template=task.template.chat_template,
            chat_template_kwargs=task.template.chat_template_kwargs,
        )
        return cls(
            pairs=tuple(pairs),
            untuned=resolve_sources(replace(resolved, job=job), {}, options),
            questions=general_questions()[:count],
            request=template,
            asks_all=asks_all > 0,
            left=[*dict.fromkeys(name for each in pairs for name in each[:2])],
        )

    def asked(self) -> list[Question]:
        """Return the questions as requests."""
        return [
            Question(each.id, self.request.model_copy(update={"messages": (each.message,)}))
            for each in self.questions
        ]

    def unasked(self, sources: Mapping[str, Source], origin: str) -> list[str]:
        """Return the names of models of an origin that were not asked yet."""
        return [name for name in self.left if sources[name].origin == origin]

    def others(
        self, budget: Budget, sources: Mapping[str, Source], journal: Journal
    ) -> tuple[str, ...]:
        """Return the models still to be asked, or none if the budget does not allow it."""
        pairs = [each for each in self.pairs if self.asks_all or each.tuned not in self.left]
        names = tuple(name for name in self.left if any(name in each for each in pairs))
        known = {(record.contender, record.case) for record in journal}
        costs = (
            most_usd(price, each.request)
            for name in names
            for each in self.asked()
            if (price := sources[name].price) and (name, each.case) not in known
        )
        try:
            budget.afford(sum(costs, Decimal(0)), "to general questions")
        except OverBudget as error:
            self.problems.update(dict.fromkeys(names, str(error)))
            return ()
        return names

    def ask(
        self,
        model: ChatModel,
        name: str,
        records: Callable[[Sequence[Question], EvaluationProgress], Sequence[Record]],
        journal: Journal,
    ) -> None:
        """Ask a model with the runner's `records`, and record its loss on the general text."""
        self.left.remove(name)
        questions = self.asked()
        try:
            answers = records(questions, EvaluationProgress(name, "general", "", 0, len(questions)))
        except (BackendError, OverBudget) as error:  # the verdict does not depend on them
            self.problems[name] = str(error)
            return
        if errors := [each.error for each in answers if each.error]:
            self.problems[name] = (
                f"{name} did not answer {len(errors)} of {len(answers)} general questions. First "
                f"reason: {errors[0]}"
            )
        hashes = _passages(model.fingerprint)
        if not isinstance(model, ScoresText) or all(journal.answer(name, *e) for e in hashes):
            return
        losses = model.text_losses([passage.text for passage in general_text()])
        journal.append(
            Record(
                contender=name,
                case=case,
                model=model.fingerprint,
                request_hash=hashed,
                given={"nats": loss.nats, "tokens": loss.tokens},
            )
            for (case, hashed), loss in zip(hashes, losses, strict=True)
        )

    def results(self, journal: Journal, sources: Mapping[str, Source]) -> tuple[Retention, ...]:
        """Return what tuning cost each model, from the recorded answers of these sources."""
        journal.origins |= {name: source.origin for name, source in sources.items()}
        asked = (self._result(pair, journal) for pair in self.pairs)
        known = [each for each in asked if each.contrasts or each.problem]
        adjusted = iter(holm([p.p_value for each in known for p in each.contrasts.values()]))
        return tuple(
            each.model_copy(
                update={
                    kind: contrast.model_copy(update={"p_adjusted": next(adjusted)})
                    for kind, contrast in each.contrasts.items()
                }
            )
            for each in known
        )

    def _result(self, pair: Pair, journal: Journal) -> Retention:
        before, after = (self._answers(name, journal) for name in (pair.untuned, pair.tuned))
        both = [each for each in self.questions if each.id in before and each.id in after]
        old = [float(each.is_right(before[each.id])) for each in both]
        new = [float(each.is_right(after[each.id])) for each in both]
        result = compare_paired(old, new) if len(both) > 1 else None
        categories: dict[str, tuple[int, int, int]] = {}
        for each, was, now in zip(both, old, new, strict=True):
            n, untuned, tuned = categories.get(each.category, (0, 0, 0))
            categories[each.category] = n + 1, untuned + int(was), tuned + int(now)
        losses = [_losses(name, journal) for name in (pair.untuned, pair.tuned)]
        reasons = filter(None, map(self.problems.get, (pair.tuned, pair.untuned)))
        missing, problem = len(self.questions) - len(both), next(reasons, "")
        if missing and (before or after) and not problem:
            problem = f"{missing} of {len(self.questions)} general questions lack an answer."
        return Retention(
            contender=pair.tuned,
            base_model=pair.base_model,
            questions=result and Contrast.of(QUESTIONS, result, result.p_value),
            gained=result.gained if result else 0,
            lost=result.lost if result else 0,
            categories=categories,
            text=text_contrast(*losses) if all(map(len, losses)) else None,
            problem=problem,
        )

    def _answers(self, name: str, journal: Journal) -> dict[str, str]:
        model = journal.model_of(journal.origins.get(name, "")) or ""
        records = (
            journal.answer(name, each.case, request_hash(model, each)) for each in self.asked()
        )
        return {record.case: record.text for record in records if record}


def _passages(fingerprint: str) -> list[tuple[str, str]]:
    """Return the case and the hash of each passage for a model."""
    return [
        (f"text-{at:02}", short_hash([fingerprint, passage.text]))
        for at, passage in enumerate(general_text(), start=1)
    ]


def _losses(name: str, journal: Journal) -> NDArray[np.float64]:  # (P, 2)
    """Return nats and tokens of each passage, or nothing unless all are recorded."""
    model = journal.model_of(journal.origins.get(name, "")) or ""
    records = [journal.answer(name, *each) for each in _passages(model)]
    rows = [(each.given["nats"], each.given["tokens"]) for each in records if each and each.given]
    return np.array(rows if len(rows) == len(records) else [], dtype=np.float64).reshape(-1, 2)


def text_contrast(before: NDArray[np.float64], after: NDArray[np.float64]) -> Contrast:
    """Compare losses by passage: a passage is one piece of evidence, weighted by its tokens."""
    units = Units(after[:, 0] - before[:, 0], before[:, 1])
    p_value = sign_flip_p(units.sums)
    tokens = before[:, 1].sum()
    return Contrast(
        n=units.count,
        difference=units.mean,
        interval=difference_interval(units, LEVEL).ends,
        p_value=p_value,
        name=TEXT,
        baseline=float(before[:, 0].sum() / tokens),
        candidate=float(after[:, 0].sum() / tokens),
        p_adjusted=p_value,
    )
