"""The Together backend on a loopback: files, trainings, endpoints, and what becomes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from vendors.together.vendor import KEY, TogetherVendor

from unitune.backends.protocol import Launch, Status
from unitune.errors import BackendError, JobError, NotFoundError, Unsupported, UserError
from unitune.job.job import Data, Job, Lora, Tuning
from unitune.job.tuning import EarlyStopping
from unitune.models import TunedModel
from unitune.testing.contract_base import ROWS
from unitune.testing.loopback import Server, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune_providers.together import backend as together
from unitune_providers.together.backend import TogetherBackend

CONFIG = {"config": "cr_one"}


@pytest.fixture
def behavior() -> ServerBehavior:
    return ServerBehavior(queued_polls=0, steps=2)


@pytest.fixture
def server(behavior: ServerBehavior, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(TogetherVendor(behavior)) as server:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        monkeypatch.setattr("unitune.backends.kit.hosted.FILE_POLL_SECONDS", 0.001)
        monkeypatch.setattr(together, "POLL_SECONDS", 0.001)
        yield server


@pytest.fixture
def backend(server: Server) -> TogetherBackend:  # noqa: ARG001 - it must be there
    return TogetherBackend()


@pytest.fixture
def launch(backend: TogetherBackend, tmp_path: Path) -> Launch:
    return launch_of(backend, tmp_path)


def launch_of(
    backend: TogetherBackend, folder: Path, key: str = "r251125-abc-1", model: str = "Qwen/Qwen3-8B"
) -> Launch:
    file = folder / "train.jsonl"
    file.write_text("".join(ROWS))
    upload = backend.upload(file, hashlib.sha256(file.read_bytes()).hexdigest())
    job = Job(
        name="tone",
        model=model,
        backend="together",
        data=Data(train="train.jsonl"),
        tuning=Tuning(
            epochs=2,
            learning_rate=1e-4,
            schedule="cosine",
            lora=Lora(rank=8, dropout=0.1),
            seed=3,
        ),
        options={"together": {"n_evals": 1}},
    )
    return Launch(key, job, upload, None, folder)


def ended(backend: TogetherBackend, job_id: str) -> Status:
    while not (status := backend.poll(job_id, "")).state.ended:
        pass
    return status


def tuned(backend: TogetherBackend, launch: Launch) -> TunedModel:
    model = ended(backend, backend.submit(launch)).model
    assert model is not None
    return model


def test_file_is_named_by_its_hash_and_sent_once(
    server: Server, backend: TogetherBackend, launch: Launch, tmp_path: Path
) -> None:
    again = launch_of(backend, tmp_path)
    assert launch.training == again.training
    assert len(server.received("PUT", "/storage/")) == 1
    (stored,) = server.vendor.files.values()
    assert stored.name == f"unitune-{launch.training.sha256[:32]}.jsonl"


def test_file_whose_bytes_never_came_is_sent_again(
    server: Server, backend: TogetherBackend, launch: Launch, tmp_path: Path
) -> None:
    """An upload that was killed leaves a name without content."""
    server.vendor.files[launch.training.ref].content = None
    server.vendor.files[launch.training.ref].sent = False
    assert launch.training.ref != launch_of(backend, tmp_path).training.ref


def test_file_that_together_refuses_brings_its_report(
    behavior: ServerBehavior, backend: TogetherBackend, tmp_path: Path
) -> None:
    behavior.rejects_files = "Line 3 has no assistant turn"
    with pytest.raises(BackendError, match="Line 3 has no assistant turn") as caught:
        launch_of(backend, tmp_path)
    assert caught.value.status == 400


def test_body_of_the_create_call_is_the_one_we_made(
    server: Server, backend: TogetherBackend, launch: Launch
) -> None:
    """The SDK's own `create` would add what nobody set, and ask for a price each time."""
    backend.submit(launch)
    (created,) = server.received("POST", "/fine-tunes$")
    assert created.json == {
        "model": "Qwen/Qwen3-8B",
        "training_file": launch.training.ref,
        "suffix": launch.key,
        "n_epochs": 2,
        "learning_rate": 1e-4,
        "random_seed": 3,
        "n_evals": 1,
        "training_type": {"type": "Lora", "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.1},
        "training_method": {"method": "sft", "train_on_inputs": "auto"},
        "lr_scheduler": {
            "lr_scheduler_type": "cosine",
            "lr_scheduler_args": {"min_lr_ratio": 0.0, "num_cycles": 0.5},
        },
    }
    assert server.received("POST", "estimate-price") == []


def test_setting_beyond_the_limits_sends_nothing(
    server: Server, backend: TogetherBackend, launch: Launch
) -> None:
    job = launch.job.model_copy(update={"tuning": Tuning(epochs=99)})
    with pytest.raises(
        JobError, match=r"tuning\.epochs is 99; for this base model, together accepts at most 20"
    ):
        backend.submit(Launch(launch.key, job, launch.training, None, launch.folder))
    assert server.received("POST", "/fine-tunes$") == []


def test_base_model_that_together_does_not_tune_is_refused(
    backend: TogetherBackend, tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match="does not tune 'gpt-9'"):
        backend.submit(launch_of(backend, tmp_path, model="gpt-9"))


def test_job_is_found_by_its_whole_key_alone(
    backend: TogetherBackend, launch: Launch, tmp_path: Path
) -> None:
    first = backend.submit(launch)
    second = backend.submit(launch_of(backend, tmp_path, key="r251125-abc-11"))
    assert backend.find("r251125-abc-1", tmp_path) == [first]
    assert backend.find("r251125-abc-11", tmp_path) == [second]
    assert backend.find("abc-1", tmp_path) == []


def test_job_is_found_by_its_models_name_where_the_list_has_no_suffix(
    server: Server, backend: TogetherBackend, launch: Launch, tmp_path: Path
) -> None:
    job_id = backend.submit(launch)
    del server.vendor.jobs[job_id].body["suffix"]
    assert backend.find("r251125-abc-1", tmp_path) == [job_id]
    assert backend.find("r251125-abc", tmp_path) == []


def test_losses_are_steps_and_evaluations(backend: TogetherBackend, launch: Launch) -> None:
    status = ended(backend, backend.submit(launch))
    losses = [event for event in status.events if event.kind in ("step", "validation")]
    assert [(event.key, event.data) for event in losses] == [
        ("step-1", {"step": 1, "steps": 2, "loss": 1.0, "learning_rate": 1e-5}),
        ("step-2", {"step": 2, "steps": 2, "loss": 0.666667, "learning_rate": 1e-5}),
        ("validation-2", {"step": 2, "steps": 2, "loss": 0.766667}),
    ]


def test_the_step_that_early_stopping_keeps_is_told(
    backend: TogetherBackend, launch: Launch
) -> None:
    tuning = launch.job.tuning.model_copy(update={"early_stopping": EarlyStopping(patience=1)})
    options = {"together": {"n_evals": 3}}
    job = launch.job.model_copy(update={"tuning": tuning, "options": options})
    launched = replace(launch, job=job, validation=launch.training)
    events = ended(backend, backend.submit(launched)).events
    (data,) = (event.data for event in events if "kept_step" in event.data)
    assert (data["kept_step"], data["text"]) == (1, "Validation loss stopped improving")


def test_warnings_and_failures_are_told_as_such(
    behavior: ServerBehavior, backend: TogetherBackend, launch: Launch
) -> None:
    behavior.fails = "CUDA out of memory"
    events = ended(backend, backend.submit(launch)).events
    assert [event.data["text"] for event in events if event.kind == "warning"] == [
        "CUDA out of memory"
    ]


def test_quote_is_the_price_that_together_says(
    server: Server, backend: TogetherBackend, launch: Launch
) -> None:
    price = backend.quote(launch)
    (asked,) = server.received("POST", "estimate-price")
    assert Decimal(0) < price < Decimal(1)
    assert "suffix" not in asked.json


def test_quote_of_a_file_that_is_not_there_is_unsupported(
    server: Server, backend: TogetherBackend, launch: Launch
) -> None:
    server.vendor.files.clear()
    with pytest.raises(Unsupported, match="train_file_not_validated"):
        backend.quote(launch)


def test_checkpoint_is_one_model_whatever_its_archives(
    backend: TogetherBackend, launch: Launch
) -> None:
    job_id = backend.submit(launch)
    model = ended(backend, job_id).model
    assert model is not None
    (checkpoint,) = backend.checkpoints(job_id, "Qwen/Qwen3-8B")
    assert (2, f"{model.name}:2") == (checkpoint.step, checkpoint.model.name)
    with pytest.raises(Unsupported, match="without its model"):
        backend.delete_model(checkpoint.model)


def test_download_writes_the_adapter_whole(
    backend: TogetherBackend, launch: Launch, tmp_path: Path
) -> None:
    model = tuned(backend, launch)
    file = backend.download(model, tmp_path / "weights")
    assert model.name.replace("/", "--") + ".tar.zst" == file.name
    assert file.read_text().endswith("(adapter)")
    assert list(file.parent.iterdir()) == [file]


def test_deleting_what_is_gone_is_no_error(backend: TogetherBackend, launch: Launch) -> None:
    model = tuned(backend, launch)
    for _ in range(2):
        backend.delete_model(model)
        backend.delete_file(launch.training.ref)
    with pytest.raises(NotFoundError):
        backend.download(model, launch.folder)


def test_import_brings_files_and_settings_in_our_words(
    backend: TogetherBackend, launch: Launch
) -> None:
    model = tuned(backend, launch)
    (job_id,) = backend.find(launch.key, launch.folder)
    found = backend.import_job(job_id)
    assert ("Qwen/Qwen3-8B", "sft", model) == (found.base_model, found.method, found.model)
    assert "".join(ROWS).encode() == found.training
    assert launch.job.tuning.lora.rank == Tuning.model_validate(dict(found.tuning)).lora.rank
    again = launch.job.model_copy(update={"options": {"together": dict(found.options)}})
    backend.submit(Launch("again-1", again, launch.training, None, launch.folder))


def test_import_of_no_job_is_an_unknown_name(backend: TogetherBackend) -> None:
    with pytest.raises(NotFoundError, match="ft-0"):
        backend.import_job("ft-0")


def test_import_without_its_file_says_so(
    server: Server, backend: TogetherBackend, launch: Launch
) -> None:
    job_id = backend.submit(launch)
    server.vendor.files.clear()
    assert None is backend.import_job(job_id).training


def test_without_a_key_nothing_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")
    with pytest.raises(UserError, match=r"the key of together.* is not set.*TOGETHER_API_KEY"):
        TogetherBackend().find("key-1", tmp_path)
    with pytest.raises(UserError, match="TOGETHER_API_KEY"):
        TogetherBackend().chat("Qwen/Qwen3-8B")
    assert server.requests == []
