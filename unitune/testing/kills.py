"""Kill a process at every step of a launch, cancel or delete, and check the recovery.

A step is a write to the ledger or a method of the backend; the process dies before or after it.
`steps_of` counts the steps of a complete act. `kill_at` kills one fork of this process at a step
and recovers in another as a user would. The objects at the vendor are counted in this process, so
the vendor must outlive the forks: a server in this process, or files.

    python -m unitune.testing.kills FILE CLASS FOLDER

does this with the backend of a contract's test in an empty folder, and prints each kill as JSON.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial, wraps
from pathlib import Path
from typing import Any, Literal, cast

from unitune.backends import registry
from unitune.backends.offer import Offer
from unitune.backends.protocol import Guarantee, State
from unitune.errors import UnituneError
from unitune.job.job import Job
from unitune.ledger import Ledger
from unitune.run.run import Run, launch, runs
from unitune.testing.vendor_setup import ServerBehavior, VendorState, serve_vendor
from unitune.workspace.user_settings import current

JOURNAL = ("add", "write", "add_upload", "reserve", "settle", "delete")
VERBS = ("upload", "submit", "find", "poll", "cancel", "delete_file", "delete_model")
FOR_EVER = 1_000_000  # polls during which a vendor's jobs stay queued, so that none ends
SETTLE_SECONDS = 0.3  # replaces an offer's own: vendors on loopback list a job at once

DELETED = "deleted"  # replaces the state of a deleted run

Verdict = Literal["one job", "deleted", "uncertain", "lost", "doubled"]


class Act(StrEnum):
    """An act during which the process is killed."""

    LAUNCH = "launch"
    CANCEL = "cancel"
    DELETE = "delete"  # deletion of a cancelled run


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one kill."""

    step: str  # step of the kill: ``before submit (step 15)``, …
    left: str  # state of the run after the kill; empty without a run
    state: str  # final state of the run; `DELETED` if it no longer exists
    known: bool  # whether the run knows the only job with its key
    advice: str = ""  # advice of the run to its user
    error: str = ""  # error of the recovery, if it failed
    jobs: int = 0  # number of jobs created at the vendor
    files: int = 0  # number of files created at the vendor

    def verdict(self, guarantee: Guarantee, files: int) -> Verdict:
        """Return the verdict; "uncertain" is allowed only for `Guarantee.SUFFIX_ONLY`."""
        if self.jobs > 1 or self.files > files:
            return "doubled"
        if self.state == DELETED:
            return "deleted"
        if self.jobs == 1 and self.known and not self.error:
            return "one job"
        held = self.state == State.UNCERTAIN and self.jobs == 0
        advised = "--adopt" in self.advice and "--resubmit" in self.advice
        allowed = guarantee is Guarantee.SUFFIX_ONLY
        return "uncertain" if allowed and held and advised else "lost"


def steps_of(job: Job, act: Act = Act.LAUNCH) -> list[str]:
    """Return the steps of a complete act, run in a fork with an empty ledger."""
    _prepare(job, act)

    def counted(_: int) -> tuple[list[str], list[str]]:
        seen = _step_by_step()
        _do(job, act)
        return seen, sorted(sys.modules)

    steps, modules = cast("tuple[list[str], list[str]]", _in_fork(counted))
    for module in modules:  # so that later forks need not, which would take most of their time
        with suppress(ImportError):  # some modules are not files
            importlib.import_module(module)
    registry.offer(job.backend)
    return steps


def kill_at(
    step: int, job: Job, count: Callable[[], VendorState], act: Act = Act.LAUNCH
) -> Outcome | None:
    """Kill an act at a step, counted from 1, and recover; return None if it ends earlier."""
    before = count()
    _prepare(job, act)

    def die(report: int) -> None:
        _step_by_step(step, report)
        _do(job, act)

    if (where := _in_fork(die)) is None:
        return None
    outcome = Outcome(**cast("dict[str, Any]", _in_fork(lambda _: asdict(_recovered(job, act)))))
    after = count()
    jobs, files = after.jobs - before.jobs, after.files - before.files
    return replace(outcome, step=str(where), jobs=jobs, files=files)


def kill_at_every_step(
    make_job: Callable[[int], Job],
    count: Callable[[], VendorState],
    act: Act,
    new_ledger: Callable[[int], AbstractContextManager[None]],
    clear: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Verdict, Outcome]]:
    """Kill an act at each of its steps in turn, and recover.

    `make_job` and `new_ledger` get a number; `clear` ends processes that an act has left.
    """
    before = count()
    with new_ledger(0):
        job = make_job(0)
        guarantee = registry.backend(job.backend).guarantee
        current().backends.clear()  # each fork needs its own connections
        steps = steps_of(job, act)
        clear()
    files = count().files - before.files
    for step in range(1, len(steps) + 1):
        with new_ledger(step):
            outcome = kill_at(step, make_job(step), count, act)
            clear()
        if outcome is None:
            break  # on a busy machine, the number of polls varies
        yield outcome.verdict(guarantee, files), outcome


def main(file: str, class_name: str, folder: Path) -> None:
    """Kill the acts of a contract's test at every step, and print each outcome."""
    spec = importlib.util.spec_from_file_location("killed_contract", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    contract: Any = getattr(module, class_name)

    @contextmanager
    def new_ledger(act: Act, number: int) -> Generator[None]:
        os.environ["UNITUNE_DIR"] = str(folder / f"{act}-{number}")
        yield

    def new_job(start: int, number: int) -> Job:
        return contract.launchable(folder, start + number)

    with serve_vendor(contract.setup, ServerBehavior(queued_polls=FOR_EVER)) as vendor:
        for block, act in enumerate(Act):
            ledger = partial(new_ledger, act)
            jobs = partial(new_job, 1000 * block)
            for verdict, outcome in kill_at_every_step(jobs, vendor.state, act, ledger):
                kill = {"act": act, "verdict": verdict, **asdict(outcome)}
                sys.stdout.write(json.dumps(kill) + "\n")


def _prepare(job: Job, act: Act) -> None:
    match act:
        case Act.LAUNCH:
            pass
        case Act.CANCEL:
            _in_fork(lambda _: launch(job).id)
        case Act.DELETE:
            _in_fork(lambda _: launch(job).cancel().wait(0.01).id)


def _do(job: Job, act: Act) -> None:
    match act:
        case Act.LAUNCH:
            launch(job)
        case Act.CANCEL:
            runs()[0].cancel()
        case Act.DELETE:
            runs()[0].delete()


def _recovered(job: Job, act: Act) -> Outcome:
    _step_by_step()
    earlier, error = runs(), ""
    left = str(earlier[0].state) if earlier else ""
    try:
        run = _repeated(job, act, earlier)
    except UnituneError as problem:
        run, error = runs()[0], str(problem)
    if run is None:
        return Outcome("", left, DELETED, known=False)
    jobs = registry.backend(run.backend_name).find(run.launch_key, run.folder)
    known = jobs == [run.job_id] and (act is Act.LAUNCH or run.state is State.CANCELLED)
    return Outcome("", left, str(run.state), known, run.error or "", error)


def _repeated(job: Job, act: Act, earlier: list[Run]) -> Run | None:
    match act:
        case Act.LAUNCH:
            return earlier[0].resume() if earlier else launch(job)
        case Act.CANCEL:
            run = earlier[0].refresh()
            return (run if run.state.ended else run.cancel()).wait(0.01)
        case Act.DELETE:
            left = [sentence for run in earlier for sentence in run.delete()]
            return earlier[0] if left else None


def _step_by_step(at: int = 0, report: int = -1) -> list[str]:
    """Count steps with a short settle time, and die at step `at`; only called in a fork."""
    seen: list[str] = []

    def step(name: str) -> None:
        seen.append(name)
        if len(seen) == at:
            os.write(report, json.dumps(f"{name} (step {at})").encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(name: str, act: Callable[..., object]) -> Callable[..., object]:
        @wraps(act)
        def with_steps(*arguments: object, **named: object) -> object:
            step(f"before {name}")
            result = act(*arguments, **named)
            step(f"after {name}")
            return result

        return with_steps

    for name in JOURNAL:
        setattr(Ledger, name, counted(f"ledger.{name}", getattr(Ledger, name)))
    original_backend, original_offer = registry.backend, registry.offer
    wrapped: set[str] = set()

    def backend(name: str) -> object:
        instance = original_backend(name)
        if name not in wrapped:
            wrapped.add(name)
            for verb in filter(partial(hasattr, instance), VERBS):
                setattr(instance, verb, counted(verb, getattr(instance, verb)))
        return instance

    def offer(name: str) -> Offer:
        return original_offer(name).model_copy(update={"settle_seconds": SETTLE_SECONDS})

    registry.backend = cast("Any", backend)
    registry.offer = cast("Any", offer)
    return seen


def _in_fork(act: Callable[[int], object]) -> object:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python warns of the server's threads; they hold no locks without requests.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            with suppress(OSError):
                os.close(reading)
            os.write(writing, json.dumps(act(writing)).encode())
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a fork must never continue as its parent
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as report:
        text = report.read()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise AssertionError("the fork failed; see its traceback above")
    return json.loads(text)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve())
