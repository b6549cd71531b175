"""Record a comparison's result as an event of the candidate's run."""

from __future__ import annotations

import socket
from datetime import UTC, datetime

from pydantic import ValidationError

from unitune.backends.protocol import Event
from unitune.data.example import digest
from unitune.documents import Frozen
from unitune.errors import Mismatch, UnreadableRecord
from unitune.evaluate.history import history_folder
from unitune.evaluate.result_files import CASES, VERDICT
from unitune.evaluate.results import Comparison, VerdictName
from unitune.files.filesystem import sha256
from unitune.job.job import Job
from unitune.ledger import Ledger, RunRecord
from unitune.planning.start import model_fingerprint

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


def record_gate(ledger: Ledger, run: RunRecord, job: Job, comparison: Comparison) -> None:
    """Record a comparison in the history as an event of its candidate's run."""
    assert run.model is not None, "it was the candidate"
    gate, folder = comparison.gate, history_folder(comparison.id or "")
    passed = "no gate" if gate is None else f"gate {'' if gate.passed else 'not '}passed"
    (score,) = (each.score for each in comparison.contenders if each.name == comparison.candidate)
    record = GateRecord(
        time=datetime.now(UTC),
        text=f"compared ({comparison.id}): {comparison.verdict}, {passed}",
        comparison=comparison.id or "",
        verdict=comparison.verdict,
        gate=gate and gate.exit_code,
        reason=gate.reason if gate else "",
        rule=rule_of(job),
        cases=comparison.n,
        test=comparison.provenance["Test cases"],
        score=score,
        model_fingerprint=model_fingerprint(run.model),
        verdict_sha256=sha256(folder / VERDICT),
        cases_sha256=sha256(folder / CASES),
        host=socket.gethostname(),
    )
    data = record.model_dump(exclude={"time"})
    ledger.note(run, Event(f"{KEY}{record.comparison}", "message", record.time.timestamp(), data))


def gate_records(ledger: Ledger, run: RunRecord) -> list[GateRecord]:
    """Return the comparisons with a run's model as candidate, newest first; UnreadableRecord."""
    events = [seen.event for seen in ledger.events(run.id, run.attempt, key=KEY)]
    try:
        read = [GateRecord.model_validate({**each.data, "time": each.time}) for each in events]
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise UnreadableRecord(f"run {run.id}", f"comparison {field}", problem["msg"]) from error
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
