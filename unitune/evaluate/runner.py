"""Taking every contender through dev and test: which model is loaded when, with which requests.

A model is loaded once for all of its contenders, and closed before the next one is loaded, so that
one fits where two would not. The tuned one comes first: it may turn out not to belong to its base,
and that should not cost the user minutes. Once more it comes last, for contenders that use the best
baseline's prompt. Each contender chooses its prompt on dev and then answers the test cases with
that prompt alone, at once or, with batches, when all contenders have chosen: dev always takes
single requests, since each round waits for the round before.

Answers to dev rows go to ``dev.jsonl``, those to test cases to ``rows.jsonl``, those to general
questions to ``probes.jsonl``. A replay reads the same files and loads no model.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import NamedTuple

from unitune.cost.evaluation import SCREENING_ROWS
from unitune.errors import Interrupted
from unitune.evaluate import retention
from unitune.evaluate.inference import batch_file
from unitune.evaluate.inference.batch_file import open_batches
from unitune.evaluate.inference.batch_runner import BatchJob, run_batches
from unitune.evaluate.inference.batch_submit import supports_batches
from unitune.evaluate.inference.budget import ScorerBudget, most_usd, record_usd
from unitune.evaluate.inference.engine import (
    EvaluationProgress,
    InferenceOptions,
    Question,
    ReplayedModel,
    collect_answers,
    wants_more_room,
)
from unitune.evaluate.inference.journal import Journal, open_journal
from unitune.evaluate.inference.response_cache import ResponseCache, open_response_cache
from unitune.evaluate.inference.sources import Hosted
from unitune.evaluate.prompts.build import Contender
from unitune.evaluate.prompts.dev import Choice, Trial, best_trial, borrow, finalists, needs_dev
from unitune.evaluate.prompts.prompts import Prompt
from unitune.evaluate.records import Record
from unitune.evaluate.responses import Answered, EvaluationConfig, EvaluationResponses
from unitune.evaluate.results import Retained
from unitune.job.contenders import ContenderSpec, Recorded, Server, Tuned, ZeroShot
from unitune.job.job import TokenPrice
from unitune.models import ChatModel
from unitune.workspace.home import home, make_home

Notify = Callable[[EvaluationProgress], None]


class Journals(NamedTuple):
    """The recorded answers of a comparison; `probes` where the job measures retention."""

    dev: Journal
    test: Journal
    probes: Journal | None


@contextmanager
def open_journals(config: EvaluationConfig, scorers: ScorerBudget) -> Generator[Journals]:
    """Open the files of recorded answers, and charge the budget for what they have cost.

    Raises:
        LockTimeout: Another process has them open.
    """
    prices = config.prices
    with ExitStack() as stack:

        def opened(name: str, prices: Mapping[str, TokenPrice]) -> Journal:
            journal = stack.enter_context(open_journal(config.folder / f"{name}.jsonl"))
            config.budget.charge(journal, prices)
            return journal

        if scorers.prices:
            scorers.journal = opened("scoring", scorers.prices)
        yield Journals(
            dev=opened("dev", prices.contenders),
            test=opened("rows", prices.contenders),
            probes=opened("probes", prices.retention) if config.job.evaluate.retention else None,
        )


def collect_responses(
    config: EvaluationConfig, journals: Journals, notify: Notify
) -> EvaluationResponses:
    """Request every answer that is not recorded yet.

    Where an event loop runs already, as in a notebook, the requests are sent from a thread of their
    own.

    Raises:
        Interrupted: The user pressed Ctrl-C; what was answered is kept.
        BackendError: A batch was refused or has failed, or its state is not known.
    """
    stopped = threading.Event()
    interrupted = Interrupted(_stopped(config))

    def notify_or_stop(progress: EvaluationProgress) -> None:
        if stopped.is_set():
            raise interrupted
        notify(progress)

    try:
        return _outside_any_loop(partial(_collect, config, journals, notify_or_stop), stopped)
    except KeyboardInterrupt:
        raise interrupted from None


def _stopped(config: EvaluationConfig) -> str:
    kept = f"stopped; every answer so far is recorded in {config.folder}."
    if not config.batch:
        return f"{kept} The same command goes on from there."
    return f"{kept} Submitted batches go on at their vendors; the same command collects them."


def _outside_any_loop(
    work: Callable[[], EvaluationResponses], stopped: threading.Event
) -> EvaluationResponses:
    """Do the work here, or in a thread that stops when waiting for it ends early."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            return thread.submit(work).result()
        finally:
            stopped.set()


def _collect(config: EvaluationConfig, journals: Journals, notify: Notify) -> EvaluationResponses:
    cached: AbstractContextManager[ResponseCache | None] = nullcontext()
    if not config.replay:
        make_home(home())
        cached = open_response_cache(home(), use_cache=config.use_cache)
    with cached as cache, asyncio.Runner() as loop:
        runner = EvaluationRunner(config, loop, journals, cache, notify)
        answered = runner.run()
        retained = runner.retention(journals.probes) if journals.probes else None
    contenders = tuple(answered[contender.name] for contender in config.contenders)
    return EvaluationResponses(contenders, retained, config.budget)


def _turn(contender: Contender) -> tuple[bool, bool, bool]:
    """Return what contenders are sorted by: what may be refused comes before what takes minutes."""
    recorded = isinstance(contender.spec, Recorded)
    return contender.borrows, not contender.is_tuned, not recorded


@dataclass(frozen=True, slots=True)
class _Round:
    """Questions that a contender's model answers; the answers are recorded under `name`."""

    name: str
    spec: ContenderSpec
    questions: Sequence[Question]
    journal: Journal
    price: TokenPrice | None
    progress: EvaluationProgress


@dataclass(frozen=True, slots=True)
class EvaluationRunner:
    """Takes contenders through dev and test, in one event loop: models may keep connections.

    `chosen` has the choices so far, `thinking` the fingerprints of models that are known to think
    before they answer.
    """

    config: EvaluationConfig
    loop: asyncio.Runner
    journals: Journals
    cache: ResponseCache | None
    notify: Notify
    chosen: dict[str, Choice] = field(default_factory=dict[str, Choice])
    thinking: set[str] = field(default_factory=set[str])

    def run(self) -> dict[str, Answered]:
        """Return each contender with its answers, by name."""
        config = self.config
        answered: dict[str, Answered] = {}
        batched: dict[str, list[BatchJob]] = {}
        for group in self._groups():
            with self._opened(group[0].spec) as model:
                for contender in group:
                    choice = self._choose(model, contender)
                    hosted = config.models.hosted(contender.spec) if config.batch else None
                    if hosted and supports_batches(hosted.backend):
                        batch_job = self._batch_job(hosted, model, choice)
                        batched.setdefault(hosted.backend, []).append(batch_job)
                    else:
                        answered[contender.name] = self._answered(model, choice)
        return answered | (self._answered_in_batches(batched) if batched else {})

    def _groups(self) -> Iterable[Sequence[Contender]]:
        """Return the contenders by the model that answers for them, in the order of loading."""
        groups: dict[tuple[bool, str], list[Contender]] = {}
        for each in sorted(self.config.contenders, key=_turn):
            origin = self.config.models.origin(each.spec)
            groups.setdefault((each.borrows, origin), []).append(each)
        return groups.values()

    @contextmanager
    def _opened(self, spec: ContenderSpec) -> Generator[ChatModel]:
        if self.config.replay:
            yield ReplayedModel(self._recorded_fingerprint(spec))
            return
        model = self.config.models.open(spec, self.config.task.cases)
        try:
            yield model
        finally:
            self.loop.run(model.aclose())

    def _recorded_fingerprint(self, spec: ContenderSpec) -> str:
        """Return the fingerprint of the model that recorded answers must be of."""
        origin = self.config.models.origin(spec)
        if isinstance(spec, Server | Recorded):
            return origin  # others' fingerprint also tells what the job does not know
        recorded = (journal.model_of(origin) for journal in self.journals if journal)
        return next(filter(None, recorded), "")

    def _choose(self, model: ChatModel, contender: Contender) -> Choice:
        """Choose a contender's prompt on dev, where there is anything to choose."""
        if contender.borrows:
            choice = borrow(contender, tuple(self.chosen.values()))
        elif not needs_dev(contender, self.config.contenders):
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
        """Score a prompt on the first dev rows."""
        task, name = self.config.task, contender.name
        round_ = _Round(
            name=f"{name}: {prompt.label}",  # a reader of the file can tell the prompts apart
            spec=contender.spec,
            questions=[task.question(row, prompt, contender.spec) for row in task.dev[:rows]],
            journal=self.journals.dev,
            price=self.config.prices.contenders.get(name),
            progress=EvaluationProgress(name, "dev", prompt.label, 0, rows),
        )
        return Trial(prompt, task.dev_score(self._records(model, round_)))

    def _answered(self, model: ChatModel, choice: Choice) -> Answered:
        """Return a contender's answers to the test cases."""
        spec, name, journal = choice.contender.spec, choice.contender.name, self.journals.test
        questions = self.config.task.questions(choice.prompt, spec)
        price = self.config.prices.contenders.get(name)
        progress = EvaluationProgress(name, "test", choice.prompt.label, 0, len(questions))
        round_ = _Round(name, spec, questions, journal, price, progress)
        records = tuple(self._records(model, round_))
        return Answered(choice, records, model.fingerprint, price, journal.origins[name])

    def retention(self, journal: Journal) -> Retained:
        """Put the general questions to base and tuned model."""
        prices, questions = self.config.prices.retention, retention.questions()
        records: list[list[Record]] = []
        for name, spec in (("base", ZeroShot()), ("tuned", Tuned())):
            progress = EvaluationProgress(
                f"retention, {name}", "probe", "general questions", 0, len(questions)
            )
            round_ = _Round(name, spec, questions, journal, prices.get(name), progress)
            with self._opened(spec) as model:
                records.append(self._records(model, round_))
        costs = [
            record_usd(prices[record.contender], record)
            for record in chain(*records)
            if record.contender in prices
        ]
        return retention.retained(*records, usd=sum(costs, Decimal(0)) if costs else None)

    def _records(self, model: ChatModel, round_: _Round) -> list[Record]:
        """Return the answers to a round's questions: recorded ones, and where allowed new ones."""
        round_.journal.origins[round_.name] = self.config.models.origin(round_.spec)
        guard = round_.price and self.config.budget.guard(round_.progress.contender, round_.price)
        cache = None if isinstance(round_.spec, Recorded) else self.cache
        concurrency = self.config.job.evaluate.concurrency
        replay = self.config.replay
        options = InferenceOptions(concurrency, guard, cache, self.thinking, replay)

        def notify(done: int) -> None:
            self.notify(replace(round_.progress, done=done))

        async def collect() -> list[Record]:
            try:
                return await collect_answers(
                    model, round_.questions, round_.journal, round_.name, notify, options=options
                )
            except asyncio.CancelledError:  # Ctrl-C: show at once that it was noticed
                self.notify(replace(round_.progress, phase="stopping"))
                raise

        return self.loop.run(collect())

    def _batch_job(self, hosted: Hosted, model: ChatModel, choice: Choice) -> BatchJob:
        contender = choice.contender
        self.journals.test.origins[contender.name] = self.config.models.origin(contender.spec)
        return BatchJob(
            contender=contender.name,
            prompt=choice.prompt.label,
            model=hosted.model,
            fingerprint=model.fingerprint,
            questions=self.config.task.questions(choice.prompt, contender.spec),
            thinks=model.fingerprint in self.thinking,
        )

    def _answered_in_batches(self, by_backend: Mapping[str, list[BatchJob]]) -> dict[str, Answered]:
        """Have the test cases of these contenders answered, those of each backend together."""
        config, rows = self.config, self.journals.test
        prices = config.prices.contenders
        batch_jobs = list(chain.from_iterable(by_backend.values()))
        unanswered = {each.contender: each.unanswered(rows) for each in batch_jobs}
        most = (
            most_usd(prices[name], request)  # at the price of single answers
            for name, requests in unanswered.items()
            if name in prices
            for request in requests.values()
        )
        config.budget.afford("the answers in batches", sum(most, Decimal(0)))
        with open_batches(config.folder / batch_file.NAME) as batches:
            records = run_batches(by_backend, batches, rows, self.notify, config.announce)
        for name, pairs in unanswered.items():
            last = (rows.last(name, *pair) for pair in pairs)
            config.budget.charge(filter(None, last), prices)
        return {
            each.contender: self._with_room(each, records[each.contender]) for each in batch_jobs
        }

    def _with_room(self, batch_job: BatchJob, records: tuple[Record, ...]) -> Answered:
        """Return a batch's answers; what thoughts have cut short is requested once more."""
        name, choice = batch_job.contender, self.chosen[batch_job.contender]
        pairs = zip(records, batch_job.requested().values(), strict=True)
        if any(wants_more_room(*pair) for pair in pairs):
            with self._opened(choice.contender.spec) as model:
                return self._answered(model, choice)
        price, origin = self.config.prices.contenders.get(name), self.journals.test.origins[name]
        return Answered(choice, records, batch_job.fingerprint, price, origin)
