"""Find the runs of tuned contenders, describe their trainings and deploy their models.

The result of a gate is recorded here as an event of the candidate's run.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import ValidationError

from unitune.backends.protocol import Event, State
from unitune.cost.budget import HostingBudget
from unitune.data.dataset import Dataset
from unitune.data.example import digest
from unitune.data.load import load
from unitune.documents import Frozen
from unitune.errors import Mismatch, NotFoundError, UserError
from unitune.evaluate.documents.history import CASES, VERDICT, history_folder
from unitune.evaluate.documents.results import Comparison, VerdictName
from unitune.evaluate.inference.sources import Source
from unitune.evaluate.runner import EvaluationConfig
from unitune.files.filesystem import sha256
from unitune.job.contenders import Tuned
from unitune.job.job import Job
from unitune.ledger import Ledger, RunRecord
from unitune.ledger.projects import is_lost
from unitune.ledger.records import unreadable
from unitune.models import TunedModel
from unitune.planning.preflight import ResolvedJob
from unitune.planning.start import model_fingerprint
from unitune.run.curves import Curve, curve_of, kept_step
from unitune.run.deploying import standing
from unitune.run.deployment import answering as answering_model
from unitune.run.run import Run, find_run, runs
from unitune.workspace.home import home

KEY = "comparison:"  # prefix of these events' keys


class GateRecord(Frozen):
    """Comparison in which a run's model was the candidate."""

    time: datetime
    """Time of the comparison, UTC."""
    text: str
    comparison: str
    verdict: VerdictName
    gate: int | None
    """Exit code of the gate; None without a gate."""
    reason: str
    rule: str
    """Digest of the gate and its inputs (`rule_of`)."""
    cases: int
    test: str
    score: float
    model_fingerprint: str
    """Fingerprint of the model that answered (`unitune.planning.start.model_fingerprint`)."""
    verdict_sha256: str
    cases_sha256: str
    host: str
    """Machine that has the files."""


def rule_of(job: Job) -> str:
    """Return the digest of a job's gate with its contenders and scorers."""
    decides = {"gate", "contenders", "primary", "margin", "clusters", "leaks"}
    scorers = [scorer.name for scorer in job.evaluate.scorers]
    return digest([job.evaluate.model_dump(mode="json", include=decides), scorers])


def gate_records(ledger: Ledger, run: RunRecord) -> list[GateRecord]:
    """Return the comparisons with a run's model as candidate, newest first; UnreadableRecord."""
    events = [seen.event for seen in ledger.events(run.id, run.attempt, key=KEY)]
    try:
        read = [GateRecord.model_validate({**each.data, "time": each.time}) for each in events]
    except ValidationError as error:
        raise unreadable(error, f"run {run.id}", "comparison ") from error
    return sorted(read, key=lambda each: each.time, reverse=True)


def refuse_changed_files(record: GateRecord, *, is_shared: bool) -> None:
    """Raise Mismatch if a comparison's files were changed, or deleted on the machine with them."""
    folder = history_folder(record.comparison)
    if is_shared and record.host != socket.gethostname() and not folder.exists():
        return
    for name, expected in ((VERDICT, record.verdict_sha256), (CASES, record.cases_sha256)):
        file = folder / name
        if not file.exists() or sha256(file) != expected:
            state = "was changed since the comparison" if file.exists() else "was deleted"
            raise Mismatch(
                f"{file} {state}, so comparison {record.comparison} is no longer valid evidence. "
                "Compare again: unitune compare"
            )


@dataclass(frozen=True, slots=True)
class TunedRun:
    """Run with a description of its training."""

    run: Run
    # Training and validation rows, if they differ from the job's current ones
    rows: tuple[Dataset, ...] = ()
    effort: str = ""  # summary of the training
    curve: Curve | None = None
    notes: tuple[str, ...] = ()

    def record_gate(self, job: Job, comparison: Comparison) -> None:
        """Record a comparison in the history as an event of its candidate's run."""
        gate, folder = comparison.gate, history_folder(comparison.id or "")
        passed = "no gate" if gate is None else f"gate {'' if gate.passed else 'not '}passed"
        name, now = comparison.candidate, datetime.now(UTC)
        (score,) = (each.score for each in comparison.contenders if each.name == name)
        record = GateRecord(
            time=now,
            text=f"compared ({comparison.id}): {comparison.verdict}, {passed}",
            comparison=comparison.id or "",
            verdict=comparison.verdict,
            gate=gate and gate.exit_code,
            reason=gate.reason if gate else "",
            rule=rule_of(job),
            cases=comparison.n,
            test=comparison.provenance["Test cases"],
            score=score,
            model_fingerprint=model_fingerprint(self.model),
            verdict_sha256=sha256(folder / VERDICT),
            cases_sha256=sha256(folder / CASES),
            host=socket.gethostname(),
        )
        data, ledger = record.model_dump(exclude={"time"}), Ledger(home())
        event = Event(f"{KEY}{record.comparison}", "message", now.timestamp(), data)
        ledger.note(ledger.record(self.run.id), event)

    @property
    def model(self) -> TunedModel:
        """Model of the run."""
        assert self.run.tuned_model is not None, "`find_runs` checks it"
        return self.run.tuned_model


@contextmanager
def answering(
    tuned: Mapping[str, TunedRun], config: EvaluationConfig
) -> Generator[dict[str, Source]]:
    """Yield the sources with the tuned models, deploying them if needed and within the budget."""
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
    """Return the run whose model answers for each tuned contender, by contender name.

    By default it is the newest succeeded run of this training. A replay leaves out runs that are
    not in the ledger.

    Raises:
        NotFoundError: The run does not exist.
        UserError: A run has no model.
        Mismatch: `run` tuned another base model or used another backend than the job's.
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
            f"run {chosen.id} is {chosen.state} and has no model. Follow it with `unitune "
            f"runs watch {chosen.id}`, or name another run: unitune runs"
        )
    if spec.run is None and (model.backend, model.base) != (job.backend, job.base_model):
        raise Mismatch(
            f"run {chosen.id} tuned {model.base} on {model.backend}, but the job compares with "
            f"{job.base_model} on {job.backend}. If this is intended, name the run in "
            f"evaluate.contenders: {{type: tuned, run: {chosen.id}}}."
        )
    return chosen


def find_sweep_runs(resolved: ResolvedJob, *, replay: bool) -> dict[str, Run]:
    """Return the newest succeeded run of each combination of a sweep's values, by name.

    Raises:
        NotFoundError: A run was not launched or is in progress; never in a replay.
    """
    known, chosen = _usable_runs(), dict[str, Run]()
    for each in resolved.runs:
        twins = [run for run in known if run.fingerprint == each.fingerprint]
        newest, unended = _newest_of(twins)
        if newest is not None:
            chosen[each.setting] = newest
        elif not replay and (unended or not twins):
            hint = "Train it first: `unitune run FILE` launches the missing runs of the sweep."
            if unended:
                hint = f"Run {unended} is in progress: unitune runs watch {unended}"
            raise NotFoundError("succeeded run with", each.setting, (), hint)
    return chosen


def find_tuned_runs(resolved: ResolvedJob, run: Run | None, *, replay: bool) -> dict[str, TunedRun]:
    """Return `find_runs` with a description of each training.

    Raises:
        Mismatch: See `find_runs`; or the rows of a run are not available to search for test cases.
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
        f"The run continues from {link.name}, whose rows are unknown and were not searched for "
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
                "for the test cases. Compare on the machine that launched it, or skip the search "
                "with evaluate.leaks: allow."
            )
        if not is_job:
            other = f"continues from run {each.id}"
            if each is run:
                other = "was trained with other rows or settings than the job's current ones"
            searched = (
                "also searched for the test cases"
                if own
                else "not searched, because they are not available"
            )
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
        f"Run {unended} is in progress: unitune runs watch {unended}"
        if unended
        else (
            "Train it first: unitune run FILE. A run with other rows or settings must be named: "
            "unitune compare FILE --run RUN"
        )
    )
    raise NotFoundError("succeeded run of job", job.name, (), hint)


def _newest_of(twins: Sequence[Run]) -> tuple[Run | None, str | None]:
    """Return the newest succeeded run, refreshing runs that are open, and the id of an open one."""
    done = next((run for run in twins if _refreshed(run).state is State.SUCCEEDED), None)
    return done, next((run.id for run in twins if not run.state.ended), None)


def _refreshed(run: Run) -> Run:
    return run if run.state.ended else run.refresh()


def _effort(run: Run, compared: Job, events: Sequence[Event]) -> str:
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
