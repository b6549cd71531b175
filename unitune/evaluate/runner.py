"""Taking every contender through dev and test: which model is loaded when, with which requests.

A model is loaded once for all of its contenders, and closed before the next one is loaded, so that
one fits where two would not. The tuned one comes first: it may turn out not to belong to its base,
and that should not cost the user minutes. Once more it comes last, for contenders that use the best
baseline's prompt. Each contender chooses its prompt on dev and then answers the test cases with
that prompt alone, at once or, with batches, when all contenders have chosen: dev always takes
single requests, since each round waits for the one before.

Answers to dev rows go to ``dev.jsonl``, those to test cases to ``rows.jsonl``; which batches were
submitted stands in ``batches.jsonl``. A replay reads the same files and loads no model.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from itertools import chain

from unitune.cost.answers import SCREENING_ROWS
from unitune.errors import Interrupted, Mismatch
from unitune.evaluate import retention
from unitune.evaluate.inference import batch_file
from unitune.evaluate.inference.batch_file import Pair, open_batches
from unitune.evaluate.inference.batch_job import BatchJob
from unitune.evaluate.inference.batch_runner import run_batches
from unitune.evaluate.inference.batch_submit import supports_batches
from unitune.evaluate.inference.budget import BudgetGuard, most_usd, record_usd
from unitune.evaluate.inference.engine import (
    EvaluationProgress,
    InferenceOptions,
    Question,
    collect_answers,
    replay,
    wants_more_room,
)
from unitune.evaluate.inference.journal import Journal, open_journal
from unitune.evaluate.inference.response_cache import ResponseCache, open_response_cache
from unitune.evaluate.inference.sources import Hosted, Source, model_of
from unitune.evaluate.prompts.build import Contender
from unitune.evaluate.prompts.dev import Choice, Trial, best_trial, borrow, finalists, needs_dev
from unitune.evaluate.prompts.prompts import Prompt
from unitune.evaluate.records import Record
from unitune.evaluate.responses import Answered, EvaluationConfig, EvaluationResponses
from unitune.evaluate.results import Retained
from unitune.job.contenders import ContenderSpec, Recorded, Server, Tuned, ZeroShot
from unitune.models import ChatModel, Request
from unitune.workspace.home import home, make_home

Notify = Callable[[EvaluationProgress], None]


def collect_responses(config: EvaluationConfig, notify: Notify) -> EvaluationResponses:
    """Ask every contender all that is not answered yet.

    An event loop that runs already, as in a notebook, goes on undisturbed: the asking then has a
    thread of its own.

    Raises:
        Interrupted: The user pressed Ctrl-C; what was answered is kept.
        LockTimeout: Another process is asking the same.
        BackendError: A batch was refused or has failed, or what became of it is not known.
    """
    stopped = threading.Event()
    interrupted = Interrupted(_stopped(config))

    def tell(asked: EvaluationProgress) -> None:
        if stopped.is_set():
            raise interrupted
        notify(asked)

    try:
        return _outside_any_loop(partial(_collect, config, tell), stopped)
    except KeyboardInterrupt:
        raise interrupted from None


def _stopped(config: EvaluationConfig) -> str:
    stands = f"stopped; every answer so far stands in {config.folder}."
    if not config.batch:
        return f"{stands} The same command goes on from there."
    return (
        f"{stands} Batches that were handed in go on at their vendors; the same command collects "
        "them."
    )


def _outside_any_loop(
    work: Callable[[], EvaluationResponses], stopped: threading.Event
) -> EvaluationResponses:
    """Do the work here, or in a thread that is told to stop when waiting for it ends early."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            return thread.submit(work).result()
        finally:
            stopped.set()


def _collect(config: EvaluationConfig, notify: Notify) -> EvaluationResponses:
    folder, asks_probes = config.folder, config.job.evaluate.retention
    with (
        open_journal(folder / "dev.jsonl") as dev,
        open_journal(folder / "rows.jsonl") as rows,
        open_journal(folder / "probes.jsonl") if asks_probes else nullcontext() as probes,
        _cache(config) as cache,
        asyncio.Runner() as loop,
    ):
        config.budget.charge(chain(dev, rows), config.prices.contenders)
        config.budget.charge(probes or (), config.prices.retention)
        runner = EvaluationRunner(config, loop, dev, rows, cache, notify)
        answered = {each.name: each for each in runner.run()}
        retention = runner.retention(probes) if probes else None
    contenders = tuple(answered[contender.name] for contender in config.contenders)
    return EvaluationResponses(contenders, retention, config.budget)


def _cache(config: EvaluationConfig) -> AbstractContextManager[ResponseCache | None]:
    if config.replay:
        return nullcontext()
    make_home(home())
    return open_response_cache(home(), use_cache=config.use_cache)


def _turn(contender: Contender) -> tuple[bool, bool, bool]:
    """Return what contenders are sorted by: what may be refused comes before what takes minutes."""
    recorded = isinstance(contender.spec, Recorded)
    return contender.borrows, not contender.is_tuned, not recorded


@dataclass(frozen=True, slots=True)
class _Round:
    """Questions that a model answers one after another, and where the answers are recorded.

    Args:
        name: Under which they are recorded.
        progress: At the start.
    """

    name: str
    questions: Sequence[Question]
    journal: Journal
    progress: EvaluationProgress


@dataclass(frozen=True, slots=True)
class EvaluationRunner:
    """Takes contenders through dev and test, in one event loop: models may keep connections."""

    config: EvaluationConfig
    loop: asyncio.Runner
    dev: Journal
    rows: Journal
    cache: ResponseCache | None
    notify: Notify
    chosen: dict[str, Choice] = field(default_factory=dict[str, Choice])
    replayed: dict[str, str] = field(default_factory=dict[str, str])
    """By origin, the model whose recorded answers are judged."""
    thinking: set[str] = field(default_factory=set[str])
    """Fingerprints of the models that are known to think before they answer."""

    def run(self) -> Iterator[Answered]:
        """Yield each contender with its answers."""
        if self.config.replay:
            for contender in sorted(self.config.contenders, key=lambda each: each.borrows):
                yield self._answered(None, self._choose(None, contender))
        elif self.config.batch:
            yield from self._run_in_batches()
        else:
            for source, group in self._sources():
                with self._opened(source) as model:
                    for contender in group:
                        yield self._answered(model, self._choose(model, contender))

    def _run_in_batches(self) -> Iterator[Answered]:
        """Let all contenders choose, and have those of each backend answered together."""
        config, by_backend = self.config, dict[str, list[BatchJob]]()
        for source, group in self._sources():
            with self._opened(source) as model:
                for contender in group:
                    choice = self._choose(model, contender)
                    if isinstance(source, Hosted) and supports_batches(source.backend):
                        job = self._batch_job(source, model, choice)
                        by_backend.setdefault(source.backend, []).append(job)
                    else:
                        yield self._answered(model, choice)
        jobs = list(chain.from_iterable(by_backend.values()))
        unanswered = {job.contender: job.unanswered(self.rows) for job in jobs}
        config.budget.afford("the answers in batches", self._most_usd(unanswered))
        with open_batches(config.folder / batch_file.NAME) as batches:
            records = run_batches(by_backend, batches, self.rows, self.notify, config.announce)
        for name, pairs in unanswered.items():
            last = (self.rows.last(name, *pair) for pair in pairs)
            config.budget.charge((each for each in last if each), config.prices.contenders)
        for job in jobs:
            yield self._with_room(job, records[job.contender])

    def _batch_job(self, source: Hosted, model: ChatModel, choice: Choice) -> BatchJob:
        contender = choice.contender
        self.rows.origins[contender.name] = self.config.places.origin(contender.spec)
        return BatchJob(
            contender=contender.name,
            prompt=choice.prompt.label,
            model=source.model,
            fingerprint=model.fingerprint,
            questions=self.config.task.questions(choice.prompt, contender.spec),
            thinks=model.fingerprint in self.thinking,
        )

    def _with_room(self, job: BatchJob, records: tuple[Record, ...]) -> Answered:
        """Return what a batch has answered; what thoughts have cut short is requested once more."""
        name, choice = job.contender, self.chosen[job.contender]
        pairs = zip(records, job.requested().values(), strict=True)
        if any(wants_more_room(*pair) for pair in pairs):
            with self._opened(Hosted(self.config.job.backend, job.model)) as model:
                return self._answered(model, choice)
        price, origin = self.config.prices.contenders.get(name), self.rows.origins[name]
        return Answered(choice, records, job.fingerprint, price, origin)

    def _most_usd(self, unanswered: Mapping[str, Mapping[Pair, Request]]) -> Decimal:
        """Return what open requests may cost at most, at the price of single answers."""
        prices = self.config.prices.contenders
        costs = (
            most_usd(prices[name], request)
            for name, requests in unanswered.items()
            if name in prices
            for request in requests.values()
        )
        return sum(costs, Decimal(0))

    def retention(self, journal: Journal) -> Retained:
        """Put the general questions to base and tuned model."""
        config, questions, prices = self.config, retention.questions(), self.config.prices.retention
        records: list[list[Record]] = []
        for name, spec, model in (
            ("base", ZeroShot(), config.job.base_model),
            ("tuned", Tuned(), config.tuned),
        ):
            journal.origins[name] = config.places.origin(spec)
            progress = EvaluationProgress(name, "probe", "general questions", 0, len(questions))
            probes = _Round(name, questions, journal, progress)
            if config.replay:
                records.append(self._replay(probes, spec))
                continue
            assert model is not None, "the job has a tuned contender"
            price = prices.get(name)
            guard = price and config.budget.guard(f"retention, {name}", price)
            with self._opened(Hosted(config.job.backend, model)) as opened:
                records.append(self._request(opened, probes, self._options(guard, self.cache)))
        costs = [
            record_usd(prices[record.contender], record)
            for record in chain(*records)
            if record.contender in prices
        ]
        return retention.retained(*records, usd=sum(costs, Decimal(0)) if costs else None)

    def _sources(self) -> Iterator[tuple[Source, Sequence[Contender]]]:
        """Yield the models to load, each with the contenders that it answers for.

        Contenders that borrow their prompt come last, when all baselines have chosen theirs; for
        them the tuned model is loaded once more.
        """
        groups: dict[tuple[bool, Source], list[Contender]] = {}
        for each in sorted(self.config.contenders, key=_turn):
            source = self.config.places.source(each.spec)
            groups.setdefault((each.borrows, source), []).append(each)
        for (_, source), group in groups.items():
            yield source, group

    @contextmanager
    def _opened(self, source: Source) -> Generator[ChatModel]:
        model = model_of(source, self.config.task.cases)
        try:
            yield model
        finally:
            self.loop.run(model.aclose())

    def _choose(self, model: ChatModel | None, contender: Contender) -> Choice:
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

    def _trial(
        self, model: ChatModel | None, contender: Contender, prompt: Prompt, rows: int
    ) -> Trial:
        """Score a prompt on the first dev rows."""
        task = self.config.task
        questions = [task.question(row, prompt, contender.spec) for row in task.dev[:rows]]
        progress = EvaluationProgress(contender.name, "dev", prompt.label, 0, rows)
        # Named with its prompt, so that a reader of the file can tell the prompts apart.
        name = f"{contender.name}: {prompt.label}"
        records = self._records(model, contender, _Round(name, questions, self.dev, progress))
        return Trial(prompt, task.dev_score(records))

    def _answered(self, model: ChatModel | None, choice: Choice) -> Answered:
        contender, name = choice.contender, choice.contender.name
        questions = self.config.task.questions(choice.prompt, contender.spec)
        progress = EvaluationProgress(name, "test", choice.prompt.label, 0, len(questions))
        test = _Round(name, questions, self.rows, progress)
        records = tuple(self._records(model, contender, test))
        fingerprint = records[0].model if model is None else model.fingerprint
        price = self.config.prices.contenders.get(name)
        return Answered(choice, records, fingerprint, price, self.rows.origins[name])

    def _records(
        self, model: ChatModel | None, contender: Contender, round_: _Round
    ) -> list[Record]:
        """Return what a contender answers, or has answered."""
        round_.journal.origins[round_.name] = self.config.places.origin(contender.spec)
        if model is None:
            return self._replay(round_, contender.spec)
        price = self.config.prices.contenders.get(contender.name)
        guard = price and self.config.budget.guard(contender.name, price)
        recorded = isinstance(contender.spec, Recorded)
        return self._request(model, round_, self._options(guard, None if recorded else self.cache))

    def _options(self, guard: BudgetGuard | None, cache: ResponseCache | None) -> InferenceOptions:
        return InferenceOptions(self.config.job.evaluate.concurrency, guard, cache, self.thinking)

    def _request(self, model: ChatModel, round_: _Round, options: InferenceOptions) -> list[Record]:
        """Wait for answers; on Ctrl-C show at once that it was noticed."""
        progress, name = round_.progress, round_.name

        def notify(done: int) -> None:
            self.notify(replace(progress, done=done))

        async def requested() -> list[Record]:
            try:
                return await collect_answers(
                    model, round_.questions, round_.journal, name, notify, options=options
                )
            except asyncio.CancelledError:
                self.notify(replace(progress, phase="stopping"))
                raise

        return self.loop.run(requested())

    def _replay(self, round_: _Round, spec: ContenderSpec) -> list[Record]:
        """Return recorded answers, all of which are of the one model that the job names.

        Raises:
            Mismatch: They are of several, or there are none.
        """
        name, journal = round_.name, round_.journal
        records, origin = replay(round_.questions, journal, name), journal.origins[name]
        # These have their origin as fingerprint; others' also tells what the job does not know.
        known = origin if isinstance(spec, Server | Recorded) else None
        for record in records:
            model = self.replayed.setdefault(origin, known or record.model)
            if record.model != model:
                raise Mismatch(
                    f"{name}: the recorded answer to {record.case} is of the model "
                    f"{record.model!r}, and others are, or all should be, of {model!r}. Take the "
                    "rows back from version control, or compare once without --replay."
                )
        return records
