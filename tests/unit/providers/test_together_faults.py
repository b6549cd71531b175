"""What goes wrong between us and Together comes as an error of ours, of the right kind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vendors.together.vendor import KEY, TogetherVendor

from unitune.backends.protocol import Launch, Upload
from unitune.errors import BackendError, Unreachable
from unitune.job.job import Data, Job
from unitune.testing.contract_base import ROWS
from unitune.testing.loopback import OF_VENDORS, Fault, Server, serve
from unitune_providers.together.backend import TogetherBackend

OPEN = (Fault.ERROR_AFTER, Fault.SILENCE, Fault.CUT, Fault.SHORT)
"""After these a request has taken effect, and only the answer is lost."""
SAID_NO = {
    Fault.RATE_LIMITED: 429,
    Fault.SERVER_ERROR: 500,
    Fault.ERROR_AFTER: 500,
    Fault.EXPIRED_KEY: 401,
}
"""Faults that come as an answer, with their status; the others are no answer."""
CREATE = ("POST", "/fine-tunes$")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(TogetherVendor()) as server:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        monkeypatch.setattr("unitune.backends.kit.api.TIMEOUT_SECONDS", 1.0)
        monkeypatch.setattr("unitune.backends.kit.api.UPLOAD_SECONDS", 1.0)
        monkeypatch.setattr("unitune.backends.kit.chat.ANSWER_SECONDS", 1.0)
        monkeypatch.setattr("unitune.backends.retry.READ_ATTEMPTS", 1)
        monkeypatch.setattr("unitune.backends.kit.hosted.FILE_POLL_SECONDS", 0.001)
        yield server


@pytest.fixture
def backend(server: Server) -> TogetherBackend:  # noqa: ARG001 - it must be there
    return TogetherBackend()


@pytest.fixture
def launch(backend: TogetherBackend, tmp_path: Path) -> Launch:
    job = Job(
        name="tone", model="Qwen/Qwen3-8B", backend="together", data=Data(train="train.jsonl")
    )
    return Launch("r251125-abc-1", job, uploaded(backend, tmp_path), None, tmp_path)


def uploaded(backend: TogetherBackend, folder: Path) -> Upload:
    file = folder / "train.jsonl"
    file.write_text("".join(ROWS))
    return backend.upload(file, hashlib.sha256(file.read_bytes()).hexdigest())


def check(fault: Fault, act: Callable[[], object]) -> None:
    with pytest.raises(BackendError) as caught:
        act()
    assert SAID_NO.get(fault) == caught.value.status
    assert isinstance(caught.value, Unreachable) == (fault not in SAID_NO)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("fault", sorted(OF_VENDORS))
@pytest.mark.parametrize("path", ["/fine-tunes/ft-[^/]+$", "/events$", "/metrics$"])
def test_every_part_of_a_poll_fails_as_ours(
    server: Server, backend: TogetherBackend, launch: Launch, fault: Fault, path: str
) -> None:
    job_id = backend.submit(launch)
    server.inject_fault(fault, "GET", path)
    check(fault, lambda: backend.poll(job_id, ""))


@pytest.mark.parametrize("fault", sorted(OF_VENDORS))
@pytest.mark.parametrize(
    "step",
    ["GET /files$", "POST /files$", "PUT /storage/", "POST /preprocess$", "GET /files/file-"],
)
def test_upload_fails_as_ours_and_can_be_repeated(
    server: Server, backend: TogetherBackend, tmp_path: Path, fault: Fault, step: str
) -> None:
    server.inject_fault(fault, *step.split())
    check(fault, lambda: uploaded(backend, tmp_path))
    again = uploaded(backend, tmp_path)
    assert again == uploaded(backend, tmp_path)


@pytest.mark.parametrize("fault", sorted(OF_VENDORS))
def test_list_and_cancel_fail_as_ours(
    server: Server, backend: TogetherBackend, launch: Launch, fault: Fault
) -> None:
    job_id = backend.submit(launch)
    server.inject_fault(fault, "GET", "/fine-tunes$")
    check(fault, lambda: backend.find(launch.key, launch.folder))
    server.inject_fault(fault, "POST", "/cancel$")
    check(fault, lambda: backend.cancel(job_id))


@pytest.mark.parametrize("fault", sorted(OF_VENDORS))
def test_a_failure_before_the_create_call_leaves_nothing_open(
    server: Server, backend: TogetherBackend, launch: Launch, fault: Fault
) -> None:
    """Else a run would wait for a job that nobody can have made."""
    server.inject_fault(fault, "GET", "/models/limits$")
    with pytest.raises(BackendError) as caught:
        backend.submit(launch)
    assert not isinstance(caught.value, Unreachable)
    assert (caught.value.status or 0) < 500
    assert server.received(*CREATE) == []


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.SHORT, Fault.SILENCE])
def test_a_download_that_breaks_off_leaves_no_file(
    server: Server, backend: TogetherBackend, launch: Launch, tmp_path: Path, fault: Fault
) -> None:
    job_id = backend.submit(launch)
    while (status := backend.poll(job_id, "")).model is None:
        pass
    server.inject_fault(fault, "GET", "/finetune/download$")
    model, folder = status.model, tmp_path / "weights"
    check(fault, lambda: backend.download(model, folder))
    assert list(folder.iterdir()) == []


def test_upload_is_sent_without_the_key_and_adopted_by_its_content(
    server: Server, backend: TogetherBackend, tmp_path: Path
) -> None:
    """A file that was uploaded by hand, under whatever name, is the same file."""
    first = uploaded(backend, tmp_path)
    server.vendor.files[first.ref].name = "by-hand.jsonl"
    assert first == uploaded(backend, tmp_path)
    (stored,) = server.received("PUT", "/storage/")
    assert "authorization" not in stored.headers


def test_refusal_carries_words_and_advice(
    backend: TogetherBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", "another")
    with pytest.raises(BackendError, match=r"not valid .*Check the key in TOGETHER_API_KEY"):
        backend.find("key-1", tmp_path)
