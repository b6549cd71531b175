"""The end of a run is told once, by the user's own command or webhook, whatever becomes of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Command

from unitune.run import notifying
from unitune.run.handle import Run
from unitune.run.run import find_run, launch
from unitune.run.watching import tell_end, watch_all
from unitune.testing.loopback import VendorRequest, VendorResponse, serve
from unitune.workspace import user_config
from unitune.workspace.user_config import Notify, UserConfig

from .conftest import MakeJob

PROGRAM = """
import os, sys
with open(sys.argv[1], "a") as file:
    file.write(sys.stdin.read() + "\\n" + os.environ["UNITUNE_STATE"] + "\\n")
"""


@pytest.fixture(autouse=True)
def _own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def told(tmp_path: Path) -> Callable[[], list[str]]:
    """Configure a program that writes down what it is told, and return how to read that."""
    file = tmp_path / "told"
    command = (sys.executable, "-c", PROGRAM, str(file))
    user_config.write(UserConfig(notify=Notify(command=command)))
    return lambda: file.read_text().splitlines() if file.exists() else []


def warnings(run: Run) -> list[str]:
    return [str(event.data["text"]) for event in run.events() if event.kind == "warning"]


def test_a_program_gets_the_run(make_job: MakeJob, told: Callable[[], list[str]]) -> None:
    run = launch(make_job({})).wait()
    message, state = told()
    content = json.loads(message)
    assert ("run.ended", run.id, "succeeded") == (content["event"], content["run"], state)
    assert content["text"] == f"unitune: {run.name} ({run.id}) has succeeded on fake"
    assert warnings(run) == []


def test_two_who_watch_tell_it_once(make_job: MakeJob, told: Callable[[], list[str]]) -> None:
    """The ledger decides, and an end that was there before is no news."""
    run = launch(make_job({}))
    second = find_run(run.id)
    run.wait()
    second.wait()
    find_run(run.id).wait()
    assert len(told()) == 2


def test_who_has_already_seen_the_end_keeps_it_from_no_one(
    make_job: MakeJob, told: Callable[[], list[str]]
) -> None:
    """A look at a run tells of nothing; the process that trained it does, and once."""
    run = launch(make_job({}))
    while not run.refresh().state.ended:
        pass
    assert told() == []
    for _ in range(2):
        tell_end(run.id)
    assert len(told()) == 2


def test_all_who_watch_at_a_time_tell_it_once(
    make_job: MakeJob, told: Callable[[], list[str]]
) -> None:
    runs = [launch(make_job({}), allow_duplicate=True) for _ in range(3)]
    with ThreadPoolExecutor(12) as pool:
        ends = [pool.submit(tell_end, run.id) for run in runs for _ in range(3)]
        ends += [pool.submit(find_run(run.id).wait) for run in runs]
    assert [None] * len(ends) == [end.exception() for end in ends]
    assert sorted(run.id for run in runs) == sorted(json.loads(line)["run"] for line in told()[::2])


def test_a_program_gets_no_keys(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training's own process has none either, so that it is the same whoever tells."""
    monkeypatch.setenv("VENDOR_API_KEY", "secret")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/1000/bus")
    program = "import os, sys; open(sys.argv[1], 'w').write(repr(dict(os.environ)))"
    command = (sys.executable, "-c", program, str(tmp_path / "environment"))
    user_config.write(UserConfig(notify=Notify(command=command)))
    launch(make_job({})).wait()
    environment = (tmp_path / "environment").read_text()
    assert "secret" not in environment
    assert "unix:path=/run/user/1000/bus" in environment


def test_a_failed_run_says_why_and_its_next_attempt_is_news(
    make_job: MakeJob, told: Callable[[], list[str]]
) -> None:
    run = launch(make_job({"fail_at_step": 1}))
    for _ in run.watch():
        pass
    content = json.loads(told()[0])
    assert ("failed", run.error) == (content["state"], content["error"])
    assert content["text"].endswith(f"has failed on fake: {run.error}")


def test_who_watches_all_tells_of_each(make_job: MakeJob, told: Callable[[], list[str]]) -> None:
    launch(make_job({}))
    assert any(run.state.ended for run in watch_all(0.01))
    assert len(told()) == 2


class Webhook:
    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.bodies: list[dict[str, Any]] = []

    def answer(self, request: VendorRequest) -> VendorResponse:
        """Answer as Slack does: a word, and no JSON."""
        self.bodies.append(request.json)
        return VendorResponse(b"ok" if self.status == 200 else b"no_service", self.status)


def test_a_webhook_gets_json_with_a_text(make_job: MakeJob) -> None:
    webhook = Webhook()
    with serve(webhook) as server:
        address = f"{server.url}/services/T0/B0/secret"
        user_config.write(UserConfig(notify=Notify(webhook=address)))
        run = launch(make_job({})).wait()
    assert [body["run"] for body in webhook.bodies] == [run.id]
    assert run.id in webhook.bodies[0]["text"]


def test_a_notification_that_fails_is_a_warning_without_its_address(make_job: MakeJob) -> None:
    """The run has ended as it has; a webhook is sent nothing twice."""
    webhook = Webhook(404)
    with serve(webhook) as server:
        address = f"{server.url}/services/T0/B0/secret"
        command = ("no-such-program-here", "x")
        user_config.write(UserConfig(notify=Notify(command=command, webhook=address)))
        run = launch(make_job({})).wait()
    missing, refused = warnings(run)
    assert "notify.command 'no-such-program-here' cannot be run: No such file" in missing
    assert "notify.webhook could not take a notification: no_service (HTTP 404)" in refused
    assert "secret" not in refused
    assert len(webhook.bodies) == 1


def test_a_program_that_ends_with_an_error_says_so() -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('no display')")
    (problem,) = notifying.notification_problems(Notify(command=command), {"text": "x"})
    assert problem.endswith("ended with 1: no display.")


def test_a_configuration_that_is_not_valid_ends_no_run(make_job: MakeJob) -> None:
    run = launch(make_job({}))
    file = user_config.write(UserConfig())
    file.write_text("notify: {command: []}\n")
    assert run.wait().tuned_model is not None
    assert "notify.command" in warnings(run)[0]


def test_the_command_sends_a_test(unitune: Command, told: Callable[[], list[str]]) -> None:
    assert unitune("runs", "notify").out == "Sent.\n"
    assert json.loads(told()[0])["run"] == "test"
    user_config.write(UserConfig())
    failed = unitune("runs", "notify")
    assert failed.code == 2
    assert "has no `notify`" in failed.err


def test_keys_are_written_beside_it(unitune: Command, told: Callable[[], list[str]]) -> None:
    assert unitune("keys", "allow", "https://llm.example.com", "LLM_API_KEY").code == 0
    assert user_config.read().notify is not None
    assert told() == []
