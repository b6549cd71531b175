"""Compare in batches in a child process that is killed (SIGKILL) at a step, then compare again; at
every step in turn, or at one of each name.

Usage: python batch_killing.py SCENE STEPS FOLDER

A step is before, within or after a write to ``batches.jsonl``, and before or after a write of
answers and a verb of `unitune.backends.capabilities.Batches`. SCENE is what the comparison meets:
``lost``, a vendor that loses its first answer, or ``changed``, open batches, one of them of another
prompt. STEPS is ``all``, or ``each``: of steps of one name the first, of another's the second, …

Prints one JSON line for the undisturbed comparison and one for each kill. The child is a fork; the
vendor is the fake's folder, which outlives it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from itertools import repeat
from pathlib import Path
from typing import Any

from unitune.backends import exactly_once, registry
from unitune.evaluate.compare import compare
from unitune.evaluate.inference import batch_runner
from unitune.evaluate.inference.batches import BatchFile
from unitune.evaluate.inference.journal import Journal
from unitune.job.job import Job
from unitune.run.run import launch
from unitune.testing import FakeBackend

VERBS = ("submit_batch", "find_batch", "poll_batch", "fetch_batch", "cancel_batch")
SETTLE_SECONDS = 0.02
"""The fake's list shows a batch at once; so long that the search is begun again."""
Step = Callable[[str], None]


def hooked(step: Step) -> None:
    """Call `step` around every write and verb; only ever in a fork, so nothing is put back."""

    def around(owner: type, name: str) -> None:
        act = getattr(owner, name)

        @wraps(act)
        def with_steps(*arguments: Any, **named: Any) -> Any:
            step(f"before {name}")
            result = act(*arguments, **named)
            step(f"after {name}")
            return result

        setattr(owner, name, with_steps)

    for verb in VERBS:
        around(FakeBackend, verb)
    around(Journal, "append")
    around(BatchFile, "announce")
    around(BatchFile, "change")
    whole = BatchFile._write

    def torn(self: BatchFile, line: Any) -> None:
        file = self._file
        half = line.model_dump_json(exclude_none=True).encode()[: 10 + len(line.key)]
        at = file.tell()
        file.write(half)
        file.flush()
        step("within write")
        file.truncate(at)
        whole(self, line)

    BatchFile._write = torn


def steps_of(act: Callable[[], object]) -> list[str]:
    """Return the steps of an act that gets through, in a fork."""
    reading, writing = os.pipe()

    def seen() -> None:
        steps: list[str] = []
        hooked(steps.append)
        act()
        os.write(writing, json.dumps(steps).encode())

    assert in_fork(seen) is None
    os.close(writing)
    with os.fdopen(reading) as report:
        return json.loads(report.read())


def killed(at: int, act: Callable[[], object]) -> None:
    """Let a fork die at a step, counted from 1."""

    def die() -> None:
        left = at

        def step(_: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        hooked(step)
        act()

    assert in_fork(die) == signal.SIGKILL, f"there is no step {at}"


def in_fork(act: Callable[[], object]) -> int | None:
    """Do something in a fork; return the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it was, it is shown
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "the fork failed; see its traceback above"
    return None


def a_job(folder: Path, instructions: str) -> Job:
    """A job of three contenders, over a handful of rows."""
    for name, count in (("train", 6), ("dev", 2), ("test", 5)):
        rows = [{"prompt": f"{name} {at}", "completion": "yes"} for at in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return Job.model_validate(
        {
            "name": "demo",
            "model": "base",
            "backend": "fake",
            "data": {"train": "train.jsonl", "test": "test.jsonl", "validation": "dev.jsonl"},
            "evaluate": {
                "contenders": ["zero-shot", "instructed", "tuned"],
                "instructions": instructions,
            },
            "options": {"fake": {"steps": 1}},
            "folder": folder,
        }
    )


def in_batches(job: Job, place: Path) -> None:
    compare(job, out=place / "out", batch=True)


def stop_waiting(job: Job, place: Path) -> None:
    """Hand all batches in and die."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def act() -> None:
        FakeBackend.poll_batch = die
        in_batches(job, place)

    assert in_fork(act) == signal.SIGKILL


def trial(template: Path, place: Path, scene: str, at: int) -> dict[str, object]:
    """Compare, killed at a step (0: not at all), and again; return what stands in the end."""
    shutil.copytree(template, place, ignore=shutil.ignore_patterns(".unitune"))
    os.environ["UNITUNE_FAKE_DIR"] = str(place / "vendor")
    script = {"polls": 1, "submits": ["lose answer"] if scene == "lost" else []}
    (place / "vendor" / "batches.json").write_text(json.dumps(script), encoding="utf-8")
    job = a_job(place, "TOLD")
    if scene == "changed":
        stop_waiting(a_job(place, "TOLD OTHERWISE"), place)

    def act() -> None:
        in_batches(job, place)

    step = ""
    if at:
        killed(at, act)
    else:
        step = json.dumps(steps_of(act))
    assert in_fork(act) is None
    batches = sorted(file.parent for file in place.glob("vendor/batches/*/batch.json"))
    cancelled = [folder for folder in batches if (folder / "cancelled").exists()]
    rows = (place / "out" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    log = (place / "out" / "batches.jsonl").read_text(encoding="utf-8").splitlines()
    ended = {json.loads(line)["key"] for line in log if "end" in json.loads(line)}
    verdict = json.loads((place / "out" / "verdict.json").read_text(encoding="utf-8"))
    return {
        "steps": json.loads(step) if step else [],
        "at": at,
        "batches": len(batches),
        "cancelled": len(cancelled),
        "open": len({json.loads(line)["key"] for line in log} - ended),
        "rows": sorted(rows),
        # Notes say how many answers were recorded before the process that ended well.
        "verdict": {**verdict, "created": "", "id": "", "notes": []},
    }


def one_of_each(steps: list[str]) -> list[int]:
    """Return one step of each name, counted from 1: early ones and late ones in turn."""
    numbers: dict[str, list[int]] = {}
    for number, step in enumerate(steps, start=1):
        numbers.setdefault(step, []).append(number)
    return [same[at % len(same)] for at, same in enumerate(numbers.values())]


def main(scene: str, chosen: str, folder: str) -> None:
    offer = registry.offer("fake").model_copy(update={"settle_seconds": SETTLE_SECONDS})
    registry.offer = lambda _: offer
    for module in (batch_runner, exactly_once):
        module.delays = lambda *_: repeat(0.001)
    template = Path(folder) / "template"
    template.mkdir()
    os.environ["UNITUNE_DIR"] = str(template / ".unitune")
    os.environ["UNITUNE_FAKE_DIR"] = str(template / "vendor")
    job = a_job(template, "TOLD")
    launch(job).wait(0)
    compare(job, out=Path(folder) / "warm")  # whatever is imported on the way is, for all forks
    undisturbed = trial(template, Path(folder) / "0", scene, 0)
    sys.stdout.write(json.dumps(undisturbed) + "\n")
    steps = undisturbed["steps"]
    for at in one_of_each(steps) if chosen == "each" else range(1, len(steps) + 1):
        seen = trial(template, Path(folder) / str(at), scene, at)
        sys.stdout.write(json.dumps({**seen, "steps": [steps[at - 1]]}) + "\n")
        shutil.rmtree(Path(folder) / str(at))


if __name__ == "__main__":
    main(*sys.argv[1:])
