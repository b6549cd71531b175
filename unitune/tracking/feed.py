"""Feed each tracker of a run from the ledger, in a process of its own.

    python -m unitune.tracking.feed HOME RUN TRACKER RESULTS    RESULTS: a `Results`, or ""

A separate process isolates the user's process from the trackers' packages. W&B reads settings
from the current folder, replaces ``sys.exit`` and waits for its server at exit without limit.
Others print, and take seconds to import.

The process sends events until its standard input closes, at the end of the watch or when the
watching process is killed. Then it sends the rest and ends. It sends every run from its first
event and the tracker skips known points, so no process needs to know what another one has sent.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from pydantic import JsonValue

from unitune.backends.protocol import Event
from unitune.errors import LockTimeout, UnreadableRecord
from unitune.files.filesystem import private_folder
from unitune.files.system import DETACHED
from unitune.ledger import Ledger, RecordedEvent, RunRecord
from unitune.ledger.ledger import figures_of
from unitune.ledger.model_versions import AliasMove
from unitune.security.json_fields import flat
from unitune.security.redaction import redacted
from unitune.tracking.interface import (
    TRACKED,
    HasRegistry,
    Outcome,
    Point,
    Results,
    TrackedRun,
    Tracker,
    open_tracker,
)
from unitune.workspace.own_files import is_locked, locked
from unitune.workspace.user_settings import environment

FAILED = "run.tracking-failed"
FOLDER = "tracking"  # current folder of the processes, in the ledger's folder
LOOK_SECONDS = 2.0  # seconds between two checks for events
CLOSE_SECONDS = 60.0  # maximum wait at the end of a watch
LATE = f"it is still sending after {CLOSE_SECONDS:.0f} s, and continues in the background"
# Stops the packages from sending usage data, unless the user has set the variable.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}


@contextmanager
def feeding(
    ledger: Ledger, record: RunRecord, names: Sequence[str], results: Results | None = None
) -> Generator[list[Outcome]]:
    """Feed a run's trackers during the body, then wait until they have received everything.

    Args:
        ledger: Ledger of the run.
        record: The run.
        names: Names of the trackers.
        results: Results of a comparison, sent at the end.

    Yields:
        An empty list, which holds one outcome per tracker after the body.
    """
    outcomes: list[Outcome] = []
    processes = [_start(ledger, record, name, results) for name in names]
    try:
        yield outcomes
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        ends = time.monotonic() + CLOSE_SECONDS
        pairs = zip(names, processes, strict=True)
        outcomes += [_outcome(name, process, ends) for name, process in pairs]


def trackers_to_feed(ledger: Ledger, record: RunRecord) -> tuple[str, ...]:
    """Return the trackers of a run's job that lack its end and that no process feeds."""
    try:
        names = ledger.job(record.id).track
    except UnreadableRecord:  # e.g. a run whose job is not recorded
        return ()
    done = {seen.event.key for seen in ledger.events(record.id, record.attempt, key=TRACKED)}
    return tuple(
        name
        for name in names
        if f"{TRACKED}.{name}" not in done and not is_locked(_lock(ledger, record.id, name))
    )


def follow(
    ledger: Ledger, run_id: str, name: str, watch: int, results: Results | None = None
) -> Outcome:
    """Feed one tracker until the watch ends, and record the outcome in the ledger.

    Args:
        ledger: Ledger of the run.
        run_id: Id of the run.
        name: Name of the tracker.
        watch: File descriptor that becomes readable when the watch ends.
        results: Results of a comparison, sent at the end.
    """
    record, where, problem = ledger.record(run_id), "", ""
    try:
        tracker = open_tracker(name, _tracked_run(ledger, record))
        where = redacted(tracker.where)
        _send_events(ledger, record, tracker, watch)
        if results is not None:
            tracker.add(results)
        if version := ledger.version_of_run(run_id):
            _mirror(ledger, version.model, tracker)
        tracker.close(ledger.record(run_id).state)
    except Exception as error:  # noqa: BLE001 - packages raise any exception
        problem = redacted((str(error).strip() or type(error).__name__).splitlines()[0])
    outcome = Outcome(tracker=name, where=where, problem=problem)
    _note(ledger, record, outcome)
    return outcome


def _start(
    ledger: Ledger, record: RunRecord, name: str, results: Results | None
) -> subprocess.Popen[str]:
    folder = ledger.folder / FOLDER
    private_folder(folder)
    own = {"WANDB_DIR": str(folder)}
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    arguments = (str(ledger.folder), record.id, name, results.model_dump_json() if results else "")
    return subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", "unitune.tracking.feed", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={**QUIET, **store, **environment(), **own},
        start_new_session=True,  # Ctrl-C is meant for the watching process
        creationflags=DETACHED,
    )


def _outcome(name: str, process: subprocess.Popen[str], ends: float) -> Outcome:
    """Wait until a time for a process to print its outcome, and return it."""
    assert process.stdout is not None
    with process.stdout as output:
        try:
            process.wait(max(0.0, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            return Outcome(tracker=name, problem=LATE)
        if line := output.read():
            return Outcome.model_validate_json(line)
    return Outcome(tracker=name, problem=f"its process has ended early ({process.returncode})")


def _lock(ledger: Ledger, run_id: str, name: str) -> Path:
    return ledger.run_folder(run_id) / f"tracking.{name}.lock"


def _send_events(ledger: Ledger, record: RunRecord, tracker: Tracker, watch: int) -> None:
    last, ended = 0, threading.Event()

    def wait() -> None:
        with suppress(OSError):
            os.read(watch, 1)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    is_watched = True
    while is_watched:
        is_watched = not ended.wait(LOOK_SECONDS)
        fresh = ledger.events(record.id, record.attempt, last)
        last = fresh[-1].id if fresh else last
        tracker.log([point for seen in fresh if (point := _point(seen))])


def _mirror(ledger: Ledger, model: str, tracker: Tracker) -> None:
    """Update a tracker's registry from the ledger, and repeat if the ledger has changed.

    The last writer, on any machine, has thus checked that its data was current.
    """
    if not isinstance(tracker, HasRegistry):
        return
    with locked(ledger.folder / "mirror.lock", f"the registry of {tracker.where}", math.inf):
        mirrored: list[AliasMove] | None = None
        while mirrored != (moves := ledger.alias_moves(model)):
            aliases = {each.alias: None if each.kind == "remove" else each.number for each in moves}
            tracker.mirror(ledger.versions(model), aliases)
            mirrored = moves


def _note(ledger: Ledger, record: RunRecord, outcome: Outcome) -> None:
    name, now = outcome.tracker, time.time()
    if outcome.problem:
        text = f"{name} was not fed: {outcome.problem}"
        event = Event(f"{FAILED}.{name}", "warning", now, {"text": text})
    elif ledger.record(record.id).state.ended:
        text = f"tracked by {name}: {outcome.where}"
        event = Event(f"{TRACKED}.{name}", "message", now, {"text": text})
    else:
        return
    with suppress(LockTimeout):  # the run is deleted, or another process wrote the same data
        ledger.note(record, event)


def _tracked_run(ledger: Ledger, record: RunRecord) -> TrackedRun:
    job = ledger.job(record.id)
    settings: dict[str, JsonValue] = {
        "model": job.base_model,
        "backend": job.backend,
        "method": job.method,
        "start": job.start,
        "tuning": job.tuning.model_dump(mode="json", exclude_defaults=True),
        "options": job.options.get(job.backend, {}),
    }
    return TrackedRun(
        id=record.id if record.attempt == 1 else record.launch_key,
        name=record.name,
        project=job.name,
        parameters={
            name: redacted(str(value)) if isinstance(value, str | list) else value
            for name, value in flat(settings)
        },
        tags={"unitune.fingerprint": record.fingerprint, "unitune.host": record.host},
        created=record.created,
        home=ledger.run_folder(record.id).parents[1],
    )


def _point(seen: RecordedEvent) -> Point | None:
    step, figures = seen.event.number("step"), figures_of(seen.event)
    if step is None or not figures:
        return None
    values = {name.replace(".", "/", 1): value for name, value in figures.items()}
    return Point(seen.id, int(step), seen.event.time, values)


def main() -> None:
    """Feed the tracker named by the arguments."""
    home, run_id, name, text = sys.argv[1:]
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the packages print, some of them at exit
    ledger = Ledger(Path(home))
    # One process of this machine feeds a tracker of a run at a time. A run that was launched on
    # another machine has no folder here.
    lock = _lock(ledger, run_id, name)
    held = locked(lock, f"the tracking of run {run_id}", math.inf)
    with held if lock.parent.is_dir() else nullcontext(), output:
        results = Results.model_validate_json(text) if text else None
        outcome = follow(ledger, run_id, name, sys.stdin.fileno(), results)
        output.write(outcome.model_dump_json())


if __name__ == "__main__":
    main()
