"""`unitune serve`: which model, at which address, for whom, and what it prints."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")

from support.command_line import Command
from support.job_files import trained_run
from support.served import wait_until
from support.tiny_model import save_tiny_model
from support.warm import WarmPopen

from unitune.backends import registry
from unitune.backends.capabilities import ServerSettings
from unitune.models import TunedModel
from unitune.testing.fake import FakeBackend


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | TunedModel, ServerSettings]]:
    """Record what is served instead of serving it."""
    calls: list[tuple[str | TunedModel, ServerSettings]] = []

    class Serving(FakeBackend):
        def serve(
            self,
            model: str | TunedModel,
            settings: ServerSettings,
            announce: Callable[[str], None],
        ) -> None:
            calls.append((model, settings))
            announce("http://127.0.0.1:8000/v1")

    monkeypatch.setattr(registry, "backend", lambda _: Serving())
    return calls


@pytest.fixture
def run(unitune: Command, tmp_path: Path) -> str:
    return trained_run(unitune, tmp_path, system="Answer in one word's length.")


def test_a_run_is_served_under_its_id_with_an_example_that_can_be_copied(
    unitune: Command, served: Any, run: str
) -> None:
    done = unitune("serve", run[:5])
    ((model, settings),) = served
    assert isinstance(model, TunedModel)
    assert ServerSettings(run, "127.0.0.1", 8000) == settings
    assert done.out == "http://127.0.0.1:8000/v1\n"
    (body,) = [line for line in done.err.splitlines() if line.startswith("  -d ")]
    sent = json.loads(shlex.split(body)[1])
    assert run == sent["model"]
    assert sent["messages"][0]["content"] == "Answer in one word's length."
    assert "send the same" in done.err


def test_a_registered_version_is_served_under_the_name_that_stays(
    unitune: Command, served: Any, run: str
) -> None:
    promoted = unitune(
        "models", "promote", run, "--as", "production", "--without-gate", "a first try"
    )
    assert promoted.code == 0, promoted.err
    unitune("serve", "demo@production")
    ((model, settings),) = served
    assert isinstance(model, TunedModel)
    assert settings.name == "demo@production"


def test_a_folder_is_served_under_its_name(unitune: Command, served: Any, tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    unitune("serve", "models/mine/", "--port", "0", "--host", "::1")
    assert served == [("models/mine/", ServerSettings("mine", "::1", 0))]


def test_a_model_that_is_not_here_is_named_with_what_is(unitune: Command, served: Any) -> None:
    failed = unitune("serve", "r1234")
    assert (failed.code, served) == (2, [])
    assert "no run or base model" in failed.err
    assert "unitune models pull" in failed.err


def test_a_run_whose_backend_serves_itself_is_refused(unitune: Command, run: str) -> None:
    failed = unitune("serve", run)
    assert failed.code == 2
    assert "fake, which serves it" in failed.err


@pytest.mark.parametrize("host", ["192.168.1.7", "::", "example.com"])
def test_beyond_this_machine_there_must_be_a_key(unitune: Command, served: Any, host: str) -> None:
    failed = unitune("serve", "--host", host)
    assert (failed.code, served) == (2, [])
    assert "--key-env" in failed.err


@pytest.mark.parametrize(("value", "words"), [("", "unset"), ("ключ", "a header")])
def test_a_key_must_be_one(
    unitune: Command, monkeypatch: pytest.MonkeyPatch, served: Any, value: str, words: str
) -> None:
    monkeypatch.setenv("SERVE_KEY", value)
    failed = unitune("serve", "--key-env", "SERVE_KEY")
    assert (failed.code, served) == (2, [])
    assert words in failed.err


def test_a_key_is_read_from_the_environment_and_never_printed(
    unitune: Command, monkeypatch: pytest.MonkeyPatch, served: Any, run: str
) -> None:
    monkeypatch.setenv("SERVE_KEY", "sesame-open")
    done = unitune("serve", run, "--host", "::", "--key-env", "SERVE_KEY")
    ((_, settings),) = served
    assert settings.key == "sesame-open"
    assert "$SERVE_KEY" in done.err
    assert "sesame" not in done.out + done.err + repr(settings)


def test_a_port_that_is_taken_is_an_error_before_anything_is_loaded(
    unitune: Command, tmp_path: Path
) -> None:
    model = save_tiny_model(tmp_path / "tiny")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = unitune("serve", str(model), "--port", port)
    assert failed.code == 2
    assert f"port {port}" in failed.err
    assert "--port" in failed.err


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
def test_a_signal_ends_the_server_and_no_stream_in_the_middle(
    tmp_path: Path, guarded_environment: dict[str, str], signals: list[int]
) -> None:
    """After one, answers that have begun come whole; after two, they are told why they end."""
    openai = pytest.importorskip("openai", reason="needs the extra `dev`")
    model = save_tiny_model(tmp_path / "tiny")
    output = tmp_path / "output"
    with output.open("w") as stdout:
        process = WarmPopen(
            [sys.executable, "-m", "unitune", "serve", str(model), "--port", "0"],
            cwd=tmp_path,
            env={**guarded_environment, "OMP_NUM_THREADS": "1"},
            stdout=stdout.fileno(),
        )
    wait_until(lambda: output.read_text().endswith("/v1\n"))
    with openai.OpenAI(base_url=output.read_text().strip(), api_key="none") as client:
        stream = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "x"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        parts = [next(stream), next(stream)]
        for number in signals:
            os.kill(process.pid, number)
        if len(signals) == 1:
            parts += list(stream)
            assert parts[-1].usage.total_tokens == 512
        else:
            with pytest.raises(openai.APIError, match="shutting down"):
                parts += list(stream)
    assert process.wait(timeout=30) == 0
