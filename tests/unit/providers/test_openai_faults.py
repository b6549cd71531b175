"""What goes wrong on the way to OpenAI becomes the right error of ours, and nothing is doubled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.providers.openai_spec import CHAT_ROW, Stage, on_stage

from unitune.errors import BackendError, DataError, Unreachable
from unitune.testing.loopback import Fault

CREATE = "/fine_tuning/jobs$"
REFUSED = {Fault.RATE_LIMITED: 429, Fault.SERVER_ERROR: 500, Fault.EXPIRED_KEY: 401}
LOST = (Fault.SILENCE, Fault.CUT, Fault.SHORT)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr("unitune.backends.kit.api.TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr("unitune.backends.kit.api.UPLOAD_SECONDS", 1.0)
    monkeypatch.setattr("unitune.backends.retry.sleep", lambda _: None)
    with on_stage(tmp_path, monkeypatch) as stage:
        yield stage


@pytest.mark.parametrize("fault", [*LOST, Fault.ERROR_AFTER])
def test_upload_without_an_answer_leaves_one_file(stage: Stage, fault: Fault) -> None:
    stage.server.inject_fault(fault, "POST", "/files$")
    with pytest.raises(BackendError):
        stage.upload("train.jsonl", CHAT_ROW * 10)
    stage.upload("train.jsonl", CHAT_ROW * 10)
    assert len(stage.vendor.files) == 1


def test_server_that_is_not_there_is_unreachable(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        stage.backend.cancel("ftjob-1")


def test_missing_job_is_404(stage: Stage) -> None:
    for ask in (stage.backend.cancel, stage.backend.resume, lambda x: stage.backend.poll(x, "")):
        with pytest.raises(BackendError, match="Could not find fine tune") as caught:
            ask("ftjob-none")
        assert caught.value.status == 404


def test_cancelling_what_has_ended_is_refused(stage: Stage) -> None:
    with pytest.raises(BackendError, match="already ended") as caught:
        stage.backend.cancel(stage.succeed())
    assert caught.value.status == 400


def test_wrong_key_is_told_without_the_key(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-and-secret")
    with pytest.raises(BackendError, match="Check the key in OPENAI_API_KEY") as caught:
        stage.backend.poll("ftjob-1", "")
    assert caught.value.status == 401
    assert "sk-wrong" not in str(caught.value)


def test_file_that_the_vendor_looks_through_first_is_waited_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune.backends.kit.hosted.FILE_POLL_SECONDS", 0.0)
    stage.vendor.file_statuses = ["pending", "running", "processed"]
    assert stage.upload("train.jsonl", CHAT_ROW * 10).ref in stage.vendor.files
    assert stage.vendor.file_statuses == []


def test_file_that_the_vendor_cannot_use_is_told(stage: Stage) -> None:
    stage.vendor.file_statuses = ["error"]
    stage.vendor.file_details = "line 3 is no JSON"
    with pytest.raises(DataError, match="line 3 is no JSON"):
        stage.upload("train.jsonl", CHAT_ROW * 10)


def test_file_that_is_looked_through_for_ever_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitune.backends.kit.hosted.FILE_SECONDS", 0.0)
    stage.vendor.file_statuses = ["pending"] * 9
    with pytest.raises(Unreachable, match="still being validated"):
        stage.upload("train.jsonl", CHAT_ROW * 10)
