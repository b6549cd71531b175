"""Taking every contender through dev and test: which model is loaded when, and what it is asked.

A model is loaded once for all of its contenders, and closed before the next one is loaded, so that
one fits where two would not. The tuned one comes first: it may turn out not to belong to its base,
and that should not cost the user minutes. Once more it comes last, for contenders that are asked
with the best baseline's prompt. Each contender chooses its prompt on dev and then
answers the test cases with that prompt alone, at once or, where batches are wanted, when all
contenders have chosen: dev is always asked one by one, since each round waits for the one before.

Answers to dev rows go to ``dev.jsonl``, those to test cases to ``rows.jsonl``; which batches were
handed in stands in ``batches.jsonl``. A replay reads the same files, and neither loads nor asks any
model.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from unitune.errors import Interrupted, Mismatch
from unitune.evaluate import retention
from unitune.evaluate.inference import batch_file
from unitune.evaluate.inference.batch_file import open_batches
from unitune.evaluate.inference.batch_job import BatchJob
from unitune.evaluate.inference.batch_runner import run_batches
from unitune.evaluate.inference.batch_submit import supports_batches
from unitune.evaluate.inference.budget import Budget, most_usd, record_usd, usd
from unitune.evaluate.inference.engine import (
    EvaluationProgress,
    InferenceOptions,
    Question,
    ask,
    replay,
    wants_more_room,
)
from unitune.evaluate.inference.journal import Journal, open_journal
from unitune.evaluate.inference.rate_limiter import LIMIT
from unitune.evaluate.inference.response_cache import ResponseCache, open_response_cache
from unitune.evaluate.inference.sources import Hosted, Places, Source, model_of
from unitune.evaluate.prompts.build import Contender
from unitune.evaluate.prompts.dev import Choice, DevScore, borrow, choose, needs_dev
from unitune.evaluate.prompts.prompts import Prompt
from unitune.evaluate.results import Record
from unitune.evaluate.retention import Retention
from unitune.evaluate.task import Task
from unitune.job.contenders import ContenderSpec, Recorded, Server, Tuned, ZeroShot
from unitune.job.job import TokenPrice
from unitune.models import ChatModel, TunedModel
from unitune.workspace.home import home, make_home

Notify = Callable[[EvaluationProgress], None]


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
    """What is to be asked of whom."""

    backend: str
    base: str
    tuned: TunedModel | None
    contenders: tuple[Contender, ...]
    task: Task
    folder: Path
    job_folder: Path = Path()
    training: str = ""
    batch: bool = False
    announce: Callable[[str], None] | None = None
    replay: bool = False
    use_cache: bool = False
    retention: bool = False
    concurrency: int = LIMIT
    budget: Budget = field(default_factory=lambda: Budget(None))
    prices: Mapping[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])
    retention_prices: Mapping[str, TokenPrice] = field(default_factory=dict[str, TokenPrice])


class EvaluationResponses(NamedTuple):
    """What came of it.

    Args:
        contenders: With their answers, in the job's order.
        retention: What the tuned model still knows, where that was asked.
        budget: What was spent on all that was asked.
    """

    contenders: tuple[Answered, ...]
    retention: Retention | None = None
    budget: Budget | None = None


def collect_responses(config: EvaluationConfig, notify: Notify) -> EvaluationResponses:
    """Ask every contender all that is not answered yet.

    An event loop that runs already, as in a notebook, goes on undisturbed: the asking then has a
    thread of its own.

    Raises:
        Interrupted: The user pressed Ctrl-C; what was answered is kept.
        Busy: Another process is asking the same.
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
    folder = config.folder
    with (
        open_journal(folder / "dev.jsonl") as dev,
        open_journal(folder / "rows.jsonl") as rows,
        open_journal(folder / "probes.jsonl") if config.retention else nullcontext() as probes,
        _remembered(config) as cache,
        asyncio.Runner() as runner,
    ):
        config.budget.charge(chain(dev, rows), config.prices)
        config.budget.charge(probes or (), config.retention_prices)
        desk = EvaluationRunner(config, runner, dev, rows, cache, notify)
        answered = {each.name: each for each in desk.sitting()}
        retention = desk.retention(probes) if probes else None
    return EvaluationResponses(
        tuple(answered[contender.name] for contender in config.contenders),
        retention,
        config.budget,
    )


def _remembered(config: EvaluationConfig) -> AbstractContextManager[ResponseCache | None]:
    if config.replay:
        return nullcontext()
    make_home(home())
    return open_response_cache(home(), use_cache=config.use_cache)


def _turn(contender: Contender) -> tuple[bool, bool, bool]:
    """Return what contenders are sorted by: what may be refused comes before what takes minutes."""
    recorded = isinstance(contender.spec, Recorded)
    return contender.borrows, not contender.is_tuned, not recorded


@dataclass(frozen=True, slots=True)
class EvaluationRunner:
    """What asking takes; one event loop for all of it, because models may keep connections."""

    config: EvaluationConfig
    runner: asyncio.Runner
    dev: Journal
    rows: Journal
    cache: ResponseCache | None
    notify: Notify
    chosen: dict[str, Choice] = field(default_factory=dict[str, Choice])
    replayed: dict[str, str] = field(default_factory=dict[str, str])
    """By origin, the model whose recorded answers are judged."""
    thinking: set[str] = field(default_factory=set[str])
    """Fingerprints of the models that are known to think before they answer."""

    def sitting(self) -> Iterator[Answered]:
        """Yield each contender with its answers."""
        if self.config.replay:
            return self.everybody_from_records()
        if self.config.batch:
            return self.everybody_in_batches()
        return self.everybody()

    def everybody(self) -> Iterator[Answered]:
        """Let one contender after another choose and answer."""
        for source, group in self._sources():
            with closing(self._open(source)) as model:
                for contender in group:
                    yield self._answered(model, self._choose(model, contender))

    def everybody_from_records(self) -> Iterator[Answered]:
        """Let one contender after another choose and answer as it did before."""
        for contender in sorted(self.config.contenders, key=lambda each: each.borrows):
            yield self._answered(None, self._choose(None, contender))

    def everybody_in_batches(self) -> Iterator[Answered]:
        """Let all contenders choose, and have those of each backend answered together."""
        asked = self.config
        by_backend: dict[str, list[BatchJob]] = {}
        for source, group in self._sources():
            with closing(self._open(source)) as model:
                for contender in group:
                    choice = self._choose(model, contender)
                    if isinstance(source, Hosted) and supports_batches(source.backend):
                        mine = by_backend.setdefault(source.backend, [])
                        mine.append(self._paper(source, model, choice))
                    else:
                        yield self._answered(model, choice)
        jobs = [batch_job for mine in by_backend.values() for batch_job in mine]
        asked.budget.afford("the answers in batches", self._most_usd(jobs))
        before = {batch_job.contender: batch_job.unanswered(self.rows) for batch_job in jobs}
        with open_batches(asked.folder / batch_file.NAME) as batches:
            records = run_batches(by_backend, batches, self.rows, self.notify, asked.announce)
        for name, pairs in before.items():
            came = (self.rows.last(name, *pair) for pair in pairs)
            asked.budget.charge((one for one in came if one), asked.prices)
        for batch_job in jobs:
            yield self._with_room(batch_job, records[batch_job.contender])

    def _with_room(self, batch_job: BatchJob, records: tuple[Record, ...]) -> Answered:
        """Return what a batch has answered; what thoughts have cut short is asked once more."""
        name = batch_job.contender
        choice, origin = self.chosen[name], self.rows.origins[name]
        pairs = zip(records, batch_job.asked().values(), strict=True)
        if not any(wants_more_room(*pair) for pair in pairs):
            return Answered(choice, records, batch_job.fingerprint, self._price(name), origin)
        with closing(self._open(Hosted(self.config.backend, batch_job.model))) as model:
            return self._answered(model, choice)

    def _most_usd(self, jobs: Iterable[BatchJob]) -> Decimal:
        """Return what the open questions may cost at most, at the price of single answers."""
        costs = (
            most_usd(price, request)
            for batch_job in jobs
            if (price := self._price(batch_job.contender)) is not None
            for request in batch_job.unanswered(self.rows).values()
        )
        return sum(costs, Decimal(0))

    def retention(self, journal: Journal) -> Retention:
        """Ask base and tuned model the general questions."""
        asked = self.config
        records: list[list[Record]] = []
        for name, model in (("base", asked.base), ("tuned", asked.tuned)):
            price = asked.retention_prices.get(name)
            guard = price and asked.budget.guard(f"retention, {name}", price)
            questions = retention.questions()
            spec = ZeroShot() if name == "base" else Tuned()
            journal.origins[name] = self._places.origin(spec)
            if asked.replay:
                records.append(self._replay(questions, journal, name, spec))
                continue
            assert model is not None, "the job has a tuned contender"
            told = EvaluationProgress(name, "probe", "general questions", 0, len(questions))
            with closing(self._open(Hosted(asked.backend, model))) as opened:
                asking = ask(
                    opened,
                    questions,
                    journal,
                    name,
                    self._teller(told),
                    means=InferenceOptions(asked.concurrency, guard, self.cache, self.thinking),
                )
                records.append(self._run(asking, told))
        prices = asked.retention_prices
        costs = [
            record_usd(prices[record.contender], record)
            for record in chain(*records)
            if record.contender in prices
        ]
        return replace(retention.retained(*records), usd=sum(costs, Decimal(0)) if costs else None)

    def _sources(self) -> Iterator[tuple[Source, Sequence[Contender]]]:
        """Yield the models to load, each with the contenders that it answers for.

        Contenders that borrow their prompt come last, when all baselines have chosen theirs; for
        them the tuned model is loaded once more.
        """
        asked = self.config
        groups: dict[tuple[bool, Source], list[Contender]] = {}
        for each in sorted(asked.contenders, key=_turn):
            groups.setdefault((each.borrows, self._places.source(each.spec)), []).append(each)
        for (_, source), group in groups.items():
            yield source, group

    @property
    def _places(self) -> Places:
        asked = self.config
        return Places(asked.backend, asked.base, asked.tuned, asked.job_folder, asked.training)

    def _open(self, source: Source) -> ChatModel:
        return model_of(source, self.config.task.cases)

    def _answered(self, model: ChatModel | None, choice: Choice) -> Answered:
        records = tuple(self._ask_test(model, choice))
        fingerprint = records[0].model if model is None else model.fingerprint
        name = choice.contender.name
        return Answered(choice, records, fingerprint, self._price(name), self.rows.origins[name])

    def _paper(self, source: Hosted, model: ChatModel, choice: Choice) -> BatchJob:
        self.rows.origins[choice.contender.name] = self._places.origin(choice.contender.spec)
        return BatchJob(
            contender=choice.contender.name,
            prompt=choice.prompt.label,
            model=source.model,
            fingerprint=model.fingerprint,
            questions=self.config.task.questions(choice.prompt, choice.contender.spec),
            thinks=model.fingerprint in self.thinking,
        )

    def _choose(self, model: ChatModel | None, contender: Contender) -> Choice:
        if contender.borrows:
            choice = borrow(contender, tuple(self.chosen.values()))
        elif needs_dev(contender, self.config.contenders):
            rows = len(self.config.task.dev)
            choice = choose(contender, partial(self._measure, model, contender), rows)
        else:
            choice = Choice(contender, contender.prompts[0])
        self.chosen[contender.name] = choice
        return choice

    def _measure(
        self, model: ChatModel | None, contender: Contender, prompt: Prompt, rows: int
    ) -> DevScore:
        task = self.config.task
        asked = EvaluationProgress(contender.name, "dev", prompt.label, 0, rows)
        questions = [task.question(row, prompt, contender.spec) for row in task.dev[:rows]]
        return task.dev_score(self._ask(model, contender, questions, self.dev, asked))

    def _ask_test(self, model: ChatModel | None, choice: Choice) -> list[Record]:
        questions = self.config.task.questions(choice.prompt, choice.contender.spec)
        asked = EvaluationProgress(
            choice.contender.name, "test", choice.prompt.label, 0, len(questions)
        )
        return self._ask(model, choice.contender, questions, self.rows, asked)

    def _ask(
        self,
        model: ChatModel | None,
        contender: Contender,
        questions: Sequence[Question],
        journal: Journal,
        asked: EvaluationProgress,
    ) -> list[Record]:
        # On dev named with its prompt, so that a reader of the file can tell the prompts apart.
        name = f"{contender.name}: {asked.prompt}" if asked.phase == "dev" else contender.name
        journal.origins[name] = self._places.origin(contender.spec)
        if model is None:
            return self._replay(questions, journal, name, contender.spec)
        means = self._means(contender)
        return self._run(
            ask(model, questions, journal, name, self._teller(asked), means=means), asked
        )

    def _replay(
        self, questions: Sequence[Question], journal: Journal, name: str, spec: ContenderSpec
    ) -> list[Record]:
        """Return recorded answers, all of which are of the one model that the job names.

        Raises:
            Mismatch: They are of several, or there are none.
        """
        records, origin = replay(questions, journal, name), journal.origins[name]
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

    def _run(
        self, asking: Coroutine[object, object, list[Record]], asked: EvaluationProgress
    ) -> list[Record]:
        """Wait for answers; on Ctrl-C say at once that it was heard."""

        async def heard() -> list[Record]:
            try:
                return await asking
            except asyncio.CancelledError:
                self.notify(replace(asked, phase="stopping"))
                raise

        return self.runner.run(heard())

    def _means(self, contender: Contender) -> InferenceOptions:
        asked = self.config
        price = self._price(contender.name)
        guard = None if price is None else asked.budget.guard(contender.name, price)
        keeps = not isinstance(contender.spec, Recorded)
        return InferenceOptions(
            asked.concurrency, guard, self.cache if keeps else None, self.thinking
        )

    def _price(self, contender: str) -> TokenPrice | None:
        return self.config.prices.get(contender)

    def _teller(self, asked: EvaluationProgress) -> Callable[[int], None]:
        return lambda done: self.notify(replace(asked, done=done))
