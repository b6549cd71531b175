"""What trackers hold of a run, read back by their own libraries in a process of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Command

from unitune.errors import MissingExtra, UserError
from unitune.ledger import Ledger
from unitune.planning.preflight import preflight
from unitune.report.tracking import track
from unitune.run.handle import Run
from unitune.run.run import launch
from unitune.tracking import feed, interface
from unitune.tracking.feed import feeding
from unitune.tracking.interface import TrackedRun, open_tracker
from unitune.tracking.trackers import _is_own
from unitune.workspace.home import artifacts, home

from .conftest import MakeJob

STEPS = 8
READ_MLFLOW = """
import json, mlflow
client = mlflow.MlflowClient()
(experiment,) = client.search_experiments(filter_string="name = 'demo'")
(run,) = client.search_runs([experiment.experiment_id])
history = client.get_metric_history(run.info.run_id, "train/loss")
print(json.dumps({
    "run": run.data.tags["unitune.run"], "status": run.info.status, "parameters": run.data.params,
    "loss": sorted([each.step, each.value] for each in history),
}))
"""
READ_TENSORBOARD = """
import json, pathlib
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
(folder,) = pathlib.Path(".unitune/tensorboard").iterdir()
events = EventAccumulator(str(folder)).Reload()
print(json.dumps({
    "run": folder.name,
    "loss": sorted([each.step, each.value] for each in events.Scalars("train/loss")),
}))
"""
READ_TRACKIO = """
import json, trackio
(run,) = trackio.Api().runs("demo")
logs = trackio.SQLiteStorage.get_logs("demo", run.name)
losses = sorted([each["step"], each["train/loss"]] for each in logs if "train/loss" in each)
print(json.dumps({"run": run.name, "loss": losses}))
"""
READ_WANDB = """
import json, os, pathlib, struct
from wandb.proto import wandb_internal_pb2

def records(data):
    # LevelDB's log format after seven bytes: github.com/google/leveldb, doc/log_format.md
    place, record = 7, b""
    while place < len(data):
        if 32_768 - place % 32_768 < 7:
            place += 32_768 - place % 32_768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""

losses = []
folder = pathlib.Path(os.environ["XDG_STATE_HOME"], "unitune/tracking/wandb")
for file in folder.glob("offline-run-*/*.wandb"):
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        items = {
            ".".join(item.nested_key) or item.key: item.value_json for item in record.history.item
        }
        if "train/loss" in items:
            losses.append([json.loads(items["step"]), json.loads(items["train/loss"])])
print(json.dumps({"run": file.stem.removeprefix("run-"), "loss": sorted(losses)}))
"""
READERS = {
    "mlflow": READ_MLFLOW,
    "tensorboard": READ_TENSORBOARD,
    "trackio": READ_TRACKIO,
    "wandb": READ_WANDB,
}


@pytest.fixture(autouse=True)
def _stores(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(workplace / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def run(make_job: MakeJob, request: pytest.FixtureRequest) -> Run:
    """A run in the middle of its training, tracked as the test's parameter says."""
    job = make_job({"steps": STEPS, "steps_per_poll": 2})
    job = job.model_copy(update={"track": request.param})
    run = launch(job.model_copy(update={"tuning": job.tuning.model_copy(update={"epochs": 2})}))
    for _ in range(3):
        run.refresh()
    assert 0 < len(losses(run)) < STEPS
    return run


def losses(run: Run) -> list[list[float]]:
    return [
        [event.number("step") or 0, event.number("loss") or 0]
        for event in run.events()
        if event.kind == "step"
    ]


def held_by(tracker: str) -> dict[str, Any]:
    """Return what a tracker holds, as its own library reads it."""
    command = [sys.executable, "-c", READERS[tracker]]
    read = subprocess.run(command, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    return json.loads(read.stdout.splitlines()[-1])


@pytest.fixture
def killed(run: Run) -> Run:
    """The run, after the process that fed its trackers was killed when it had sent a part."""
    ledger = Ledger(home())
    with feeding(ledger, ledger.record(run.id), run.job.track) as outcomes:
        pids, until = feeders(len(run.job.track)), time.monotonic() + 120
        assert len(pids) == len(run.job.track)
        while not has_begun(run) and time.monotonic() < until:
            time.sleep(0.2)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    assert [each.tracker for each in outcomes] == [*run.job.track]
    assert {each.problem for each in outcomes} == {"its process has ended early (-9)"}
    return run


def feeders(number: int) -> list[int]:
    """Return the ids of the processes that feed trackers for this one, once they are there."""
    found, until = list[int](), time.monotonic() + 10
    while len(found) < number and time.monotonic() < until:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8")
        found = [
            int(pid)
            for pid in children.split()
            if b"unitune.tracking.feed" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
    return found


def has_begun(run: Run) -> bool:
    """Return whether the run's trackers have got their first figures."""
    folder = home()
    signs = {
        "tensorboard": lambda: [
            file for file in folder.glob("tensorboard/*/*") if file.stat().st_size > 150
        ],
        "trackio": lambda: [*(folder.parent / "trackio").glob("demo.db")],
        "wandb": lambda: [*folder.glob("tracking/wandb/offline-run-*")],
        "mlflow": lambda: [*folder.parent.glob("mlflow.db")],
    }
    return all(signs[name]() for name in run.job.track)


@pytest.mark.parametrize(
    "run",
    [("tensorboard",), pytest.param(("mlflow", "wandb", "trackio"), marks=pytest.mark.slow)],
    indirect=True,
)
def test_each_step_is_there_once_after_a_kill(killed: Run) -> None:
    run = killed.wait()
    assert len(losses(run)) == STEPS
    for tracker in run.job.track:
        held = held_by(tracker)
        assert run.id == held["run"]
        if tracker == "wandb":  # whose server drops what an offline run has twice
            held["loss"] = [*dict.fromkeys(map(tuple, held["loss"]))]
        steps, values = zip(*held["loss"], strict=True)
        assert list(steps) == [step for step, _ in losses(run)], tracker
        # TensorBoard keeps 32 bits.
        assert pytest.approx([loss for _, loss in losses(run)], rel=1e-6) == list(values)
        if tracker == "mlflow":
            assert held["status"] == "FINISHED"
            assert {"method": "sft", "tuning.epochs": "2"}.items() <= held["parameters"].items()
    told = [str(event.data.get("text")) for event in run.events() if event.kind == "message"]
    assert all(any(f"tracked by {name}" in text for text in told) for name in run.job.track)


@pytest.mark.slow
@pytest.mark.parametrize("run", [("wandb",)], indirect=True)
def test_a_closed_offline_run_is_gone_on_with(run: Run) -> None:
    (outcome,) = track(run)
    assert outcome.problem == ""
    begun = losses(run)
    assert [step for step, _ in begun] == [step for step, _ in held_by("wandb")["loss"]]
    run.wait()
    assert [step for step, _ in losses(run)] == [step for step, _ in held_by("wandb")["loss"]]


@pytest.mark.parametrize("run", [("tensorboard",)], indirect=True)
def test_a_tracker_that_fails_is_a_warning_and_the_training_goes_on(run: Run) -> None:
    folder = artifacts() / "tensorboard"
    folder.write_text("a file, where a folder is to be")
    run.wait()
    (warning,) = (event.data["text"] for event in run.events() if event.kind == "warning")
    assert str(warning).startswith("tensorboard was not fed: ")
    folder.unlink()
    (outcome,) = track(run)
    assert (outcome.tracker, outcome.problem) == ("tensorboard", "")
    assert len(held_by("tensorboard")["loss"]) == STEPS


def test_a_tracker_that_is_not_installed_is_refused_before_the_launch(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interface, "find_spec", lambda _name: None)
    job = make_job({}).model_copy(update={"track": ("wandb", "mlflow")})
    (finding,) = preflight(job).offer_findings
    assert finding.message == "track names wandb, mlflow, and that is not installed."
    assert "[wandb,mlflow]" in finding.fix
    with pytest.raises(MissingExtra):
        launch(job)


def test_the_command_sends_what_a_job_without_trackers_has(
    make_job: MakeJob, unitune: Command
) -> None:
    run = launch(make_job({"steps": STEPS})).wait()
    refused = unitune("runs", "track", run.id)
    assert (refused.code, refused.out) == (2, "")
    assert f"unitune runs track {run.id} --to mlflow" in refused.err
    sent = unitune("runs", "track", "newest", "--to", "tensorboard", "--json")
    assert [
        (Path(each["where"]).name, each["problem"]) for each in json.loads(sent.out)["trackers"]
    ] == [(run.id, "")]
    assert losses(run) == [
        [step, pytest.approx(loss)] for step, loss in held_by("tensorboard")["loss"]
    ]


@pytest.mark.parametrize("run", [("tensorboard",)], indirect=True)
def test_trackers_work_in_a_folder_of_the_ledger_and_not_in_the_project(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B reads `wandb/settings` from the current folder, and MLflow `mlflow.db`."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    ledger, folder = Ledger(home()), home() / "tracking"
    with feeding(ledger, ledger.record(run.id), run.job.track):
        (pid,) = feeders(1)
        process = Path("/proc") / str(pid)
        variables = (process / "environ").read_bytes().decode().split("\0")
        assert folder == (process / "cwd").readlink()
        assert f"WANDB_DIR={folder}" in variables
        assert f"MLFLOW_TRACKING_URI=sqlite:///{folder / 'mlflow.db'}" in variables
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.parametrize("run", [("mlflow", "tensorboard")], indirect=True)
def test_a_tracker_that_hangs_delays_neither_the_run_for_long_nor_another_tracker(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's server takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(feed, "CLOSE_SECONDS", 15.0)
        ledger = Ledger(home())
        with feeding(ledger, ledger.record(run.id), run.job.track) as outcomes:
            begun, pids = time.monotonic(), feeders(2)
        assert time.monotonic() - begun < 20
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    assert [(each.tracker, each.problem) for each in outcomes] == [
        ("mlflow", feed.LATE),
        ("tensorboard", ""),
    ]
    assert len(losses(run)) == len(held_by("tensorboard")["loss"])


@pytest.mark.parametrize(
    ("artifacts", "store", "is_own"),
    [
        ("https://mlflow.example.com/api/x", "https://mlflow.example.com", True),
        ("https://other.example.com/api/x", "https://mlflow.example.com", False),
        ("http://other.example.com/api/x", "sqlite:////work/mlflow.db", False),
        ("mlflow-artifacts:/1", "https://mlflow.example.com", True),
        ("s3://bucket/1", "https://mlflow.example.com", True),
        ("file:///work/mlruns/1", "sqlite:////work/mlflow.db", True),
        ("/work/mlruns/1", "file:///work/mlruns", True),
        ("/work/mlruns/../../home/1", "file:///work/mlruns", False),
        ("file:///home/user/.config", "sqlite:////work/mlflow.db", False),
        ("file:///home/user/.config", "https://mlflow.example.com", False),
    ],
)
def test_mlflow_keeps_artifacts_only_where_its_store_is(
    artifacts: str, store: str, *, is_own: bool
) -> None:
    assert is_own == _is_own(artifacts, store)


@pytest.mark.slow
def test_an_experiment_that_sends_artifacts_to_another_address_is_not_used(
    workplace: Path,
) -> None:
    client: Any = import_module("mlflow").MlflowClient(f"sqlite:///{workplace / 'mlflow.db'}")
    client.create_experiment("demo", artifact_location="http://127.0.0.1:9/artifacts")
    run = TrackedRun("r1", "r1", "demo", {}, {}, 0.0, workplace / ".unitune")
    with pytest.raises(UserError, match=r"keeps its artifacts at http://127\.0\.0\.1:9/artifacts"):
        open_tracker("mlflow", run)
