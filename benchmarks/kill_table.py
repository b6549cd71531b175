"""Kill -9 at every journalled step on every backend and ledger, and count the jobs afterwards.

    python benchmarks/kill_table.py [--backend NAME] [--ledger sqlite|postgresql]
                                    [--act launch|cancel|delete] [--json]

Options may be repeated; without them, all are tested. A launch, a cancel or a delete is killed
before and after every write to the ledger and every call of its backend, and is then recovered like
a user would. Hosted backends use their vendors' real SDKs with servers on loopback, which count
jobs; `local` trains a tiny model; `fake` keeps its jobs in a folder, and deletes none. The exit
code is 0 when every promise was kept: one job that the run knows and no file twice, or, where the
vendor cannot guarantee it, an uncertain run with instructions. After a delete, neither run nor file
is left.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pydantic import JsonValue

from unitune.job.job import Data, Job, Tuning
from unitune.ledger.postgres import VARIABLE
from unitune.testing.kills import FOR_EVER, Act, Outcome, Verdict, kill_at_every_step
from unitune.testing.vendor_setup import ServerBehavior, VendorState, serve_vendor

HOSTED = (
    "openai",
    "azure",
    "nebius",
    "together",
    "fireworks",
    "vertex",
    "bedrock",
    "ray",
    "hf-jobs",
    "skypilot",
)
BACKENDS = (*HOSTED, "local", "fake")
LEDGERS = ("sqlite", "postgresql")
COLUMNS: tuple[Verdict, ...] = ("one job", "deleted", "uncertain", "lost", "doubled")
ROWS = 40
"""Rows of each training; vendors require at least 32."""


MODULES = {
    **dict.fromkeys(
        HOSTED, ("vendors.serving", "vendors.ray", "vendors.hf_jobs", "vendors.skypilot")
    ),
    "local": ("psutil", "support.tiny_model", "unitune_local.training.run"),
    "postgresql": ("crash.postgres",),
}
"""Modules with dependencies outside the core, by the backend or ledger that imports them."""


@dataclass(frozen=True)
class Stage:
    """A backend that is ready for launches.

    Args:
        backend: Name of the backend.
        model: Base model that it tunes.
        count: Counts the vendor's jobs and files.
        clear: Ends what a launch has left running.
        options: Options of its jobs.
    """

    backend: str
    model: str
    count: Callable[[], VendorState]
    clear: Callable[[], None] = lambda: None
    options: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])


@dataclass(frozen=True)
class Kill:
    """One kill and its outcome."""

    backend: str
    ledger: str
    act: str
    verdict: Verdict
    outcome: Outcome


@contextmanager
def staged(backend: str, folder: Path) -> Generator[Stage]:
    """Make a backend ready while the body runs."""
    if backend in HOSTED:
        with hosted(backend) as stage:
            yield stage
    else:
        yield on_a_tiny_model(folder) if backend == "local" else in_a_folder(folder)


@contextmanager
def hosted(backend: str) -> Generator[Stage]:
    """Serve a vendor on loopback, whose jobs do not progress by themselves."""
    from vendors.hf_jobs import hf_jobs_setup  # noqa: PLC0415 - needs extras
    from vendors.ray import ray_setup  # noqa: PLC0415 - likewise
    from vendors.serving import VENDORS  # noqa: PLC0415
    from vendors.skypilot import skypilot_setup  # noqa: PLC0415

    rented = {"hf-jobs": hf_jobs_setup(), "skypilot": skypilot_setup()}
    setup = {**VENDORS, "ray": ray_setup(), **rented}[backend]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with serve_vendor(setup, ServerBehavior(queued_polls=FOR_EVER)) as served:
        yield Stage(backend, setup.model, served.state)


def in_a_folder(folder: Path) -> Stage:
    """Let the fake backend store its jobs in a folder."""
    vendor = folder / "vendor"
    os.environ["UNITUNE_FAKE_DIR"] = str(vendor)

    def count() -> VendorState:
        jobs = len(list(vendor.glob("*/job.json")))
        return VendorState(jobs, len(list(vendor.glob("uploads/*"))))

    return Stage("fake", "tiny", count, options={"steps": FOR_EVER})


def on_a_tiny_model(folder: Path) -> Stage:
    """Create a tiny model to train, and end the workers that train it."""
    import psutil  # noqa: PLC0415 - of the extra `local`, as the rest
    from support.tiny_model import save_tiny_model  # noqa: PLC0415 - imports torch

    from unitune_local.training import run  # noqa: PLC0415 - each fork would import torch

    del run

    def clear() -> None:
        for process in psutil.process_iter(["cmdline"]):
            command = " ".join(process.info["cmdline"] or [])
            if "unitune_local.training.worker" in command and str(folder) in command:
                os.kill(process.pid, signal.SIGKILL)

    def count() -> VendorState:
        return VendorState(len(list(folder.glob("*/runs/*/*/spec.json"))), 0)

    model = str(save_tiny_model(folder / "model"))
    return Stage("local", model, count, clear, {"threads": 1, "dtype": "float32"})


@contextmanager
def new_ledger(kind: str, folder: Path) -> Generator[None]:
    """Provide an empty ledger for the forks."""
    from crash.postgres import new_database  # noqa: PLC0415 - needs the extra `postgres`

    os.environ["UNITUNE_DIR"] = str(folder)
    with new_database() if kind == "postgresql" else nullcontext("") as url:
        os.environ[VARIABLE] = url
        yield
    del os.environ[VARIABLE]


def a_job(stage: Stage, folder: Path, number: int) -> Job:
    """Write unique rows, and return the job that trains on them."""
    for name, start in (("train", 0), ("validation", ROWS)):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"What is {row} plus {number}?"},
                    {"role": "assistant", "content": str(row + number)},
                ]
            }
            for row in range(start, start + ROWS)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return Job(
        name=f"kill-{number}",
        model=stage.model,
        backend=stage.backend,
        data=Data(train="train.jsonl", validation="validation.jsonl"),
        tuning=Tuning(epochs=1),
        options={stage.backend: stage.options},
        folder=folder,
    )


def kills(stage: Stage, ledger: str, act: Act, folder: Path) -> Iterator[Kill]:
    """Kill at every step of an undisturbed act."""
    unlike = LEDGERS.index(ledger) * 10_000 + list(Act).index(act) * 1000
    killed = kill_at_every_step(
        lambda number: a_job(stage, folder, unlike + number),
        stage.count,
        act,
        lambda number: new_ledger(ledger, folder / f"{ledger}-{act}-{number}"),
        stage.clear,
    )
    for verdict, outcome in killed:
        yield Kill(stage.backend, ledger, str(act), verdict, outcome)


def all_kills(backends: list[str], ledgers: list[str], acts: list[Act]) -> Iterator[Kill]:
    """Combine backends, ledgers and acts, with one stage for each backend."""
    for backend in backends:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            place = Path(folder).resolve()
            with staged(backend, place) as stage:
                for ledger in ledgers:
                    for act in acts:
                        yield from kills(stage, ledger, act, place)


def missing_package(names: list[str]) -> str | None:
    """Return the first package that a backend or ledger needs and that is not installed."""
    for module in {module for name in names for module in MODULES.get(name, ())}:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            return error.name
    return None


def print_table(seen: list[Kill], seconds: float) -> None:
    """Count the outcomes by backend, ledger and act, and print them."""
    print(f"{'backend':10}{'ledger':12}{'act':8}{'kills':>6}", *(f"{c:>10}" for c in COLUMNS))
    rows = Counter((kill.backend, kill.ledger, kill.act) for kill in seen)
    for (backend, ledger, act), number in rows.items():
        mine = Counter(
            kill.verdict
            for kill in seen
            if (kill.backend, kill.ledger, kill.act) == (backend, ledger, act)
        )
        print(f"{backend:10}{ledger:12}{act:8}{number:6}", *(f"{mine[c]:10}" for c in COLUMNS))
    total = Counter(kill.verdict for kill in seen)
    print(f"{'all':30}{len(seen):6}", *(f"{total[c]:10}" for c in COLUMNS))
    print(f"{seconds:.0f} s")


def main() -> int:
    """Kill at all steps, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    parser.add_argument("--ledger", action="append", choices=LEDGERS)
    parser.add_argument("--act", action="append", choices=list(Act), type=Act)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()

    backends, ledgers = given.backend or list(BACKENDS), given.ledger or list(LEDGERS)
    if missing := missing_package(backends + ledgers):
        parser.error(f"the package {missing} is not installed; CONTRIBUTING.md has the command")
    started, seen = time.monotonic(), list[Kill]()
    for kill in all_kills(backends, ledgers, given.act or list(Act)):
        seen.append(kill)
        if given.json:
            print(json.dumps(asdict(kill)), flush=True)
    broken = [kill for kill in seen if kill.verdict in ("lost", "doubled")]
    if not given.json:
        print_table(seen, time.monotonic() - started)
        for kill in broken:
            print(kill)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
