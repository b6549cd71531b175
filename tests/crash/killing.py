"""Launch in a child process that is killed (SIGKILL) at one line of our code, then recover; again
and again, at another line each time, until a launch gets through.

Usage: python killing.py GUARANTEE VERB STRIDE FOLDER

GUARANTEE is the vendor's. VERB is what is killed: launch, cancel, resume, settle: the search for
the job of a create call without an answer, or sweep: the launches of two runs. STRIDE is how many
lines lie between two kills.

Prints one JSON line for each kill. The child is a fork, so that a kill costs milliseconds; the
vendor is `FakeBackend`'s folder, which outlives the child as a vendor would.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from unitune.backends import exactly_once, registry, retry
from unitune.backends.protocol import Guarantee, State
from unitune.errors import UnituneError
from unitune.job.job import Data, Job, Tuning
from unitune.ledger import costs, database, holders, leases, ledger, records, sqlite
from unitune.run import creating, deleting, handle, launching, run
from unitune.run.run import Run, launch, launch_sweep, runs
from unitune.testing import FakeBackend, fake, fake_vendor
from unitune.workspace import own_files

LAUNCHING = (creating, deleting, handle, launching, run, run)
ACTING = (*LAUNCHING, exactly_once, own_files, retry, fake, fake_vendor)
RECORDING = (costs, database, holders, leases, ledger, records, sqlite)
OURS = {str(module.__file__) for module in (*ACTING, *RECORDING)}
SEARCH = {str(exactly_once.__file__)}
SETTLE_SECONDS = 0.05
"""The fake's list shows a job at once; so long that the search is begun again."""
Trace = Callable[[FrameType, str, object], object]


class Killer:
    """Kills its own process before the given line of ours is run, counted from 1."""

    def __init__(self, at: int, files: set[str], report: int) -> None:
        self.left = at
        self.files = files
        self.report = report

    def __call__(self, frame: FrameType, event: str, _: object) -> Trace | None:
        if frame.f_code.co_filename not in self.files:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                os.write(self.report, place.encode())
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def killed(at: int, files: set[str], act: Callable[[], object]) -> str | None:
    """Let a child do something and die at a line of the files; return where, None if it lives."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            sys.settrace(Killer(at, files, writing))
            act()
            sys.settrace(None)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it was, it is shown
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as report:
        place = report.read()
    if os.WIFSIGNALED(status):
        return place
    assert os.WEXITSTATUS(status) == 0, "the child failed by itself; its traceback stands above"
    return None


def a_job(folder: Path, script: dict[str, object]) -> Job:
    for name in ("train.jsonl", "validation.jsonl"):
        row = {"prompt": name, "completion": "a"}
        (folder / name).write_text(json.dumps(row) + "\n", encoding="utf-8")
    return Job(
        name="demo",
        model="tiny",
        backend="fake",
        data=Data(train="train.jsonl", validation="validation.jsonl"),
        options={"fake": script},
        folder=folder,
    )


def jobs_at_the_vendor(folder: Path) -> list[str]:
    """Return the ids of the jobs that the fake has in a folder."""
    return sorted(str(file.parent) for file in folder.glob("vendor/*/job.json"))


def recover(job: Job) -> Run:
    """Do what a user does who finds an interrupted run: launch if there is none, else resume."""
    found = runs()
    if not found:
        return launch(job)
    assert len(found) == 1, f"{len(found)} runs"
    mine = found[0]
    if mine.state is State.UNCERTAIN or mine.resume().state is State.UNCERTAIN:
        jobs = FakeBackend().find(mine.launch_key, mine.folder)
        if jobs:
            return mine.resume(adopt=jobs[0])
        return mine.resume(resubmit=True)
    return mine


def prepared(folder: Path, verb: str) -> tuple[Job, Callable[[], object], Callable[[], Run]]:
    """Return the job, what is killed, and how its user recovers."""
    script: dict[str, object] = {"steps": 50 if verb == "cancel" else 4, "steps_per_poll": 3}
    if verb == "settle":
        script["submits"] = ["lose answer"]
    job = a_job(folder, script)
    if verb == "sweep":
        seeds = Tuning.model_validate({"seed": [1, 2]})
        swept = job.model_copy(update={"tuning": seeds})
        return swept, lambda: list(launch_sweep(swept)), lambda: recover_sweep(swept)
    if verb in ("launch", "settle"):
        return job, lambda: launch(job), lambda: recover(job)
    if verb == "cancel":
        mine = launch(job)
        return job, mine.cancel, lambda: recover_cancel(mine)
    paused = job.model_copy(update={"options": {"fake": {"pause_at_step": 2}}})
    mine = launch(paused).wait(0)
    return paused, mine.resume, mine.resume


def recover_sweep(job: Job) -> Run:
    """Give the same command again; of several runs return one that has not succeeded, if any."""
    launched = [each.wait(0) for each in launch_sweep(job)]
    assert sorted(each.id for each in launched) == sorted(each.id for each in runs())
    return next((each for each in launched if each.state is not State.SUCCEEDED), launched[-1])


def recover_cancel(mine: Run) -> Run:
    mine.refresh()
    return mine if mine.state.ended else mine.cancel()


def trial(at: int, verb: str, folder: Path) -> dict[str, object] | None:
    """Kill at a line and recover; None when nothing was left to kill."""
    os.environ["UNITUNE_DIR"] = str(folder / ".unitune")
    os.environ["UNITUNE_FAKE_DIR"] = str(folder / "vendor")
    folder.mkdir()
    _, act, back = prepared(folder, verb)
    files = SEARCH if verb == "settle" else OURS
    place = killed(at, files, act)
    if place is None:
        return None
    left = [str(found.state) for found in runs()]
    try:
        mine = back().wait(0)
        jobs = len(jobs_at_the_vendor(folder))
        return {"place": place, "left": left, "jobs": jobs, "end": str(mine.state)}
    except UnituneError as error:
        return {"place": place, "left": left, "jobs": -1, "end": str(error)}


def main(guarantee: str, verb: str, stride: str, folder: str) -> None:
    FakeBackend.guarantee = Guarantee(guarantee)
    offer = registry.offer("fake").model_copy(update={"settle_seconds": SETTLE_SECONDS})
    if verb == "sweep":  # as at a vendor: on this machine a run waits for the one before
        offer = offer.model_copy(update={"training_price": None, "trains_on": "vendor"})
    registry.offer = lambda _: offer
    at = 1
    while result := trial(at, verb, Path(folder) / str(at)):
        shutil.rmtree(Path(folder) / str(at))
        sys.stdout.write(json.dumps(result) + "\n")
        at += int(stride)


if __name__ == "__main__":
    main(*sys.argv[1:])
