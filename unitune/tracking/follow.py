"""The process that feeds a run's trackers from the ledger (`unitune.tracking.feed` starts it).

    python -m unitune.tracking.follow HOME RUN NAME…    lines of `Results` on its standard input

Of several processes for one run on a machine, one works at a time. It sends a tracker everything
from the run's beginning, and the tracker leaves out what it has: so no process need know how far
another has come, wherever that was killed. A tracker that fails is left out, with a warning among
the run's events; a training never fails for it. What came of each is printed at the end, in JSON.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from pydantic import JsonValue

from unitune.backends.protocol import Event
from unitune.errors import LockTimeout
from unitune.ledger import Ledger, RecordedEvent, RunRecord
from unitune.ledger.model_versions import AliasMove
from unitune.security.json_fields import flat
from unitune.security.redaction import redacted
from unitune.tracking.feed import LOCK
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
from unitune.workspace.locks import locked

LOOK_SECONDS = 2.0
"""Between two looks for events."""
FAILED = "run.tracking-failed"
GROUPS = {"step": "train", "validation": "validation"}
"""Kinds of events with figures, and what these are grouped by at a tracker."""
NO_FIGURES = frozenset({"step", "steps", "seconds_left"})


class _Feed:
    """One tracker, until it fails."""

    def __init__(self, name: str, run: TrackedRun) -> None:
        self.name, self.problem = name, ""
        self._tracker: Tracker | None = None
        try:
            self._tracker = open_tracker(name, run)
        except Exception as error:  # noqa: BLE001 - whatever a package raises
            self._fail(error)

    def send(self, action: Callable[[Tracker], None]) -> None:
        """Do something with the tracker, if it still works."""
        if self._tracker is not None and not self.problem:
            try:
                action(self._tracker)
            except Exception as error:  # noqa: BLE001 - whatever a package raises
                self._fail(error)

    @property
    def outcome(self) -> Outcome:
        """What came of it."""
        where = self._tracker.where if self._tracker else ""
        return Outcome(tracker=self.name, where=redacted(where), problem=self.problem)

    def _fail(self, error: Exception) -> None:
        self.problem = redacted((str(error).strip() or type(error).__name__).splitlines()[0])


def follow(
    ledger: Ledger, run_id: str, names: Iterable[str], watched: Iterator[Sequence[Results]]
) -> list[Outcome]:
    """Feed trackers with a run's events as long as it is watched, then with results."""
    record, last, results = ledger.record(run_id), 0, list[Results]()
    run = _tracked_run(ledger, record)
    feeds = [_Feed(name, run) for name in names]
    for given in watched:
        results += given
        fresh = ledger.events(run_id, record.attempt, last)
        last = fresh[-1].id if fresh else last
        points = [point for seen in fresh if (point := _point(seen))]
        for feed in feeds:
            feed.send(lambda tracker, points=points: tracker.log(points))
    state, version = ledger.record(run_id).state, ledger.version_of_run(run_id)
    for feed in feeds:
        for result in results:
            feed.send(lambda tracker, result=result: tracker.add(result))
        if version is not None:
            feed.send(lambda tracker, model=version.model: _mirror(ledger, model, tracker))
        feed.send(lambda tracker: tracker.close(state))
        _note(ledger, record, feed.outcome, ended=state.ended)
    return [feed.outcome for feed in feeds]


def _mirror(ledger: Ledger, model: str, tracker: Tracker) -> None:
    """Bring a tracker's registry up to the ledger, and again where that has changed meanwhile.

    So whoever writes last has seen that it was not overtaken, on whatever machine.
    """
    if not isinstance(tracker, HasRegistry):
        return
    with locked(ledger.folder / "mirror.lock", f"the registry of {tracker.where}", math.inf):
        mirrored: list[AliasMove] | None = None
        while mirrored != (moves := ledger.alias_moves(model)):
            aliases = {each.alias: None if each.kind == "remove" else each.number for each in moves}
            tracker.mirror(ledger.versions(model), aliases)
            mirrored = moves


def _note(ledger: Ledger, record: RunRecord, outcome: Outcome, *, ended: bool) -> None:
    now, name = time.time(), outcome.tracker
    warning: dict[str, JsonValue] = {"text": f"{name} was not fed: {outcome.problem}"}
    message: dict[str, JsonValue] = {"text": f"tracked by {name}: {outcome.where}"}
    with suppress(LockTimeout):  # the run is deleted, or another process has written the same
        if outcome.problem:
            ledger.note(record, Event(f"{FAILED}.{name}", "warning", now, warning))
        elif ended:
            ledger.note(record, Event(f"{TRACKED}.{name}", "message", now, message))


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
        home=ledger.folder,
    )


def _point(seen: RecordedEvent) -> Point | None:
    event, step = seen.event, seen.event.number("step")
    group, names = GROUPS.get(event.kind), event.data.keys() - NO_FIGURES
    values = {
        f"{group}/{name}": value for name in names if (value := event.number(name)) is not None
    }
    if group is None or step is None or not values:
        return None
    return Point(seen.id, int(step), event.time, values)


def _watched(pipe: int) -> Iterator[list[Results]]:
    """Yield nothing now and then, and when a pipe has closed, the results that came through it."""
    content = b""
    while True:
        if not select.select([pipe], [], [], LOOK_SECONDS)[0]:
            yield []
        elif piece := os.read(pipe, 65_536):
            content += piece
        else:
            yield [Results.model_validate_json(line) for line in content.splitlines()]
            return


def main() -> None:
    """Feed the trackers that the arguments name."""
    home, run_id, *names = sys.argv[1:]
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the packages print, some when the process ends
    ledger = Ledger(Path(home))
    folder = ledger.run_folder(run_id)
    # Of the processes on this machine that feed the same run one at a time does; of a run that was
    # launched on another machine there is no folder.
    lock = locked(folder / LOCK, f"the tracking of run {run_id}", math.inf)
    with lock if folder.is_dir() else nullcontext():
        outcomes = follow(ledger, run_id, names, _watched(sys.stdin.fileno()))
    with output:
        output.writelines(f"{outcome.model_dump_json()}\n" for outcome in outcomes)


if __name__ == "__main__":
    main()
