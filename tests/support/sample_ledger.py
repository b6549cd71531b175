"""A ledger to look at: runs in several states, deployments, comparisons kept and under way.

`fill` makes it in the home folder that the environment names. Its runs are records, and no job of
theirs is anywhere, but for `start_live_run`, which launches one on the fake backend.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

from support.sample_comparison import VERDICTS, Counts, contrast, gated, sample_comparison
from unitune.backends.protocol import Event, State, Upload
from unitune.evaluate.documents.history import keep
from unitune.evaluate.documents.records import Record
from unitune.evaluate.documents.results import Comparison
from unitune.evaluate.inference.journal import open_journal
from unitune.job.job import Data, Gate, Job
from unitune.ledger import DeploymentRecord, Ledger, RunRecord, budgeting
from unitune.ledger.metering import BILL
from unitune.models import Start, TunedModel
from unitune.planning.plan import plan
from unitune.run.run import Run, launch
from unitune.workspace.home import home, make_home

HOUR = 3600.0


@dataclass(frozen=True)
class SampleLedger:
    """What `fill` has made."""

    ledger: Ledger
    succeeded: str
    failed: str
    uncertain: str
    comparison: Comparison


def sample_job(folder: Path, **fields: object) -> Job:
    """Return a job of 120 rows, at a vendor whose price is known."""
    rows = (
        json.dumps({"prompt": f"Where is parcel {at}? I wait for days.", "completion": "delivery"})
        for at in range(120)
    )
    (folder / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    given = {"name": "bank-intents", "model": "Qwen/Qwen3-8B", "backend": "together"}
    return Job.model_validate(
        {**given, **fields, "data": Data(train="train.jsonl"), "folder": folder}
    )


def fill(folder: Path, text: str = "") -> SampleLedger:
    """Make the ledger, its job's rows in a folder.

    Args:
        folder: For the job.
        text: At the end of every text that others wrote.
    """
    make_home(home())
    ledger, job = Ledger(home()), sample_job(folder)
    now = time.time()
    done = _run(ledger, job, ("r261125-0000000001", now - 1100), State.SUCCEEDED, text)
    start = Start(run=done, model=TunedModel(backend="together", name=f"you{text}", base="Qwen"))
    failed = _run(ledger, job, ("r261125-0000000002", now - 900), State.FAILED, text, start)
    open_ = _run(ledger, job, ("r261126-0000000003", now - 300), State.UNCERTAIN, text)
    model = TunedModel(backend="together", name=f"you/qwen3-8b-bank-intents{text}", base="Qwen")
    for name, created, ended in (("d1", now - 5 * HOUR, None), ("d2", now - 28 * HOUR, now - HOUR)):
        record = DeploymentRecord(
            id=f"{done}-{name}",
            run_id=done,
            backend="together",
            name=name,
            model=model,
            state="gone" if ended else "ready",
            ref=f"endpoint-{name}",
            usd_per_hour=Decimal("3.99"),
            created=created,
            until=created + 8 * HOUR,
            ended=ended,
        )
        ledger.add_deployment(record, lambda _: None)
    return SampleLedger(ledger, done, failed, open_, kept_comparison(done))


def _run(  # noqa: PLR0917 - each is independent
    ledger: Ledger,
    job: Job,
    at: tuple[str, float],
    state: State,
    text: str,
    start: Start | None = None,
) -> str:
    run_id, created = at
    estimate = plan(job).estimate
    assert estimate is not None
    approval = budgeting.Approval(estimate=estimate, files={}).model_dump_json()
    record = RunRecord(
        id=run_id,
        name=job.name,
        backend=job.backend,
        base_model=f"{job.base_model}{text}",
        method=job.method,
        fingerprint=run_id[-10:] * 6,
        created=created,
        updated=created,
        start=start,
    )
    folder = ledger.run_folder(run_id)
    folder.mkdir(parents=True)
    job.save(folder / "job.yaml")
    ledger.add(record, job=(folder / "job.yaml").read_text("utf-8"), approval=approval, again=True)
    ledger.reserve(record, lambda _books, cost: cost.approval)
    ledger.add_upload(record, "train.jsonl", Upload("file-1", "5b0c21f4e9aa" * 5))
    events = [Event("m", "message", created + 60, {"text": f"the training has begun{text}"})]
    if state is not State.UNCERTAIN:
        record = ledger.write(replace(record, state=State.RUNNING, raw="running", job_id="ft-1"))
        events += training_events(150 if state is State.SUCCEEDED else 60, created)
    if state is State.SUCCEEDED:
        billed = {"text": "11,400 trained tokens and $0.02 are billed", "tokens": 11400}
        events.append(Event(BILL, "message", created + 620, {**billed, "usd": "0.02"}))
    error = {
        State.FAILED: f"the loss is no number any more{text}",
        State.UNCERTAIN: f"the create call got no answer{text}",
    }.get(state)
    model = TunedModel(backend=job.backend, name=f"you/qwen3{text}", base=job.base_model)
    tuned = model if state is State.SUCCEEDED else None
    ledger.write(replace(record, state=state, raw=str(state), error=error, model=tuned), events)
    return run_id


def training_events(steps: int, created: float) -> list[Event]:
    """Return the events of a training of 150 steps, as far as it has come."""
    random_ = random.Random(7)  # noqa: S311 - a made-up curve
    events: list[Event] = []
    for step in range(1, steps + 1):
        loss = 0.32 + 2.4 / (1 + step / 9) + random_.gauss(0, 0.05)
        figures = {"step": step, "steps": 150, "loss": loss, "tokens_per_second": 1834.0}
        figures["seconds_left"] = 4.0 * (150 - step)
        events.append(Event(f"s{step}", "step", created + 4 * step, dict(figures)))
        if step % 25 == 0:
            data = {"step": step, "loss": 0.55 + 1.4 * math.exp(-step / 40)}
            events.append(Event(f"v{step}", "validation", created + 4 * step, dict(data)))
    return events


def kept_comparison(run: str | None, counts: Counts = VERDICTS["better"]) -> Comparison:
    """Keep a comparison of the sample in the history, with a gate, errors and slices."""
    made = gated(sample_comparison(counts, errors=3), Gate(mode="improve"), required=4)
    slices = ("language = de", "language = en")
    cases = tuple(
        replace(case, slices=(slices[at % 3 == 0],)) for at, case in enumerate(made.cases)
    )
    contrasts = tuple(map(contrast, slices))
    return keep(made.model_copy(update={"run": run, "cases": cases, "slices": contrasts}))


@contextmanager
def comparison_under_way(answers: int) -> Generator[None]:
    """Hold a comparison open as the process at work on it does, with so many answers."""
    records = [
        Record(
            contender=name,
            case=f"case-{at}",
            request_hash=f"h{at}",
            text="delivery",
            error="HTTP 503" if at == 2 else None,
        )
        for name in ("tuned", "few-shot")
        for at in range(answers)
    ]
    with open_journal(home() / "evaluations" / "bank-intents" / "rows.jsonl") as journal:
        journal.append(records)
        yield


def start_live_run(folder: Path, steps: int = 400, seconds_per_step: float = 0.05) -> Run:
    """Launch a run on the fake backend, which goes on by the clock."""
    script = {"steps": steps, "seconds_per_step": seconds_per_step, "states": []}
    return launch(
        sample_job(folder, name="live", model="tiny", backend="fake", options={"fake": script})
    )
