"""The runs whose models are judged, what a comparison shows of their trainings, and deployments.

Only comparisons with a tuned contender import this: it loads the ledger.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Self

from unitune.backends.protocol import Event, State
from unitune.cost.budget import HostingBudget
from unitune.data.dataset import Dataset
from unitune.data.load import load
from unitune.errors import Mismatch, NotFoundError, UserError
from unitune.evaluate.gate_record import record_gate
from unitune.evaluate.inference.sources import Source
from unitune.evaluate.results import Comparison
from unitune.evaluate.runner import EvaluationConfig
from unitune.job.contenders import Tuned
from unitune.job.job import Job
from unitune.ledger import Ledger
from unitune.ledger.projects import is_lost
from unitune.models import TunedModel
from unitune.planning.preflight import ResolvedJob
from unitune.run.curves import Curve, curve_of, kept_step
from unitune.run.deploying import standing
from unitune.run.deployment import answering as answering_model
from unitune.run.run import Run, find_run, runs
from unitune.workspace.home import home


@dataclass(frozen=True, slots=True)
class TunedRun:
    """A run with what a comparison shows of its training."""

    run: Run
    # Trained on, validation rows included, where that is not what the job says now
    rows: tuple[Dataset, ...]
    effort: str  # what went into it, in words
    curve: Curve | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return a run that only answers, of whose training nothing is shown."""
        return cls(run, (), "", None, ())

    def record_gate(self, job: Job, comparison: Comparison) -> None:
        """Write down in the ledger what a comparison by a job has shown of the model."""
        ledger = Ledger(home())
        record_gate(ledger, ledger.record(self.run.id), job, comparison)

    @property
    def model(self) -> TunedModel:
        """The model that it left behind."""
        assert self.run.tuned_model is not None, "`find_runs` sees to it"
        return self.run.tuned_model


@contextmanager
def answering(
    tuned: Mapping[str, TunedRun], config: EvaluationConfig
) -> Generator[dict[str, Source]]:
    """Give the sources with the tuned models, deployed while the body runs where need be.

    Args:
        tuned: The run of each tuned contender.
        config: Its budget pays for the deployments, too. A replay deploys nothing.
    """
    options, budget, ready = config.options, config.budget, dict(config.sources)
    with ExitStack() as stack:
        models: dict[str, TunedModel] = {}
        for name, each in () if options.replay else tuned.items():
            if each.run.id not in models:
                if seconds := options.deploy_seconds:
                    left = (
                        None if budget.cap is None else max(Decimal(0), budget.cap - budget.spent)
                    )
                    hosting = HostingBudget(left, options.allow_unpriced)
                    deployed = standing(each.run, seconds, hosting, options.deploy_options)
                    budget.spent += stack.enter_context(deployed)
                models[each.run.id] = answering_model(each.run.id, each.model)
            ready[name] = replace(ready[name], model=models[each.run.id])
        yield ready


def find_runs(job: Job, fingerprint: str, run: Run | None, *, replay: bool) -> dict[str, Run]:
    """Return the run whose model answers for each tuned contender, by the contender's name.

    Args:
        job: With its contenders, which may name runs.
        fingerprint: Of the training that the job describes.
        run: For contenders that name none; None: the newest succeeded run of this very training.
        replay: Whether contenders whose run the ledger does not know are left out.

    Raises:
        NotFoundError: There is no such run.
        UserError: A run has no model.
        Mismatch: `run` tuned another base, or on another backend, than the job's.
    """
    runs: dict[str, Run] = {}
    for spec in job.evaluate.contenders:
        if not isinstance(spec, Tuned):
            continue
        try:
            runs[spec.name] = _run_of(spec, job, fingerprint, run)
        except UserError as refusal:
            unknown = isinstance(refusal, NotFoundError) and run is None
            if not replay or not (unknown or spec.run is not None):
                raise
    return runs


def _run_of(spec: Tuned, job: Job, fingerprint: str, run: Run | None) -> Run:
    if spec.run is not None:
        chosen = _refreshed(find_run(spec.run))
    else:
        chosen = _newest(job, fingerprint) if run is None else _refreshed(run)
    if (model := chosen.tuned_model) is None:
        raise UserError(
            f"run {chosen.id} is {chosen.state} and has no model to judge. "
            f"Follow it with `unitune watch {chosen.id}`, or name another: unitune runs"
        )
    if spec.run is None and (model.backend, model.base) != (job.backend, job.base_model):
        raise Mismatch(
            f"run {chosen.id} tuned {model.base} on {model.backend}, and the job compares "
            f"with {job.base_model} on {job.backend}. Where that is meant, name the run in "
            f"evaluate.contenders: {{type: tuned, run: {chosen.id}}}."
        )
    return chosen


def find_sweep_runs(resolved: ResolvedJob, *, replay: bool) -> dict[str, Run]:
    """Return the newest succeeded run of each combination of a sweep's values, by their names.

    Those whose runs have all failed or were cancelled are left out.

    Raises:
        NotFoundError: One was not launched or is under way, so it is not known how good it is;
            never in a replay.
    """
    known, chosen = _usable_runs(), dict[str, Run]()
    for each in resolved.runs:
        twins = [run for run in known if run.fingerprint == each.fingerprint]
        newest, unended = _newest_of(twins)
        if newest is not None:
            chosen[each.setting] = newest
        elif not replay and (unended or not twins):
            hint = "Train it first: unitune run FILE launches what is missing of the sweep."
            if unended:
                hint = f"Run {unended} is under way: unitune watch {unended}"
            raise NotFoundError("succeeded run with", each.setting, (), hint)
    return chosen


def find_tuned_runs(resolved: ResolvedJob, run: Run | None, *, replay: bool) -> dict[str, TunedRun]:
    """Return `find_runs` with what a comparison shows of the trainings.

    Raises:
        Mismatch: As of `find_runs`; or the rows of a run are not here to be searched for test
            cases.
    """
    runs = find_runs(resolved.job, resolved.fingerprint, run, replay=replay)
    by_id = {each.id: each for each in runs.values()}
    described = {name: _described(resolved, each) for name, each in by_id.items()}
    return {name: described[each.id] for name, each in runs.items()}


def _described(resolved: ResolvedJob, run: Run) -> TunedRun:
    events, before = run.events(), run.lineage.ancestors
    earlier = [find_run(link.name) for link in before if link.method is not None]
    is_this = run.fingerprint == resolved.fingerprint
    effort, curve = _effort(run, resolved.job, events), curve_of(events)
    notes = [
        f"The run goes on from {link.name}, whose rows are not known; they were not searched for "
        "the test cases."
        for link in before
        if link.method is None
    ]
    if worse := run.worse_than_start:
        notes.append(f"Run {run.id}: {worse}.")
    if is_this and not earlier:
        return TunedRun(run, (), effort, curve, tuple(notes))
    rows: list[Dataset] = []
    splits = resolved.splits
    for each in (run, *earlier):
        is_job = each is run and is_this
        own = [splits.train, splits.validation] if is_job else _rows_of(each)
        rows += own
        if not own and resolved.job.evaluate.leaks != "allow":
            raise Mismatch(
                f"the rows of run {each.id} are not in {each.folder}, so they cannot be searched "
                "for the test cases. Compare on the machine that launched it, or take that for "
                "granted with evaluate.leaks: allow."
            )
        if not is_job:
            other = f"goes on from run {each.id}"
            if each is run:
                other = "was trained on other rows or settings than this job says now"
            searched = "searched for the test cases too" if own else "not searched, as not here"
            notes.append(f"Run {run.id} {other}; its own rows were {searched}.")
    return TunedRun(run, tuple(rows), effort, curve, tuple(notes))


def _rows_of(run: Run) -> list[Dataset]:
    return [
        replace(load(file), name=f"{run.id}/{file.name}")
        for file in (run.folder / "train.jsonl", run.folder / "validation.jsonl")
        if file.exists()
    ]


def _usable_runs() -> list[Run]:
    """Return the runs of all projects, except trainings that were deleted with their project."""
    return [run for run in runs(everywhere=True) if not is_lost(run.job_id)]


def _newest(job: Job, fingerprint: str) -> Run:
    twins = [run for run in _usable_runs() if run.fingerprint == fingerprint]
    newest, unended = _newest_of(twins)
    if newest is not None:
        return newest
    hint = (
        f"Run {unended} is under way: unitune watch {unended}"
        if unended
        else "Train it first: unitune run FILE. A run of other rows or settings must be named: "
        "unitune compare FILE --run RUN"
    )
    raise NotFoundError("succeeded run of job", job.name, (), hint)


def _newest_of(twins: Sequence[Run]) -> tuple[Run | None, str | None]:
    """Return the newest run that succeeded, watched to its end or not, and the id of one open."""
    done = next((run for run in twins if _refreshed(run).state is State.SUCCEEDED), None)
    return done, next((run.id for run in twins if not run.state.ended), None)


def _refreshed(run: Run) -> Run:
    return run if run.state.ended else run.refresh()


def _effort(run: Run, compared: Job, events: Sequence[Event]) -> str:
    """Return in words how it was trained: the steps that were made, and its job's settings.

    And from what, where the base or the backend is not that of the job compared.
    """
    job, base, backend = run.job, run.base_model, run.backend_name
    other = (base, backend) != (compared.base_model, compared.backend)
    steps = max((event.number("step") or 0 for event in events if event.kind == "step"), default=0)
    tuning = job.tuning
    settings = {
        "epochs": tuning.epochs,
        "batch size": tuning.batch_size,
        "learning rate": tuning.learning_rate,
        "rank": tuning.lora.rank,
        "seed": tuning.seed,
    }
    chosen = [f"{name} {value}" for name, value in settings.items() if value != "auto"]
    made = [f"{steps:.0f} steps"] if steps else []
    made += [f"step {kept} kept"] if (kept := kept_step(events)) is not None else []
    whence = f" from {base} on {backend}" if other else ""
    methods = [link.method or link.name for link in run.lineage.ancestors]
    by = ", then ".join([*methods, job.method])
    return ", ".join([f"trained by {by}{whence}", *made, *chosen])
