"""A worker of a Ray cluster, in this process: what it stores, loses and goes on from.

Ray itself is not needed here; tests/slow/test_ray_cluster.py has a cluster.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch
from pydantic import JsonValue
from support.tiny_model import write_rows
from vendors import ray as double

from unitune.backends.protocol import Event, Launch, Upload
from unitune.errors import BackendError, JobError, Unreachable, UserError
from unitune.files.filesystem import sha256
from unitune.job.job import Data, Job
from unitune.models import Start, TunedModel
from unitune.testing.vendor_setup import serve_vendor
from unitune_local.data.batches import Batch, TrainingRow, computed_tokens
from unitune_local.job_folder import EventLog, JobFolder, Result, parse_events, read_events
from unitune_local.objectives.loss import Form
from unitune_local.parallel.processes import OutOfMemory
from unitune_local.ray.backend import RayBackend
from unitune_local.remote import folder as remote_folder
from unitune_local.remote.launch import RemoteLaunch, StartFolder
from unitune_local.remote.storage import Storage
from unitune_local.remote.training import run
from unitune_local.spec import Spec
from unitune_local.training.run import prepare, run_training

pytestmark = pytest.mark.heavy

KEY, NEXT = "r261127-000000000000-1", "r261127-000000000000-2"


@pytest.fixture(autouse=True)
def _events_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_folder, "EVENT_SECONDS", 0.0)


@pytest.fixture
def cluster() -> Iterator[double.RayVendor]:
    with serve_vendor(double.ray_setup()) as served:
        vendor = served.server.vendor
        assert isinstance(vendor, double.RayVendor)
        yield vendor


@pytest.fixture
def launch(tiny_model: Path, tmp_path: Path) -> Callable[..., RemoteLaunch]:
    def made(storage: str, rows: int = 24, **job: JsonValue) -> RemoteLaunch:
        file = write_rows(tmp_path / f"{rows}.jsonl", rows)
        name = f"files/{rows}.jsonl"
        Storage(storage).put(file, name)
        given: dict[str, JsonValue] = {
            "name": "ray",
            "model": str(tiny_model),
            "backend": "ray",
            "data": {"train": "train.jsonl"},
            "tuning": {"epochs": 3, "batch_size": 8},
            "options": {"ray": {"checkpoint_every_steps": 1}},
        }
        training = Upload(name, sha256(file))
        own = {**given, **job}
        return RemoteLaunch(key=KEY, storage=storage, job=own, training=training, validation=None)

    return made


def events(storage: str, key: str = KEY) -> list[Event]:
    return [*parse_events(remote_folder.read_events(Storage(storage), f"jobs/{key}", 0), 0).events]


def result(storage: str, key: str = KEY) -> Result:
    return Result.model_validate_json(Storage(storage).read(f"jobs/{key}/result.json"))


def losses(storage: str, key: str = KEY) -> dict[float | None, float | None]:
    steps = [event for event in events(storage, key) if event.kind == "step"]
    return {event.number("step"): event.number("loss") for event in steps}


def run_to_the_fourth_step(launch: RemoteLaunch) -> None:
    """Train until the node is lost, after the checkpoint of a step was stored."""
    original = remote_folder.RemoteFolder.send_checkpoints

    def failing(folder: remote_folder.RemoteFolder) -> None:
        original(folder)
        if (folder.local.checkpoints / "step-4").exists():
            raise ConnectionError("the node is lost")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_folder.RemoteFolder, "send_checkpoints", failing)
        with pytest.raises(ConnectionError):
            run(launch)


def test_a_job_that_has_stored_no_event_yet_has_none(tmp_path: Path) -> None:
    assert remote_folder.read_events(Storage(str(tmp_path)), f"jobs/{KEY}", 0) == b""


@pytest.mark.parametrize("kind", ["folder", "memory://ray"])
def test_a_worker_on_another_node_goes_on_from_what_is_stored(
    launch: Callable[..., RemoteLaunch], tmp_path: Path, kind: str
) -> None:
    def stored(name: str) -> str:
        return f"{kind}/{name}" if "://" in kind else str(tmp_path / name)

    run(launch(stored("whole")))
    run_to_the_fourth_step(launch(stored("torn")))
    assert Storage(stored("torn")).read(f"jobs/{KEY}/result.json") == b""
    run(launch(stored("torn")))
    texts = [event.data.get("text") for event in events(stored("torn"))]
    assert "resuming at step 4/9" in texts
    assert [*range(1, 10)] == [*losses(stored("torn"))]
    assert losses(stored("whole")) == losses(stored("torn"))
    assert Storage(stored("torn")).names(f"jobs/{KEY}/checkpoints") == {"step-8", "step-9"}
    assert [result(stored(name)).state for name in ("whole", "torn")] == ["succeeded"] * 2


def test_a_worker_that_starts_after_the_end_changes_nothing(
    launch: Callable[..., RemoteLaunch], tmp_path: Path
) -> None:
    run(launch(str(tmp_path)))
    before = events(str(tmp_path))
    run(launch(str(tmp_path)))
    assert before == events(str(tmp_path))


def test_what_is_wrong_with_the_job_is_its_result_and_not_tried_again(
    launch: Callable[..., RemoteLaunch], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    run(launch(str(tmp_path), model=str(tmp_path / "empty")))
    assert result(str(tmp_path)).state == "failed"
    assert f"{tmp_path}/empty" in str(result(str(tmp_path)).error)


def test_the_next_attempt_goes_on_from_the_checkpoints_of_one_that_was_cut_off(
    launch: Callable[..., RemoteLaunch], tmp_path: Path
) -> None:
    """As by the time limit of a rented machine: there is no result."""
    run(launch(str(tmp_path / "whole")))
    first, storage = launch(str(tmp_path / "cut")), str(tmp_path / "cut")
    run_to_the_fourth_step(first)
    run(first.model_copy(update={"key": NEXT}))
    texts = [event.data.get("text") for event in events(storage, NEXT)]
    assert "resuming at step 4/9" in texts
    whole = losses(str(tmp_path / "whole"))
    assert losses(storage, NEXT) == {step: whole[step] for step in whole if step and step > 4}
    other = launch(storage, tuning={"epochs": 2, "batch_size": 8})
    run(other.model_copy(update={"key": f"{NEXT[:-1]}3"}))
    assert [*losses(storage, f"{NEXT[:-1]}3")] == [*range(1, 7)]


def test_a_chain_goes_on_from_an_adapter_in_the_storage_as_on_one_machine(
    launch: Callable[..., RemoteLaunch], tmp_path: Path
) -> None:
    storage = str(tmp_path / "storage")
    first = launch(storage)
    run(first)
    start = StartFolder(ref=f"jobs/{KEY}/adapter", run="r1")
    run(first.model_copy(update={"key": NEXT, "start": start}))
    assert result(storage, NEXT).state == "succeeded", result(storage, NEXT).error
    spec = Spec.model_validate_json(Storage(storage).read(f"jobs/{NEXT}/spec.json"))
    assert (spec.start and spec.start.run) == "r1"

    here = JobFolder(tmp_path / "here")
    here.path.mkdir()
    model = TunedModel(backend="local", name=f"{storage}/jobs/{KEY}/adapter", base="tiny")
    local = first.local(Path(storage))
    here.spec.write_text(prepare(replace(local, start=Start(model=model))).model_dump_json())
    run_training(here, EventLog(here.events))
    steps = [each for each in read_events(here.events, "").events if each.kind == "step"]
    assert losses(storage, NEXT) == {each.number("step"): each.number("loss") for each in steps}
    assert losses(storage, NEXT)[1] != losses(storage)[1]


def test_an_adapter_of_this_machine_is_stored_beside_the_training_and_one_of_the_storage_is_not(
    tmp_path: Path, cluster: double.RayVendor
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "unitune.json", "notes"):
        (folder / name).write_text(name)
    storage = Storage(str(cluster.storage))
    for key, adapter in ((KEY, str(folder)), (NEXT, storage.url(f"jobs/{KEY}/adapter"))):
        start = Start(run="r1", model=TunedModel(backend="x", name=adapter, base="tiny"))
        job = Job(name="x", model="tiny", backend="ray", data=Data(train="-"))
        RayBackend().submit(Launch(key, job, Upload("files/a", ""), None, tmp_path, start))
    kept = [cluster.jobs[key].launch["start"] for key in (KEY, NEXT)]
    names = {"adapter_config.json", "adapter_model.safetensors", "unitune.json"}
    assert names == storage.names(f"jobs/{KEY}/start")
    assert set() == storage.names(f"jobs/{NEXT}")
    assert [{"ref": f"jobs/{KEY}/{at}", "run": "r1"} for at in ("start", "adapter")] == kept


def test_threads_are_the_cores_that_ray_sets_aside(
    launch: Callable[..., RemoteLaunch], tmp_path: Path
) -> None:
    options: JsonValue = {"ray": {"cpus_per_worker": 2, "checkpoint_every_steps": 1}}
    run(launch(str(tmp_path), options=options))
    spec = json.loads(Storage(str(tmp_path)).read(f"jobs/{KEY}/spec.json"))
    assert (spec["settings"]["threads"], spec["settings"]["device"]) == (2, "cpu")


def test_rows_are_read_from_an_offset_and_a_missing_file_is_empty() -> None:
    storage = Storage("memory://offsets")
    fsspec.filesystem("memory").pipe_file("/offsets/a", b"0123")
    assert [
        storage.read("a"),
        storage.read("a", 2),
        storage.read("a", 9),
        storage.read("b"),
    ] == [b"0123", b"23", b"", b""]


@pytest.mark.parametrize(
    ("address", "words"),
    [("shared/runs", "other machines cannot find"), ("nosuch://bucket/x", "nosuch")],
)
def test_a_storage_that_cannot_be_used_is_named(address: str, words: str) -> None:
    with pytest.raises(UserError, match=rf"UNITUNE_STORAGE is '{address}'.*{words}"):
        Storage(address)


def test_a_name_that_leads_out_of_the_folder_is_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage("memory://names")
    names = ["/names/a/b", "/names/a/../../c"]  # as keys of an object store may be
    monkeypatch.setattr(fsspec.filesystem("memory").__class__, "find", lambda *_: names)
    fsspec.filesystem("memory").pipe(dict.fromkeys(names, b"x"))
    storage.fetch("a", tmp_path / "d" / "e")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "d" / "e" / "b"]


@pytest.mark.parametrize("linked", ["adapter/tokenizer.json", "adapter"])
def test_a_file_of_this_machine_is_not_read_through_a_link(tmp_path: Path, linked: str) -> None:
    (tmp_path / "home" / "keys").mkdir(parents=True)
    (tmp_path / "home" / "keys" / "id").write_text("PRIVATE")
    place = tmp_path / "storage" / "jobs" / linked
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "home" / "keys" / ("id" if "/" in linked else ""))
    with pytest.raises(UserError, match="is a link"):
        Storage(str(tmp_path / "storage")).fetch("jobs", tmp_path / "copy")
    assert [path for path in (tmp_path / "copy").rglob("*") if path.is_file()] == []


def test_of_an_adapter_only_its_own_files_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the storage could otherwise add a file to what `push` publishes."""
    monkeypatch.setenv("UNITUNE_STORAGE", str(tmp_path / "storage"))
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    adapter = tmp_path / "storage" / "jobs" / KEY / "adapter"
    adapter.mkdir(parents=True)
    for name in ("adapter_config.json", "unitune.json", "tokenizer.json", "notes.txt"):
        (adapter / name).write_text("{}")
    here = RayBackend()._here(TunedModel(backend="ray", name=str(adapter), base="tiny"))
    own = {"adapter_config.json", "unitune.json", "tokenizer.json"}
    assert own == {path.name for path in Path(here.name).iterdir()}


def test_a_password_in_the_address_of_a_storage_is_refused() -> None:
    with pytest.raises(UserError, match="holds a password") as refused:
        Storage("memory://ana:sesame@host/x")
    assert "sesame" not in str(refused.value)


def test_a_model_outside_the_storage_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_STORAGE", str(tmp_path / "storage"))
    other = tmp_path / "jobs" / KEY / "adapter"
    other.mkdir(parents=True)
    for name in (str(other), f"{tmp_path}/storage/../jobs/{KEY}/adapter"):
        RayBackend().delete_model(TunedModel(backend="ray", name=name, base="tiny"))
    assert other.exists()


def test_a_judge_or_a_scorer_that_reads_a_file_cannot_reward_on_a_cluster(tmp_path: Path) -> None:
    (tmp_path / "checks_of_ray.py").write_text("def polite(case, answer):\n    return 1.0\n")
    given: dict[str, object] = {
        "name": "ray",
        "model": "tiny",
        "backend": "ray",
        "method": "rft",
        "data": {"train": "train.jsonl"},
        "folder": tmp_path,
    }
    plain, own = "exact", {"type": "python", "function": "checks_of_ray.py:polite"}
    judge = {"type": "judge", "url": "http://127.0.0.1:9/v1", "model": "m", "rubric": ["Polite."]}
    jobs = [
        Job.model_validate({**given, "tuning": {"reward": {"scorers": scorer}}})
        for scorer in (plain, own, judge)
    ]
    RayBackend().validate_options(jobs[0])
    with pytest.raises(JobError, match="reads a file of this machine"):
        RayBackend().validate_options(jobs[1])
    with pytest.raises(JobError, match="'judge' is a judge, whose key and judgements stay"):
        RayBackend().validate_options(jobs[2])


def test_a_base_is_not_spread_over_the_workers_of_a_cluster() -> None:
    given = {"name": "ray", "model": "tiny", "backend": "ray", "data": {"train": "-"}}
    job = Job.model_validate(given)
    RayBackend().validate_options(job)
    job = job.model_copy(update={"options": {"ray": {"processes": 2, "shard": True}}})
    with pytest.raises(JobError, match="each worker holds the whole model"):
        RayBackend().validate_options(job)


@pytest.mark.parametrize(
    "line", ["7", "no JSON", '{"key": 7}', '{"key":"a","kind":"odd","time":0}']
)
def test_odd_lines_in_the_storage_are_an_error_of_ours(
    line: str, cluster: double.RayVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_train", lambda *_: None)
    cluster.jobs[KEY] = double.Job({"submission_id": KEY, "entrypoint": ""})
    events = cluster.storage / "jobs" / KEY / "events"
    events.mkdir(parents=True)
    (events / "000000000000.jsonl").write_text(f"{line}\n")
    with pytest.raises(BackendError, match="events has a line that is not an event"):
        RayBackend().poll(KEY, "")


class Failing:
    """Lets the calls of a storage fail some times, each with an error."""

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
        self.calls, self.fails = 0, 0
        files = type(storage._files)

        def failing(original: Callable[..., object]) -> Callable[..., object]:
            def call(*given: object, **named: object) -> object:
                self.calls += 1
                if self.fails:
                    self.fails -= 1
                    raise error
                return original(*given, **named)

            return call

        for name in ("exists", "info", "put_file", "find", "ls", "rm"):
            monkeypatch.setattr(files, name, failing(getattr(files, name)))


def test_a_storage_that_fails_for_a_moment_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = list[float]()
    monkeypatch.setattr("unitune_local.remote.storage.time.sleep", pauses.append)
    storage = Storage(str(tmp_path / "storage"))
    (tmp_path / "file").write_text("content")
    broken = Failing(storage, monkeypatch, ConnectionResetError("reset by peer"))
    for act in (
        lambda: storage.put(tmp_path / "file", "a/b"),
        lambda: storage.read("a/b"),
        lambda: storage.names("a"),
        lambda: storage.fetch("a", tmp_path / "copy"),
        lambda: storage.remove("a"),
    ):
        broken.fails = 4
        act()
    assert pauses == [0.5, 1.0, 2.0, 4.0] * 5
    assert (tmp_path / "copy" / "b").read_text() == "content"
    broken.fails = 5
    with pytest.raises(Unreachable, match=r"could not list .*ConnectionResetError: reset by peer"):
        storage.names("a")


def test_a_storage_that_refuses_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path))
    broken = Failing(storage, monkeypatch, PermissionError("not yours"))
    broken.fails = 1
    with pytest.raises(Unreachable, match="PermissionError: not yours"):
        storage.names("a")
    assert broken.calls == 1


def test_events_are_stored_in_parts_of_which_the_last_alone_is_sent_again(
    launch: Callable[..., RemoteLaunch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_folder, "PART_BYTES", 300)
    made, sizes = launch(str(tmp_path)), list[int]()
    original = Storage.put

    def put(storage: Storage, file: Path, name: str) -> None:
        sizes.extend([file.stat().st_size] if "/events/" in name else [])
        original(storage, file, name)

    monkeypatch.setattr(Storage, "put", put)
    for half in range(2):
        with remote_folder.RemoteFolder(made) as folder:  # on another node
            folder.fetch()
            log = remote_folder.SentLog(folder)
            for step in range(half * 10, half * 10 + 10):
                log.write("step", {"step": step, "loss": 0.5})
                folder.send_events()
    assert max(sizes) < 600
    names = Storage(str(tmp_path)).names(f"jobs/{KEY}/events")
    assert len(names) > 4
    seen = events(str(tmp_path))
    assert [f"step-{step}" for step in range(20)] == [event.key for event in seen]
    whole = remote_folder.read_events(Storage(str(tmp_path)), f"jobs/{KEY}", 0)
    for start in range(0, len(whole), 97):
        rest = remote_folder.read_events(Storage(str(tmp_path)), f"jobs/{KEY}", start)
        assert whole[start:] == rest


def test_a_slow_storage_does_not_hold_up_a_step(
    launch: Callable[..., RemoteLaunch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = launch(str(tmp_path))
    asked, go_on = threading.Event(), threading.Event()
    original = Storage.put

    def put(storage: Storage, file: Path, name: str) -> None:
        asked.set()
        assert go_on.wait(60)
        original(storage, file, name)

    monkeypatch.setattr(Storage, "put", put)
    with remote_folder.RemoteFolder(made) as folder:
        log = remote_folder.SentLog(folder)
        for step in range(5):
            log.write("step", {"step": step})
        assert asked.wait(60)
        go_on.set()
        folder.send_events()
    assert len(events(str(tmp_path))) == 5


def test_failures_are_counted_from_the_last_checkpoint_on(
    launch: Callable[..., RemoteLaunch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = pytest.importorskip("unitune_local.ray.driver", reason="needs the extra `ray`")
    made = launch(str(tmp_path), options={"ray": {"max_failures": 2}})
    names = list[str]()

    class Trainer:
        def fit(self) -> None:
            """Fail each time; the first five times after a new checkpoint."""
            if len(names) <= 5:
                Storage(str(tmp_path)).put(
                    tmp_path / "24.jsonl", f"jobs/{KEY}/checkpoints/step-{len(names)}/x"
                )
            raise driver.ray.train.TrainingFailedError("a node is lost")

    def trainer(_: RemoteLaunch, name: str) -> Trainer:
        names.append(name)
        return Trainer()

    monkeypatch.setattr(driver, "trainer", trainer)
    assert driver.main(made) == 1
    assert [f"start-{number}" for number in range(1, 8)] == names
    text = "it failed 3 times without a new checkpoint; the last error: a node is lost"
    assert text == result(str(tmp_path)).error


def test_after_out_of_memory_all_workers_compute_half_as_much_at_a_time(
    launch: Callable[..., RemoteLaunch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is one whose memory holds 200 tokens."""
    made, original, tries = launch(str(tmp_path)), Form.batch, 0

    def batch(form: Form, rows: Sequence[TrainingRow], device: torch.device) -> Batch:
        small = device.type == "meta" or not torch.is_grad_enabled()
        if not small and computed_tokens(rows, share=True) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(form, rows, device)

    monkeypatch.setattr(Form, "batch", batch)
    while Storage(str(tmp_path)).read(f"jobs/{KEY}/result.json") == b"":
        tries += 1
        assert tries < 5
        with suppress(OutOfMemory):  # upon which Ray starts them anew
            run(made)
    assert result(str(tmp_path)).state == "succeeded"
    assert tries > 1
    assert [*range(1, 10)] == [*losses(str(tmp_path))]
