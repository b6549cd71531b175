"""Take every contender through dev and test cases, loading one model at a time.

Tuned models come first, because they may not match their base, and again last, for contenders that
use the best baseline's prompt. Dev rows always use single requests, because each round depends on
the one before. Their answers go to ``dev.jsonl``, those to test cases to ``rows.jsonl`` and those
to general questions to ``general.jsonl``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from unitune.cost.evaluation import SCREENING_ROWS
from unitune.evaluate.documents.records import Record
from unitune.evaluate.inference.batch_runner import BatchJob, run_batches
from unitune.evaluate.inference.batches import BATCHES, open_batches
from unitune.evaluate.inference.budget import Budget, most_usd
from unitune.evaluate.inference.dialogues import UserModel, collect_dialogues
from unitune.evaluate.inference.engine import (
    AnswerOptions,
    EvaluationProgress,
    InferenceOptions,
    Notify,
    Question,
    ReplayedModel,
    collect_answers,
    request_hash,
    wants_more_room,
)
from unitune.evaluate.inference.journal import Journal, ResponseCache, open_journal
from unitune.evaluate.inference.sources import Source
from unitune.evaluate.prompts.contenders import (
    Choice,
    Contender,
    Trial,
    best_trial,
    borrow,
    finalists,
    needs_dev,
)
from unitune.evaluate.prompts.prompts import Prompt
from unitune.evaluate.retention import RetentionTask
from unitune.evaluate.scoring.grading import Answered, dev_score
from unitune.evaluate.task import Task
from unitune.evaluate.verdict.looks import TestHistory
from unitune.job.contenders import Recorded, Server
from unitune.job.job import TokenPrice
from unitune.models import ChatModel, ScoresText


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """Contenders, cases, and how the answers are collected."""

    task: Task
    contenders: tuple[Contender, ...]  # in the job's order
    sources: Mapping[str, Source]  # by contender
    folder: Path  # for recorded answers
    budget: Budget
    concurrency: int  # maximum requests in flight
    options: AnswerOptions
    history: TestHistory | None = None  # of the test; None if uses are not counted
    retention: RetentionTask | None = None  # general questions
    # True to score every contender on all dev rows and none on the test
    dev_only: bool = False

    @property
    def all_sources(self) -> dict[str, Source]:
        """Sources of contenders and of untuned models."""
        return {**self.sources, **(self.retention.untuned if self.retention else {})}

    @property
    def prices(self) -> dict[str, TokenPrice]:
        """Known token prices, by contender."""
        known = self.all_sources.items()
        return {name: each.price for name, each in known if each.price is not None}


class Journals(NamedTuple):
    """Recorded answers of a comparison."""

    dev: Journal
    test: Journal
    general: Journal | None = None


@contextmanager
def open_journals(config: EvaluationConfig) -> Generator[Journals]:
    """Open the files of recorded answers, and charge their cost to the budget.

    Raises:
        LockTimeout: Another process has them open.
        Mismatch: Somebody else wrote one of the files, and this is not a replay.
    """
    replay, names = config.options.replay, ["dev.jsonl", "rows.jsonl"]
    if config.retention and (not replay or (config.folder / "general.jsonl").exists()):
        names.append("general.jsonl")
    with ExitStack() as stack:
        opened = (open_journal(config.folder / name, replay=replay) for name in names)
        journals = Journals(*map(stack.enter_context, opened))
        config.budget.charge(chain(*filter(None, journals)), config.prices)
        yield journals


@dataclass(frozen=True, slots=True)
class EvaluationRunner:
    """Takes contenders through dev and test cases in one event loop, as models keep connections."""

    config: EvaluationConfig
    loop: asyncio.Runner
    journals: Journals
    cache: ResponseCache | None
    notify: Notify
    sources: dict[str, Source]  # of contenders, additional finalists and untuned models
    chosen: dict[str, Choice] = field(default_factory=dict[str, Choice])
    # Identity of the candidate, once its model is open
    candidate: list[str] = field(default_factory=list[str])
    # Fingerprints of models known to reason before answering
    thinking: set[str] = field(default_factory=set[str])
    user: list[UserModel] = field(default_factory=list[UserModel])  # while its model is open

    def run(self) -> dict[str, Answered]:
        """Return each contender with its answers, by name."""
        dialogues = self.config.task.dialogues
        if (user := dialogues and dialogues.user) is None:
            return self._run()
        source = self.sources[user.name]
        for journal in self.journals[:2]:
            journal.origins[user.name] = source.origin
        with self.opened(source) as model:
            self.user.append(UserModel(user, model, self._options(user.name)))
            return self._run()

    def _run(self) -> dict[str, Answered]:
        answered: dict[str, Answered] = {}
        batched: dict[str, list[BatchJob]] = {}
        for group in self._groups():
            with self.opened(self.sources[group[0].name]) as model:
                for choice in chain.from_iterable(self._choices(model, each) for each in group):
                    name = choice.contender.name
                    source = self.sources[name]
                    if self.config.dev_only:
                        untested = Answered(choice, (), model.fingerprint, source.origin)
                        answered[name] = untested
                    elif self.config.options.batch and source.backend and source.answers_in_batches:
                        batch_job = self._batch_job(source, model, choice)
                        batched.setdefault(source.backend, []).append(batch_job)
                    else:
                        answered[name] = self._answered(model, choice)
                if self.config.retention and isinstance(model, ScoresText):
                    origin = self.sources[group[0].name].origin
                    for name in self.config.retention.unasked(self.sources, origin):
                        self._ask_general(model, name)
        if batched:
            records = self.batch_records(batched, BATCHES)
            for each in chain.from_iterable(batched.values()):
                answered[each.contender] = self._with_room(each, records[each.contender])
        self._ask_others()
        return answered

    def _groups(self) -> Iterable[Sequence[Contender]]:
        """Return the contenders by model; those that may be refused come before slow ones."""

        def turn(each: Contender) -> tuple[bool, ...]:
            spec = each.spec
            ranks = spec.role != "candidate", not isinstance(spec, Recorded)
            return each.borrows, not each.is_tuned, *ranks

        groups: dict[tuple[bool, str], list[Contender]] = {}
        for each in sorted(self.config.contenders, key=turn):
            origin = self.sources[each.name].origin
            groups.setdefault((each.borrows, origin), []).append(each)
        return groups.values()

    @contextmanager
    def opened(self, source: Source) -> Generator[ChatModel]:
        """Yield the model of a source, and close it afterwards."""
        if self.config.options.replay:
            recorded = (each.model_of(source.origin) for each in filter(None, self.journals))
            is_fingerprint = isinstance(source.spec, Server | Recorded)
            yield ReplayedModel(
                source.origin if is_fingerprint else next(filter(None, recorded), "")
            )
            return
        model = source.open([*map(self.config.task.asked, self.config.task.cases)])
        try:
            yield model
        finally:
            self.loop.run(model.aclose())

    def _ask_others(self) -> None:
        """Ask general questions of models that were not asked while they answered the test."""
        retention, journal = self.config.retention, self.journals.general
        if retention is None or journal is None or self.config.options.replay:
            return
        for name in retention.others(self.config.budget, self.sources, journal):
            with self.opened(self.sources[name]) as model:
                self._ask_general(model, name)

    def _ask_general(self, model: ChatModel, name: str) -> None:
        if self.config.retention and self.journals.general:
            records = partial(self.records, model)
            self.config.retention.ask(model, name, records, self.journals.general)

    def _choices(self, model: ChatModel, contender: Contender) -> Iterator[Choice]:
        """Yield a contender with its prompt, then each other finalist as another baseline."""
        choice = self._choose(model, contender)
        yield choice
        spec, rows = contender.spec, len(self.config.task.dev)
        if spec.role != "baseline" or self.config.dev_only or self.config.task.omitted:
            return
        finals = [trial for trial in choice.trials if trial.score.rows == rows]
        for prompt in (finals[at].prompt for at in finalists(finals)):
            name = f"{spec.name}: {prompt.label}"
            if prompt is not choice.prompt and name not in self.sources:
                self.sources[name] = self.sources[spec.name]
                other = Contender(spec.model_copy(update={"name": name}), (prompt,))
                self.chosen[name] = Choice(other, prompt)
                yield self.chosen[name]

    def _choose(self, model: ChatModel, contender: Contender) -> Choice:
        if contender.borrows:
            choice = borrow(contender, tuple(self.chosen.values()))
        elif not self.config.dev_only and (
            self.config.task.scoring.on_dev is None
            or not needs_dev(contender, self.config.contenders)
        ):
            choice = Choice(contender, contender.prompts[0])
        else:
            rows = len(self.config.task.dev)
            first = min(rows, SCREENING_ROWS) if contender.has_choice else rows
            trials = [self._trial(model, contender, each, first) for each in contender.prompts]
            second = contender.refine(best_trial(trials).prompt)
            trials += [self._trial(model, contender, each, first) for each in second]
            if first < rows:
                for at in finalists(trials):
                    trials[at] = self._trial(model, contender, trials[at].prompt, rows)
            finals = [trial for trial in trials if trial.score.rows == rows]
            choice = Choice(contender, best_trial(finals).prompt, tuple(trials))
        self.chosen[contender.name] = choice
        return choice

    def _trial(self, model: ChatModel, contender: Contender, prompt: Prompt, rows: int) -> Trial:
        task = self.config.task
        questions = task.questions(prompt, contender.spec, task.dev[:rows])
        progress = EvaluationProgress(contender.name, "dev", prompt.label, 0, rows)
        return Trial(prompt, dev_score(task, self.records(model, questions, progress)))

    def _answered(self, model: ChatModel, choice: Choice) -> Answered:
        name, questions = choice.contender.name, self._questions(model, choice)
        progress = EvaluationProgress(name, "test", choice.prompt.label, 0, len(questions))
        records = self.records(model, questions, progress)
        return self._result(choice, records, model.fingerprint)

    def _result(self, choice: Choice, records: Sequence[Record], fingerprint: str) -> Answered:
        source, size = self.sources[choice.contender.name], self.config.task.size
        answers, changed = tuple(records[:size]), tuple(records[size:])
        return Answered(choice, answers, fingerprint, source.origin, source.price, changed=changed)

    def _questions(self, model: ChatModel, choice: Choice) -> list[Question]:
        """Return the test cases as questions; refuse to sample known answers again."""
        config, spec, journal = self.config, choice.contender.spec, self.journals.test
        questions = config.task.questions(choice.prompt, spec)
        name = config.task.identity(model.fingerprint, choice.prompt)
        if spec.role == "candidate":
            self.candidate.append(name)
        journal.origins[spec.name] = self.sources[spec.name].origin
        is_asked = not (
            config.options.replay or isinstance(spec, Recorded) or spec.role == "reference"
        )
        if config.history and config.history.looks and self.candidate and is_asked:
            asked = questions[: config.task.size]  # changed questions may be new
            hashes = [(each.case, request_hash(model.fingerprint, each)) for each in asked]
            kept = [
                journal.answer(spec.name, *each) or (self.cache and self.cache.get(each[1]))
                for each in hashes
            ]
            if 2 * sum(map(bool, kept)) < len(kept):
                config.history.refuse_new_answers(spec.name, self.candidate[0], name)
        return questions

    def records(
        self, model: ChatModel, questions: Sequence[Question], progress: EvaluationProgress
    ) -> list[Record]:
        """Return the answers to questions: recorded ones and, if allowed, new ones."""
        config, journal, name = self.config, self.journals.test, progress.contender
        source, options = self.sources[name], self._options(name)
        if progress.phase == "dev":  # distinguishes prompts in the file
            journal, name = self.journals.dev, f"{name}: {progress.prompt}"
        elif progress.phase == "general" and self.journals.general is not None:
            journal = self.journals.general
        journal.origins[name] = source.origin

        def notify(done: int, total: int = progress.total) -> None:
            self.notify(replace(progress, done=done, total=total))

        async def collect() -> list[Record]:
            dialogues = config.task.dialogues
            rows = {"dev": config.task.dev, "test": config.task.cases}.get(progress.phase)
            work = model, questions, journal, name, notify
            try:
                if dialogues is None or rows is None or isinstance(source.spec, Recorded):
                    return await collect_answers(*work, options=options)
                user = next(iter(self.user), None)
                return await collect_dialogues(
                    *work, options=options, dialogues=dialogues, rows=rows, user=user
                )
            except asyncio.CancelledError:  # Ctrl-C: show at once that it was received
                self.notify(replace(progress, phase="stopping"))
                raise

        # The runner's own context is that of its first call.
        return self.loop.run(collect(), context=copy_context())

    def _options(self, name: str) -> InferenceOptions:
        source, config = self.sources[name], self.config
        return InferenceOptions(
            config.concurrency,
            source.price and config.budget.guard(name, source.price),
            None if isinstance(source.spec, Recorded) else self.cache,
            self.thinking,
            replay=config.options.replay,
        )

    def _batch_job(self, source: Source, model: ChatModel, choice: Choice) -> BatchJob:
        return BatchJob(
            contender=choice.contender.name,
            prompt=choice.prompt.label,
            model=source.model,
            fingerprint=model.fingerprint,
            questions=self._questions(model, choice),
            thinks=model.fingerprint in self.thinking,
        )

    def batch_records(
        self, by_backend: Mapping[str, Sequence[BatchJob]], file: str
    ) -> dict[str, tuple[Record, ...]]:
        """Answer jobs (by backend) in batches, which are recorded in a file of the folder."""
        config, rows = self.config, self.journals.test
        prices = {name: each.price for name, each in self.sources.items() if each.price}
        batch_jobs = list(chain.from_iterable(by_backend.values()))
        unanswered = {each.contender: each.unanswered(rows) for each in batch_jobs}
        most = (
            most_usd(prices[name], request)  # at the price of single answers
            for name, requests in unanswered.items()
            if name in prices
            for request in requests.values()
        )
        config.budget.afford(sum(most, Decimal(0)))
        with open_batches(config.folder / file) as batches:
            records = run_batches(by_backend, batches, rows, self.notify, config.options.announce)
        for name, pairs in unanswered.items():
            last = (rows.last(name, *pair) for pair in pairs)
            config.budget.charge(filter(None, last), prices)
        return records

    def _with_room(self, batch_job: BatchJob, records: tuple[Record, ...]) -> Answered:
        """Return a batch's answers, requesting those cut off by reasoning once more."""
        source, choice = self.sources[batch_job.contender], self.chosen[batch_job.contender]
        pairs = zip(records, batch_job.requested().values(), strict=True)
        if any(wants_more_room(*pair) for pair in pairs):
            with self.opened(source) as model:
                return self._answered(model, choice)
        return self._result(choice, records, batch_job.fingerprint)
