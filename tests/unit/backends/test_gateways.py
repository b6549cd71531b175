"""Gateways' headers and query parameters, and keys that a command prints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from unitune.backends import credentials
from unitune.backends.credentials import gateway_for, key_in
from unitune.backends.kit.api import Api
from unitune.backends.kit.chat import open_server
from unitune.backends.kit.errors import Endpoint, Vendor
from unitune.errors import BackendError, UserError
from unitune.testing.contract_base import reply_once, stream_once
from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve
from unitune.workspace import user_config
from unitune.workspace.user_config import UserConfig

SECRET = "gateway-SECRET/1"  # noqa: S105 - of nobody
PRINT = "import pathlib; print(pathlib.Path({!r}).read_text())"


@dataclass
class Refusing:
    """Takes one key, and repeats what it was sent in a refusal."""

    key: str = "key-1"
    refuses: bool = False
    seen: list[VendorRequest] = field(default_factory=list[VendorRequest])

    def answer(self, asked: VendorRequest) -> VendorResponse:
        self.seen.append(asked)
        if asked.headers.get("authorization") != f"Bearer {self.key}":
            return VendorResponse({"error": {"message": "expired"}}, 401)
        if self.refuses:
            sent = f"you sent {dict(asked.headers)} and {dict(asked.query)}"
            return VendorResponse({"error": {"message": sent}}, 400)
        message = {"role": "assistant", "content": "hi"}
        return VendorResponse({"choices": [{"message": message, "finish_reason": "stop"}]})


@pytest.fixture(autouse=True)
def _configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(credentials, "_printed", {})


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(Refusing()) as served:
        yield served


def configure(**parts: Any) -> None:
    user_config.write(UserConfig.model_validate(parts))


def api_at(server: Server, key: Any = lambda: "key-1") -> Api:
    return Api(Endpoint(Vendor("mine"), f"{server.url}/v1", token=key))


def test_headers_and_query_go_with_launches_and_questions_to_their_origin_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = {"headers": {"x-gateway-key": "GATEWAY"}, "query": {"api-version": "VERSION"}}
    configure(gateways={server.url: added})
    monkeypatch.setenv("GATEWAY", SECRET)
    monkeypatch.setenv("VERSION", "2026-11-30")
    api_at(server).get("jobs", action="list", query={"limit": 2})
    api_at(server).post("jobs", action="create", body={})
    model = open_server(f"{server.url}/v1", "m", key=lambda: "key-1")
    assert reply_once(model).text == "hi"
    for asked in server.vendor.seen:
        assert asked.headers["x-gateway-key"] == SECRET
        assert asked.query["api-version"] == ["2026-11-30"]
    assert server.vendor.seen[0].query["limit"] == ["2"]
    assert gateway_for("http://127.0.0.1:1/v1").headers == {}


def test_a_gateways_header_replaces_the_key_of_the_same_name(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(gateways={server.url: {"headers": {"Authorization": "OTHER"}}})
    monkeypatch.setenv("OTHER", "Bearer key-1")
    api_at(server, lambda: "not this one").get("jobs", action="list")
    assert server.vendor.seen[0].headers["authorization"] == "Bearer key-1"


def test_values_of_a_gateway_are_in_no_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = {"headers": {"x-gateway-key": "GATEWAY"}, "query": {"sig": "SIGNED"}}
    configure(gateways={server.url: added})
    monkeypatch.setenv("GATEWAY", SECRET)
    monkeypatch.setenv("SIGNED", "signed-SECRET/2")
    server.vendor.refuses = True
    with pytest.raises(BackendError) as refused:
        api_at(server).get("jobs", action="list")
    model = open_server(f"{server.url}/v1", "m", key=lambda: "key-1")
    for words in (str(refused.value), reply_once(model).error or ""):
        assert "you sent" in words
        assert "SECRET" not in words
        assert "***" in words


@pytest.mark.parametrize(
    ("gateway", "variables", "says"),
    [
        ({"headers": {"x-key": "GATEWAY"}}, {}, "GATEWAY, which is not set"),
        ({"headers": {"x-key": "GATEWAY"}}, {"GATEWAY": "a\nb-SECRET"}, "not allowed in a header"),
        ({"headers": {"x-key": "GATEWAY"}}, {"GATEWAY": "ä-SECRET"}, "not allowed in a header"),
    ],
)
def test_what_cannot_be_sent_is_an_error_before_any_request(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    gateway: dict[str, Any],
    variables: dict[str, str],
    says: str,
) -> None:
    configure(gateways={server.url: gateway})
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=says) as refused:
        api_at(server)
    with pytest.raises(UserError, match=says):
        open_server(f"{server.url}/v1", "m")
    assert "SECRET" not in str(refused.value)
    assert server.vendor.seen == []


@pytest.mark.parametrize("name", ["x key", "x:key", "x\nkey", ""])
def test_a_parameter_has_a_name_that_can_be_sent(server: Server, name: str) -> None:
    with pytest.raises(ValueError, match="gateways"):
        configure(gateways={server.url: {"headers": {name: "GATEWAY"}}})


def test_a_configuration_holds_names_of_variables_and_no_values(server: Server) -> None:
    with pytest.raises(ValueError, match="environment variable") as refused:
        configure(gateways={server.url: {"headers": {"x-key": "sk-SECRET"}}})
    assert "name of an environment variable" in str(refused.value)


def printing(file: Path) -> list[str]:
    return [sys.executable, "-c", PRINT.format(str(file))]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("key-1\n")
    configure_command(file)
    return file


def configure_command(file: Path) -> None:
    configure(key_commands={"MY_KEY": printing(file)})


def current() -> str:
    return key_in("MY_KEY") or ""


def test_a_commands_key_is_printed_once_and_again_when_it_is_refused(
    server: Server, key_file: Path
) -> None:
    api = api_at(server, current)
    model = open_server(f"{server.url}/v1", "m", key=current)
    api.get("jobs", action="list")
    key_file.write_text("key-2")
    api.get("jobs", action="list")
    assert [asked.headers["authorization"] for asked in server.vendor.seen] == ["Bearer key-1"] * 2
    server.vendor.key = "key-2"
    api.post("jobs", action="create", body={"a": 1})
    assert server.vendor.seen[-1].json == {"a": 1}
    for number, ask in ((3, reply_once), (4, lambda chat: stream_once(chat)[-1])):
        key_file.write_text(f"key-{number}")
        server.vendor.key = f"key-{number}"
        assert ask(model).text == "hi"


@pytest.mark.usefixtures("key_file")
def test_a_refused_key_that_stays_the_same_is_sent_once(server: Server) -> None:
    server.vendor.key = "another"
    api = api_at(server, current)
    with pytest.raises(BackendError, match="expired"):
        api.post("jobs", action="create", body={})
    assert len(server.vendor.seen) == 1


def test_a_commands_key_is_printed_anew_when_it_is_old(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert current() == "key-1"
    key_file.write_text("key-2")
    monkeypatch.setattr(credentials, "KEY_SECONDS", 0.0)
    assert current() == "key-2"


@pytest.mark.usefixtures("key_file")
def test_the_environments_key_comes_before_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "of the environment")
    assert current() == "of the environment"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([sys.executable, "-c", "print('key-SECRET'); exit(3)"], "exited with 3"),
        ([sys.executable, "-c", "pass"], "printed nothing"),
        (["/nonexistent"], "could not be run: FileNotFoundError"),
        ([sys.executable, "-c", "print('key-SECRET'); print('more')"], "not allowed in a header"),
    ],
)
def test_a_command_that_prints_no_key_is_named(command: list[str], says: str) -> None:
    configure(key_commands={"MY_KEY": command})
    with pytest.raises(UserError, match=says) as failed:
        current()
    assert "MY_KEY" in str(failed.value)
    assert "SECRET" not in str(failed.value)
