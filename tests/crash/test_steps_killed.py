"""The worker of a training at a vendor of steps is killed at any request, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("tinker", reason="needs the extra `tinker`")

from support.tiny_model import save_tiny_model, write_pairs, write_rows
from support.warm import WARM_SUBPROCESS
from vendors.step_places import AZURE, TINKER, AnyVendor, StepPlace

from unitune.backends import registry
from unitune.backends.capabilities import Pauses
from unitune.backends.protocol import Backend, Launch, State, Status
from unitune.job.job import Data, Job, Method, Reward, Tuning
from unitune.job.prices import PriceEntry
from unitune.scorers.text import Regex
from unitune.testing.contract_base import sha256_of
from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.workspace.own_files import is_locked
from unitune_local.job_folder import JobFolder, read_events
from unitune_local.training import worker

PATIENCE_SECONDS = 60
When = Literal["before", "after"]
CHECKPOINT_USD = Decimal("1.00")
# US dollars per million tokens: a step costs some 30 cents
TRAINING = 1000
REWARD = Reward(scorers=(Regex(pattern="[A-M]"),), group_size=2, max_tokens=3)
WRITERS = {"sft": write_rows, "dpo": write_pairs, "rft": write_rows}


class Killing:
    """Vendor of steps on loopback that kills the worker of a job at one of its requests."""

    def __init__(self, vendor: AnyVendor, at: int = 0, when: When = "before") -> None:
        self.vendor = vendor
        self.at, self.when = at, when
        self.seen: list[str] = []
        self.job_id = ""

    def answer(self, request: VendorRequest) -> VendorResponse:
        # Without a folder of the job, the request is the backend's, which asks before a launch.
        has_worker = JobFolder(Path(self.job_id)).lock.exists()
        if not has_worker or request.path.endswith("heartbeat"):
            return self.vendor.answer(request)
        self.seen.append(request.path)
        dies = len(self.seen) == self.at
        if dies and self.when == "before":
            self._kill()
            return VendorResponse(status=503)
        answer = self.vendor.answer(request)
        if dies:
            self._kill()
        return answer

    def _kill(self) -> None:
        os.kill(worker_of(self.job_id), signal.SIGKILL)


@dataclass
class Ended:
    """What was left at the end."""

    status: Status
    figures: list[tuple[str, object]]
    digest: str
    usd: Decimal
    requests: int
    models: int


def worker_of(job_id: str) -> int:
    """Return the process that holds the lock of a job's folder."""
    lock = str(JobFolder(Path(job_id)).lock)
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if lock in [str(file.readlink()) for file in (place / "fd").iterdir()]:
                    return int(place.name)
    raise AssertionError("no worker")


def launch_of(place: StepPlace, base: str, method: Method, folder: Path) -> Launch:
    backend = registry.backend(place.name)
    files = [
        WRITERS[method](folder / "train.jsonl", 16),
        WRITERS[method](folder / "dev.jsonl", 2),
    ]
    job = Job(
        name="killed",
        model=base,
        backend=place.name,
        method=method,
        data=Data(train="train.jsonl"),
        tuning=Tuning(epochs=2, batch_size=4, keep="best", evaluate_every=3, reward=REWARD)
        if method == "rft"
        else Tuning(epochs=2, batch_size=4, keep="best", evaluate_every=3),
        options={place.name: {"checkpoint_usd": str(CHECKPOINT_USD)}},
        prices=(PriceEntry.model_validate({"backend": place.name, "training": TRAINING}),),
        folder=folder,
    )
    uploads = [backend.upload(each, sha256_of(each)) for each in files]
    return Launch("r1-1", job, uploads[0], uploads[1], folder)


def until(backend: Backend, job_id: str, state: State) -> Status:
    end = time.monotonic() + PATIENCE_SECONDS
    while (status := backend.poll(job_id, "")).state is not state:
        log = JobFolder(Path(job_id)).log
        assert time.monotonic() < end, (status.raw, log.read_text(encoding="utf-8")[-3000:])
        assert not status.state.ended or status.state is state, (status, log.read_text()[-3000:])
        time.sleep(0.02)
    return status


def run(  # noqa: PLR0917 - what is trained where, and when it is killed
    place: StepPlace,
    base: str,
    folder: Path,
    method: Method = "sft",
    at: int = 0,
    when: When = "before",
) -> Ended:
    """Train, be killed at a request of the worker (0: never), resume, and train to the end."""
    folder.mkdir()
    launch = launch_of(place, base, method, folder)
    vendor = place.vendor(models={base: 512})
    killing = Killing(vendor, at, when)
    killing.job_id = str(folder.resolve() / launch.key)
    with place.served(killing):
        backend = registry.backend(place.name)
        assert isinstance(backend, Pauses)
        job_id = backend.submit(launch)
        assert job_id == killing.job_id
        if at:
            until_dead(killing)
            backend.resume(job_id)
        status = until(backend, job_id, State.SUCCEEDED)
    assert status.model is not None
    usd = Decimal(TRAINING) * vendor.billed_tokens() / 1_000_000
    models = place.models(vendor)
    events = read_events(JobFolder(Path(job_id)).events, "").events
    return Ended(
        status=status,
        figures=[
            (each.key, each.data.get("loss", each.data.get("policy_loss")))
            for each in events
            if each.kind in ("step", "validation")
        ],
        digest=models[status.model.name][1],
        usd=usd,
        requests=len(killing.seen),
        models=len(models),
    )


def until_dead(vendor: Killing) -> None:
    end, lock = time.monotonic() + PATIENCE_SECONDS, JobFolder(Path(vendor.job_id)).lock
    while len(vendor.seen) < vendor.at or is_locked(lock):
        assert time.monotonic() < end, (vendor.at, len(vendor.seen))
        time.sleep(0.02)


@pytest.fixture(scope="module", autouse=True)
def _warm_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "subprocess", WARM_SUBPROCESS)
        patch.setenv("UNITUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny"))


def assert_same(whole: Ended, ended: Ended) -> Decimal:
    """Compare a training that was killed with one that was not; return what was paid twice."""
    assert ended.figures == whole.figures
    assert ended.digest == whole.digest, "a step was lost or made twice"
    assert ended.models == 1
    return ended.usd - whole.usd


def dearest_step(method: Method) -> Decimal:
    """Return the most that a step can cost, with the evaluation after it."""
    return Decimal("2.00") if method == "dpo" else Decimal("0.80")


@pytest.mark.parametrize("method", ["sft", "dpo", "rft"])
@pytest.mark.parametrize("place", [TINKER, AZURE], ids=str)
def test_killed_at_some_requests(
    place: StepPlace, base: str, tmp_path: Path, method: Method
) -> None:
    whole = run(place, base, tmp_path / "whole", method)
    for number, share in enumerate((0.3, 0.7, 0.97)):
        at, when = round(share * whole.requests), ("before", "after")[number % 2]
        ended = run(place, base, tmp_path / f"killed-{at}", method, at, when)  # type: ignore[arg-type]
        twice = assert_same(whole, ended)
        assert twice <= CHECKPOINT_USD + dearest_step(method), (at, when)


@pytest.mark.parametrize(
    "apart",
    [pytest.param(15, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.nightly)],
)
@pytest.mark.parametrize("method", ["sft", "dpo", "rft"])
@pytest.mark.parametrize("place", [TINKER, AZURE], ids=str)
def test_killed_at_many_requests(
    place: StepPlace, base: str, tmp_path: Path, method: Method, apart: int
) -> None:
    whole = run(place, base, tmp_path / "whole", method)
    twice = [
        assert_same(whole, run(place, base, tmp_path / f"{when}-{at}", method, at, when))
        for at in range(1, whole.requests + 1, apart)
        for when in ("before", "after")
    ]
    what = f"{place} {method}: {len(twice)} kills, whole {whole.usd}"
    print(f"{what}, paid twice at most {max(twice)}")  # noqa: T201
    assert max(twice) <= CHECKPOINT_USD + dearest_step(method)
