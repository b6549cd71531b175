"""Faults in the middle of a training: it is paused with the reason, and a resume loses no step.

The worker runs in this process, so that a fault can be put into it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_model import write_rows
from support.tuned_here import local_job

from unitune.backends.protocol import Event, Launch, State, Upload
from unitune.errors import RunFailed
from unitune.files.filesystem import sha256
from unitune.scorers.text import Exact
from unitune_local.backend import LocalBackend
from unitune_local.data.batches import TrainingRow, computed_tokens
from unitune_local.job_folder import EventLog, JobFolder, read_events
from unitune_local.objectives.loss import Form
from unitune_local.parallel import processes
from unitune_local.training import checkpoint, loop, run, worker

pytestmark = pytest.mark.heavy

STEPS = 9
FAULT_AT = 6
"""Step in which each fault comes."""
CHECKPOINT_STEPS = 4
"""Steps between two checkpoints, so that the fault comes two steps after one."""
SPEED = {"tokens_per_second", "seconds_left"}


@pytest.fixture
def launch(tiny_model: Path, tmp_path: Path) -> Callable[..., Launch]:
    def made(name: str = "run-1", **tuning: object) -> Launch:
        job = local_job(
            tiny_model,
            {"checkpoint_every_steps": CHECKPOINT_STEPS},
            tuning={"epochs": 3, "batch_size": 8, "evaluate_every": 3, **tuning},
            evaluate={"scorers": ["exact"], "max_tokens": 4},
            folder=tmp_path,
        )
        files = [write_rows(tmp_path / file, n) for file, n in (("train", 24), ("dev", 6))]
        uploads = [Upload(str(file), sha256(file)) for file in files]
        return Launch(name, job, *uploads, tmp_path)

    return made


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> LocalBackend:
    """A backend whose workers are not started; `worker.work` is called in this process."""
    monkeypatch.setattr("unitune_local.backend.start_worker", lambda _: None)
    monkeypatch.setattr(processes.Rescue, "end_on_sigterm", lambda _: None)
    return LocalBackend()


def events(folder: JobFolder) -> list[Event]:
    return [*read_events(folder.events, "").events]


def figures(folder: JobFolder) -> dict[str, dict[str, object]]:
    return {
        event.key: {name: event.data[name] for name in event.data.keys() - SPEED}
        for event in events(folder)
        if event.kind in ("step", "validation")
    }


class Faulty:
    """Counts the steps that are computed, and raises in one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> None:
        self.computed, self.error = list[int](), error
        original = loop._add_gradients

        def add_gradients(*given: Any) -> object:
            made = original(*given)
            self.computed.append(len(self.computed) + 1)
            if len(self.computed) == FAULT_AT and self.error is not None:
                raise self.error
            return made

        monkeypatch.setattr(loop, "_add_gradients", add_gradients)


def worked(backend: LocalBackend, launch: Launch) -> str:
    """Submit a launch, train until it ends or is paused, and return the job."""
    job = backend.submit(launch)
    worker.work(JobFolder(Path(job)))
    return job


def resumed(backend: LocalBackend, job: str) -> JobFolder:
    """Resume a job, train to its end, and return its folder."""
    backend.resume(job)
    folder = JobFolder(Path(job))
    worker.work(folder)
    assert State.SUCCEEDED is backend.poll(job, "").state
    return folder


def undisturbed(backend: LocalBackend, launch: Callable[..., Launch]) -> JobFolder:
    job = worked(backend, launch("whole"))
    assert backend.poll(job, "").state is State.SUCCEEDED
    return JobFolder(Path(job))


NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
FAULTS = {
    "disk full": (NO_SPACE, "OSError: [Errno 28] No space left on device"),
    "memory": (MemoryError("no more"), "MemoryError: no more"),
    "a bug": (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_exception_pauses_the_training_and_no_whole_step_is_computed_again(
    launch: Callable[..., Launch],
    backend: LocalBackend,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    error, reason = FAULTS[fault]
    whole = undisturbed(backend, launch)
    faulty = Faulty(monkeypatch, error)
    job = worked(backend, launch())
    paused = backend.poll(job, "")
    assert State.PAUSED is paused.state
    assert paused.raw == f"interrupted: {reason}; resume continues after step {FAULT_AT - 1}"
    faulty.error = None
    folder = resumed(backend, job)
    assert len(faulty.computed) == STEPS + 1, "the step that failed is done again, and no other"
    assert figures(whole) == figures(folder)
    warnings = [event.data["text"] for event in events(folder) if event.kind == "warning"]
    assert warnings == [f"interrupted: {reason}"]


def test_a_full_disk_costs_the_steps_since_the_last_checkpoint(
    launch: Callable[..., Launch], backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no checkpoint can be written, the newest one is continued from."""
    whole = undisturbed(backend, launch)
    faulty = Faulty(monkeypatch, NO_SPACE)
    original = checkpoint.save

    def save(*given: Any) -> Path:
        if faulty.error is not None and given[1].step > CHECKPOINT_STEPS:
            raise faulty.error
        return original(*given)

    monkeypatch.setattr(checkpoint, "save", save)
    job = worked(backend, launch())
    assert backend.poll(job, "").raw.endswith(f"resume continues after step {CHECKPOINT_STEPS}")
    faulty.error = None
    folder = resumed(backend, job)
    assert len(faulty.computed) == FAULT_AT + STEPS - CHECKPOINT_STEPS
    assert figures(whole) == figures(folder)


def test_a_disk_that_is_full_when_the_adapter_is_saved_costs_no_step(
    launch: Callable[..., Launch], backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = Faulty(monkeypatch, None)

    def full(*_: object) -> None:
        raise NO_SPACE

    with monkeypatch.context() as patch:
        patch.setattr(run, "save_adapter", full)
        job = worked(backend, launch())
    assert backend.poll(job, "").raw.endswith(f"device; resume continues after step {STEPS}")
    resumed(backend, job)
    assert len(faulty.computed) == STEPS


@pytest.mark.parametrize("phase", ["scoring", "between step and evaluation"])
def test_a_scorer_that_breaks_in_an_evaluation_costs_no_step_and_no_evaluation(
    launch: Callable[..., Launch],
    backend: LocalBackend,
    monkeypatch: pytest.MonkeyPatch,
    phase: str,
) -> None:
    def scored(name: str = "run-1") -> Launch:
        return launch(name, best_by="score", keep="best")

    whole = undisturbed(backend, scored)
    faulty, original = Faulty(monkeypatch, None), Exact.score

    def score(*given: Any) -> object:
        if len(faulty.computed) == 6:
            raise ConnectionError("the judge does not answer")
        return original(*given)

    with monkeypatch.context() as patch:
        if phase == "scoring":
            patch.setattr(Exact, "score", score)
        else:
            evaluated = loop.Evaluations.after

            def after(self: Any, step: int) -> None:
                if step == 6:
                    raise ConnectionError("the judge does not answer")
                evaluated(self, step)

            patch.setattr(loop.Evaluations, "after", after)
        job = worked(backend, scored())
    reason = "interrupted: ConnectionError: the judge does not answer"
    assert backend.poll(job, "").raw == f"{reason}; resume continues after step 6"
    folder = resumed(backend, job)
    assert len(faulty.computed) == STEPS
    assert figures(whole) == figures(folder)
    kept = [
        [event.data["kept_step"] for event in events(each) if "kept_step" in event.data]
        for each in (whole, folder)
    ]
    assert kept[0] == kept[1]


class SmallDevice:
    """A device whose memory holds so many tokens of a micro-batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
        self.sizes, original = list[int](), Form.batch

        def batch(form: Form, rows: Sequence[TrainingRow], device: torch.device) -> object:
            size = computed_tokens(rows, share=True)
            if device.type != "meta" and form.share and torch.is_grad_enabled():
                self.sizes.append(size)
                if size > tokens:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return original(form, rows, device)

        monkeypatch.setattr(Form, "batch", batch)


def test_after_out_of_memory_a_resume_computes_half_as_much_at_a_time(
    launch: Callable[..., Launch], backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = undisturbed(backend, launch)
    device = SmallDevice(monkeypatch, tokens=200)
    job = backend.submit(launch())
    raws: list[str] = []
    for _ in range(4):
        worker.work(JobFolder(Path(job)))
        if backend.poll(job, "").state is State.SUCCEEDED:
            break
        raws.append(backend.poll(job, "").raw)
        backend.resume(job)
    assert State.SUCCEEDED is backend.poll(job, "").state
    assert raws
    assert all("out of memory in a micro-batch of" in raw for raw in raws)
    assert all("CUDA out of memory. Tried to allocate 2.00 GiB" in raw for raw in raws)
    assert device.sizes[-1] <= 200
    losses = {key: each["loss"] for key, each in figures(whole).items()}
    actual = {key: each["loss"] for key, each in figures(JobFolder(Path(job))).items()}
    assert losses == {key: pytest.approx(value, rel=1e-4) for key, value in actual.items()}
    texts = [str(event.data.get("text")) for event in events(JobFolder(Path(job)))]
    assert not [text for text in texts if "repeated" in text]


def test_out_of_memory_in_a_reference_pass_begins_it_anew_with_smaller_parts(
    launch: Callable[..., Launch], backend: LocalBackend
) -> None:
    """What the pass has kept is by micro-batch, and those are others now."""
    job = backend.submit(launch())
    folder = JobFolder(Path(job))
    folder.checkpoints.mkdir()
    (folder.checkpoints / "reference.jsonl").write_text("[[[-1.0, -2.0]]]\n")
    error = processes.OutOfMemory(300, 3, MemoryError())
    assert str(error) == worker._reason(error, folder)
    assert folder.micro_batch_limit() == 150
    assert not (folder.checkpoints / "reference.jsonl").exists()


def test_one_row_that_does_not_fit_is_named_as_such() -> None:
    error = processes.OutOfMemory(5000, 1, torch.OutOfMemoryError("CUDA out of memory. Tried"))
    assert error.limit is None
    assert "It contains a single row. Set options.local.gradient_checkpointing" in str(error)


def test_a_failed_attempt_s_checkpoints_begin_the_next_one(
    launch: Callable[..., Launch], backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = undisturbed(backend, launch)
    faulty = Faulty(monkeypatch, RunFailed("step 6 has loss nan"))
    first = worked(backend, launch())
    assert State.FAILED is backend.poll(first, "").state
    other = backend.submit(launch("run-2", learning_rate=1e-5))
    assert JobFolder(Path(other)).saved_step() == 0, "it is another training"
    third = JobFolder(Path(first)).path.with_name("run-2")
    third.rename(third.with_name("other"))
    faulty.error = None
    second = backend.submit(launch("run-2"))
    assert JobFolder(Path(second)).saved_step() == CHECKPOINT_STEPS
    worker.work(JobFolder(Path(second)))
    assert State.SUCCEEDED is backend.poll(second, "").state
    assert len(faulty.computed) == FAULT_AT + STEPS - CHECKPOINT_STEPS
    expected, again = figures(whole), figures(JobFolder(Path(second)))
    assert {key: expected[key] for key in again} == again


@pytest.mark.parametrize("slow", ["step", "evaluation"])
def test_a_worker_that_is_asked_to_end_saves_at_once_however_long_its_step_takes(
    launch: Callable[..., Launch],
    backend: LocalBackend,
    monkeypatch: pytest.MonkeyPatch,
    slow: str,
) -> None:
    """The main thread hangs, as in a long generation or in a collective call."""
    hanging, go_on = threading.Event(), threading.Event()
    ended: list[int] = []
    original = loop._add_gradients if slow == "step" else loop.validation_figures
    calls = [0]

    def hangs(*given: Any, **named: Any) -> object:
        calls[0] += 1
        if calls[0] == (FAULT_AT if slow == "step" else 3):
            hanging.set()
            go_on.wait(60)
        return original(*given, **named)

    monkeypatch.setattr(loop, original.__name__, hangs)
    monkeypatch.setattr(os, "_exit", ended.append)
    rescues: list[processes.Rescue] = []
    initial = processes.Rescue.__init__

    def init(self: processes.Rescue, folder: JobFolder, log: EventLog) -> None:
        initial(self, folder, log)
        rescues.append(self)

    monkeypatch.setattr(processes.Rescue, "__init__", init)
    job = backend.submit(launch())
    folder = JobFolder(Path(job))
    training = threading.Thread(target=worker.work, args=(folder,), daemon=True)
    training.start()
    assert hanging.wait(60)
    begun = time.monotonic()
    rescues[0].end(processes.TERMINATED)
    assert time.monotonic() - begun < 5
    assert ended == [processes.ENDED_EARLY]
    assert folder.saved_step() == (FAULT_AT - 1 if slow == "step" else 6)
    assert folder.interrupted_by() == processes.TERMINATED
    saved = checkpoint.latest(folder.checkpoints)
    assert saved is not None
    assert saved.position.evaluated == (slow == "step")
    made = [key for key in figures(folder) if key.startswith("step")]
    go_on.set()
    training.join(0.5)
    assert training.is_alive(), "it makes no other step"
    assert made == [key for key in figures(folder) if key.startswith("step")]


def test_a_damaged_checkpoint_is_named_with_the_steps_that_are_done_again(
    launch: Callable[..., Launch], backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = undisturbed(backend, launch)
    faulty = Faulty(monkeypatch, NO_SPACE)
    job = backend.submit(launch())
    folder = JobFolder(Path(job))
    worker.work(folder)
    (folder.checkpoints / "step-5" / "tensors.safetensors").write_bytes(b"torn")
    (folder.checkpoints / "step-x").mkdir()
    (folder.checkpoints / "step-7").touch()
    faulty.error = None
    resumed(backend, job)
    warnings = [str(event.data["text"]) for event in events(folder) if event.kind == "warning"]
    assert warnings[1] == (
        f"damaged checkpoints removed from {folder.checkpoints}: step-5, step-7; "
        "steps 5 to 7 are repeated"
    )
    assert figures(whole) == figures(folder)


@pytest.mark.parametrize(
    "tuning",
    [
        {"neftune_noise_alpha": 5},
        {"lora": {"dropout": 0.1}},
        {"lora": {"dora": True, "rank": 2}},
        {"lora": {"rslora": True, "init": "gaussian"}},
        {"lora": {"loraplus_lr_ratio": 4}, "weight_decay": 0.1, "schedule": "linear"},
        {"keep": "best", "early_stopping": True},
    ],
    ids=", ".join,
)
def test_a_training_ends_with_a_model_whatever_is_set(
    launch: Callable[..., Launch], backend: LocalBackend, tuning: dict[str, object]
) -> None:
    job = worked(backend, launch(**tuning))
    done = backend.poll(job, "")
    assert (done.state, done.error) == (State.SUCCEEDED, None)
