"""The worker is killed, and its training goes on as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")

import torch
from support.served import wait_until
from support.tiny_model import SETTINGS, save_tiny_model, write_pairs, write_rows
from support.warm import WARM_SUBPROCESS

from unitune.backends import registry
from unitune.backends.capabilities import Pauses
from unitune.backends.protocol import Launch, State, Status
from unitune.job.job import Data, Job, Method, Reward, Tuning
from unitune.models import Start, TunedModel
from unitune.run.run import launch as run_of_job
from unitune.scorers.text import Regex
from unitune.testing.contract_base import sha256_of
from unitune.workspace import user_config
from unitune.workspace.user_config import Notify, UserConfig
from unitune_local.job_folder import JobFolder, read_events
from unitune_local.models.model import add_adapter, load_model
from unitune_local.training import worker

STEPS = 40
OPTIONS = {"threads": 1, "checkpoint_every_steps": 3, "dtype": "float32"}
SPEED = {"tokens_per_second", "seconds_left"}
PATIENCE_SECONDS = 120

REWARDS = {
    "sft": Reward(),
    "rft": Reward(scorers=(Regex(pattern="[a-z]"),), group_size=4, max_tokens=3, kl=0.1),
}

START_AND_LEAVE = """
import sys
from unitune.backends import registry
registry.backend("local").resume(sys.argv[1])
"""


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Launch]:
    base = save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")

    def make(folder: Path, method: Method = "sft", **options: object) -> Launch:
        backend = registry.backend("local")
        file, dev = write_rows(folder / "train.jsonl", 80), write_rows(folder / "dev.jsonl", 10)
        job = Job(
            name="crash",
            model=str(base),
            backend="local",
            method=method,
            data=Data(train="train.jsonl"),
            tuning=Tuning(
                epochs=4, batch_size=8, evaluate_every=7, keep="best", reward=REWARDS[method]
            ),
            options={"local": {**OPTIONS, **options}},
        )
        uploads = [backend.upload(each, sha256_of(each)) for each in (file, dev)]
        return Launch("run-1", job, *uploads, folder)

    return make


def resume(job_id: str) -> None:
    backend = registry.backend("local")
    assert isinstance(backend, Pauses)
    backend.resume(job_id)


def until(job_id: str, reached: Callable[[Status], bool]) -> Status:
    end = time.monotonic() + PATIENCE_SECONDS
    while not reached(status := registry.backend("local").poll(job_id, "")):
        log = JobFolder(Path(job_id)).log
        assert time.monotonic() < end, (status.state, log.read_text(encoding="utf-8"))
        time.sleep(0.01)
    return status


def steps(status: Status) -> int:
    return sum(event.kind == "step" for event in status.events)


def figures(job_id: str) -> list[tuple[str, dict[str, object]]]:
    """Return what each step measured, its speed aside."""
    events = read_events(JobFolder(Path(job_id)).events, "").events
    return [
        (event.key, {name: event.data[name] for name in event.data.keys() - SPEED})
        for event in events
        if event.kind in ("step", "validation")
    ]


def kept(job_id: str) -> object:
    """Return which step's adapter is the model."""
    events = read_events(JobFolder(Path(job_id)).events, "").events
    return next(event.data["text"] for event in events if "kept_step" in event.data)


def processes_of(job_id: str) -> list[int]:
    """Return the processes that train for a job, the worker first: it holds the folder's lock."""
    lock = str(JobFolder(Path(job_id)).lock)
    processes: dict[str, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            command = (place / "cmdline").read_bytes().decode().split("\0")
            if "unitune_local.training.worker" in command and job_id in command:
                processes[command[command.index(job_id) + 1]] = int(place.name)
            elif lock in [str(file.readlink()) for file in (place / "fd").iterdir()]:
                processes[""] = int(place.name)
    return [processes[rank] for rank in sorted(processes)]


def worker_of(job_id: str) -> int:
    """Return the process that was started for a job."""
    return processes_of(job_id)[0]


def training_at(job_id: str, step: int, processes: int) -> list[int]:
    """Wait until a job has come so far, and return the processes that train for it.

    After a late kill it has come so far before it goes on.
    """
    working: list[int] = []

    def is_there(status: Status) -> bool:
        assert not status.state.ended
        working[:] = processes_of(job_id)
        return steps(status) >= step and len(working) == processes

    until(job_id, is_there)
    return working


@pytest.fixture(autouse=True)
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "subprocess", WARM_SUBPROCESS)


@pytest.fixture(scope="module")
def chained(
    launch: Callable[[Path], Launch], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], Launch]:
    """Launches of preference training that goes on from an adapter."""
    first = launch(tmp_path_factory.mktemp("first"))
    base = Path(first.job.base_model)
    settings = SETTINGS.model_copy(update={"targets": ("q_proj", "v_proj")})
    model = add_adapter(load_model(base, torch.float32), settings)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapter = tmp_path_factory.mktemp("adapters") / "first"
    model.save_pretrained(adapter)
    start = Start(model=TunedModel(backend="local", name=str(adapter), base=str(base)))

    def make(folder: Path, **options: object) -> Launch:
        files = write_pairs(folder / "train.jsonl", 80), write_pairs(folder / "dev.jsonl", 10)
        uploads = [registry.backend("local").upload(each, sha256_of(each)) for each in files]
        chosen = {"local": {**OPTIONS, **options}}
        job = first.job.model_copy(update={"method": "dpo", "options": chosen})
        return Launch("run-1", job, *uploads, folder, start)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "rft"])
@pytest.mark.parametrize("kills", [2, pytest.param(5, marks=pytest.mark.exhaustive)])
def test_losses_after_kills_equal_those_of_an_undisturbed_run(
    launch: Callable[..., Launch], tmp_path: Path, kills: int, method: Method
) -> None:
    kill_and_compare(partial(launch, method=method), tmp_path, kills)


@pytest.mark.slow
def test_preferences_after_kills_equal_those_of_an_undisturbed_run(
    chained: Callable[[Path], Launch], tmp_path: Path
) -> None:
    whole = kill_and_compare(chained, tmp_path, kills=2)
    assert math.log(2) == pytest.approx(dict(whole)["step-1"]["loss"], rel=1e-5)


def kill_and_compare(
    launch: Callable[[Path], Launch], tmp_path: Path, kills: int
) -> list[tuple[str, dict[str, object]]]:
    """Hold a training that is killed so often against an undisturbed one; return its figures."""
    backend = registry.backend("local")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = backend.submit(launch(tmp_path / "whole"))
    assert until(whole, lambda s: s.state.ended).state is State.SUCCEEDED

    killed = backend.submit(launch(tmp_path / "killed"))
    draw = random.Random(7)  # noqa: S311 - any steps will do
    for step in sorted(draw.sample(range(2, STEPS - 1), kills)):
        os.kill(training_at(killed, step, processes=1)[0], signal.SIGKILL)
        paused = until(killed, lambda s: s.state is not State.RUNNING)
        assert paused.state is State.PAUSED
        gone = "interrupted: its worker is gone (killed, perhaps out of memory); resume continues"
        assert paused.raw.startswith(gone)
        resume(killed)
    done = until(killed, lambda s: s.state.ended)

    assert done.state is State.SUCCEEDED, done.error
    assert steps(done) == STEPS
    assert figures(whole) == figures(killed)
    assert kept(whole) == kept(killed)
    assert not [event for event in done.events if event.kind == "warning"]
    assert backend.poll(whole, "").model is not None
    return figures(whole)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("method", ["sft", "dpo", "rft"])
def test_two_processes_train_as_one_whichever_is_killed(
    launch: Callable[..., Launch],
    chained: Callable[..., Launch],
    tmp_path: Path,
    method: Method,
    *,
    shard: bool,
) -> None:
    make = chained if method == "dpo" else partial(launch, method=method)
    backend = registry.backend("local")
    for name in ("alone", "both", "killed"):
        (tmp_path / name).mkdir()
    alone = backend.submit(make(tmp_path / "alone"))
    assert until(alone, lambda s: s.state.ended).state is State.SUCCEEDED
    both = backend.submit(make(tmp_path / "both", processes=2, shard=shard))
    assert until(both, lambda s: s.state.ended).state is State.SUCCEEDED
    expected = {key: pytest.approx(each, rel=1e-4, abs=1e-5) for key, each in figures(alone)}
    assert dict(figures(both)) == expected

    killed = backend.submit(make(tmp_path / "killed", processes=2, shard=shard))
    for rank, step in ((1, 4), (0, 12)):
        os.kill(training_at(killed, step, processes=2)[rank], signal.SIGKILL)
        until(killed, lambda s: s.state is State.PAUSED)
        wait_until(lambda: not processes_of(killed), PATIENCE_SECONDS)  # none is left behind
        resume(killed)
    done = until(killed, lambda s: s.state.ended)
    assert done.state is State.SUCCEEDED, done.error
    assert figures(both) == figures(killed)
    warnings = [event.data["text"] for event in done.events if event.kind == "warning"]
    killed_by = "process 2 of 2 was killed by signal 9, perhaps out of memory"
    assert warnings == [f"interrupted: {killed_by}"]
    assert [*Path(killed).glob("rendezvous*")] == [], "nor a file of those that were killed"


def test_a_training_is_paused_after_its_step_and_goes_on_from_there(
    launch: Callable[[Path], Launch], tmp_path: Path
) -> None:
    backend = registry.backend("local")
    assert isinstance(backend, Pauses)
    job_id = backend.submit(launch(tmp_path))
    until(job_id, lambda s: steps(s) >= 4)
    backend.pause(job_id)
    paused = until(job_id, lambda s: s.state is not State.RUNNING)
    assert State.PAUSED is paused.state
    assert steps(paused) < STEPS
    assert steps(paused) == JobFolder(Path(job_id)).saved_step(), "nothing is done twice"
    assert paused.raw == f"paused; resume continues after step {steps(paused)}"
    resume(job_id)
    done = until(job_id, lambda s: s.state.ended)
    assert (done.state, steps(done)) == (State.SUCCEEDED, STEPS)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worker_that_is_asked_to_end_leaves_a_checkpoint_of_its_last_step(
    launch: Callable[..., Launch], tmp_path: Path, processes: int
) -> None:
    """As by Slurm, Kubernetes and spot machines, which kill 30 seconds after that."""
    job_id = registry.backend("local").submit(
        launch(tmp_path, processes=processes, checkpoint_every_steps=1000)
    )
    working = training_at(job_id, 4, processes)
    asked = time.monotonic()
    for process in reversed(working):
        os.kill(process, signal.SIGTERM)
    paused = until(job_id, lambda s: s.state is not State.RUNNING)
    assert time.monotonic() - asked < 30
    assert State.PAUSED is paused.state
    done = JobFolder(Path(job_id)).saved_step()
    reason = "interrupted: the worker received SIGTERM"
    assert paused.raw == f"{reason}; resume continues after step {done}"
    assert done in (steps(paused), steps(paused) - 1), "at most the step in its midst is lost"
    resume(job_id)
    done_again = until(job_id, lambda s: s.state.ended)
    assert (done_again.state, steps(done_again)) == (State.SUCCEEDED, STEPS)


def test_a_worker_outlives_who_started_it(launch: Callable[[Path], Launch], tmp_path: Path) -> None:
    backend = registry.backend("local")
    job_id = backend.submit(launch(tmp_path))
    os.kill(worker_of(job_id), signal.SIGKILL)
    until(job_id, lambda s: s.state is State.PAUSED)
    subprocess.run([sys.executable, "-c", START_AND_LEAVE, job_id], check=True)
    assert until(job_id, lambda s: s.state.ended).state is State.SUCCEEDED


def test_a_training_that_no_one_watches_tells_of_its_end_once(
    launch: Callable[[Path], Launch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    told = tmp_path / "told"
    script = f'echo "$UNITUNE_RUN $UNITUNE_STATE" >> {told}'
    user_config.write(UserConfig(notify=Notify(command=("sh", "-c", script))))
    job = launch(tmp_path).job.model_copy(update={"folder": tmp_path})
    run = run_of_job(job)
    wait_until(told.exists, PATIENCE_SECONDS)
    assert State.SUCCEEDED is run.wait().state
    assert told.read_text() == f"{run.id} succeeded\n"
    assert [event for event in run.events() if event.kind == "warning"] == []


def test_a_paused_training_is_cancelled_at_once(
    launch: Callable[[Path], Launch], tmp_path: Path
) -> None:
    backend = registry.backend("local")
    job_id = backend.submit(launch(tmp_path))
    os.kill(worker_of(job_id), signal.SIGKILL)
    until(job_id, lambda s: s.state is State.PAUSED)
    backend.cancel(job_id)
    assert backend.poll(job_id, "").state is State.CANCELLED


def test_rows_that_changed_since_the_submit_fail_the_training(
    launch: Callable[[Path], Launch], tmp_path: Path
) -> None:
    backend = registry.backend("local")
    made = launch(tmp_path)
    job_id = backend.submit(made)
    os.kill(worker_of(job_id), signal.SIGKILL)
    until(job_id, lambda s: s.state is State.PAUSED)
    write_rows(Path(made.training.ref), 79)
    resume(job_id)
    failed = until(job_id, lambda s: s.state.ended)
    assert failed.state is State.FAILED
    assert "has changed since the run was submitted" in str(failed.error)


def test_spec_says_all_that_was_auto(launch: Callable[[Path], Launch], tmp_path: Path) -> None:
    backend = registry.backend("local")
    job_id = backend.submit(launch(tmp_path))
    backend.cancel(job_id)
    until(job_id, lambda s: s.state.ended)
    spec = json.loads(JobFolder(Path(job_id)).spec.read_text(encoding="utf-8"))
    assert "auto" not in json.dumps(spec["settings"])
    assert spec["settings"]["threads"] == 1
