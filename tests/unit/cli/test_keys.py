"""Where keys go, by the command line: to nobody that a job names unless the user has allowed it.

For every kind of thing that is asked by an address, whoever names it, a job or the environment: no
redirect takes a key or a question to another server, and a server that repeats whatever it was sent
finds no key of it in any file or on the terminal.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Command, Outcome
from support.job_files import recorded, write_rows

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("anthropic", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from unitune.testing.loopback import Server, VendorRequest, VendorResponse, serve
from unitune.workspace.user_settings import current
from unitune_providers.vertex import cloud

SECRET = "sk-REAL/SECRET+0123456789abcdef"  # noqa: S105 - of nobody
CREDENTIALS = re.compile(r"authorization|key|token", re.IGNORECASE)
MESSAGE = {"role": "assistant", "content": "Paris"}
ANSWER: dict[str, Any] = {
    # OpenAI and those that speak its wire, Anthropic, Vertex AI, Bedrock: each reads its own part.
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Paris"}],
    "stop_reason": "end_turn",
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Paris"}]}}],
    "output": {"message": {"role": "assistant", "content": [{"text": "Paris"}]}},
    "stopReason": "end_turn",
    "metrics": {"latencyMs": 1},
}


@dataclass
class Vendor:
    """Answers rightly, or points elsewhere, or complains with all that it was sent."""

    status: int = 200
    elsewhere: str = ""
    seen: list[VendorRequest] = field(default_factory=list[VendorRequest])

    def answer(self, asked: VendorRequest) -> VendorResponse:
        self.seen.append(asked)
        if 300 <= self.status < 400:
            return VendorResponse(
                ANSWER, self.status, {"location": f"{self.elsewhere}{asked.path}"}
            )
        if self.status >= 400:
            sent = "; ".join(f"{name}: {value}" for name, value in asked.headers.items())
            words = f"You sent {sent}"
            return VendorResponse({"error": {"message": words}, "message": words}, self.status)
        return VendorResponse(ANSWER)

    @property
    def keys(self) -> list[str]:
        """The values of all headers with credentials that arrived."""
        sent = [asked.headers.items() for asked in self.seen]
        return [value for items in sent for name, value in items if CREDENTIALS.search(name)]


@dataclass
class Stage:
    """A folder with a job, a server that the job or the environment names, and another one."""

    folder: Path
    vendor: Vendor
    server: Server
    other: Server
    unitune: Command

    def compare(self, job: str) -> Outcome:
        file = self.folder / "unitune.yaml"
        file.write_text(job, encoding="utf-8")
        return self.unitune("compare", "unitune.yaml", "--output", "out", "--allow-unpriced")

    def everything(self, done: Outcome) -> dict[str, str]:
        """Return all that was written and printed."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        told = {str(path): path.read_bytes().decode(errors="replace") for path in files}
        return {**told, "stdout": done.out, "stderr": done.err}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unitune: Command) -> Iterator[Stage]:
    rows = [{"prompt": f"{at * 7919}?", "completion": "Paris", "id": f"c{at}"} for at in range(3)]
    answers = [{"case": f"c{at}", "answer": "Rome" if at else "Paris"} for at in range(3)]
    train = [{"prompt": f"train {at * 31}?", "completion": "yes"} for at in range(80)]
    for name, lines in {"test": rows, "answers": answers, "train": train}.items():
        write_rows(tmp_path / f"{name}.jsonl", lines)
    for name in list(os.environ):
        if re.match(r"(OPENAI|AZURE|AWS|TOGETHER|ANTHROPIC|NEBIUS|GOOGLE)_", name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.setenv("LLM_API_KEY", SECRET)
    monkeypatch.setattr("unitune.backends.retry.sleep", lambda _seconds: None)
    monkeypatch.setattr(cloud, "STAND_IN_TOKEN", f"ya29.{SECRET}")
    vendor = Vendor()
    with ExitStack() as stack:
        server, other = (stack.enter_context(serve(each)) for each in (vendor, Vendor()))
        vendor.elsewhere = other.url.replace("127.0.0.1", "localhost")
        current().backends.clear()
        yield Stage(tmp_path, vendor, server, other, unitune)
        current().backends.clear()


def job(*contenders: Mapping[str, Any], scorers: Any = ("exact",), **more: Any) -> str:
    evaluate = {"scorers": scorers, "contenders": [recorded("a", "baseline"), *contenders]}
    told = {"name": "demo", "model": "x", "backend": "local", "data": {"test": "test.jsonl"}}
    return json.dumps({**told, "evaluate": evaluate, **more})


def asked(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "role": "candidate", "model": "m", "prompt": "zero-shot", **more}


def named_by_job(kind: str, url: str, variable: str | None = "LLM_API_KEY") -> str:
    """Return a job that wants something asked at an address."""
    if kind == "server":
        return job(asked("server", url=url, api_key_variable=variable))
    return job(asked("model", backend="openai", model=f"m@{url}"))


BY_JOB = ["server", "openai-id"]
BY_ENVIRONMENT = {
    "openai": {"OPENAI_BASE_URL": "/v1", "OPENAI_API_KEY": SECRET},
    "azure": {"AZURE_OPENAI_ENDPOINT": "/openai/v1", "AZURE_OPENAI_API_KEY": SECRET},
    "nebius": {"NEBIUS_BASE_URL": "/v1", "NEBIUS_API_KEY": SECRET},
    "mantle": {"AWS_BEDROCK_BASE_URL": "/v1", "AWS_BEARER_TOKEN_BEDROCK": SECRET},
    "together": {"TOGETHER_BASE_URL": "", "TOGETHER_API_KEY": SECRET},
    "anthropic": {"ANTHROPIC_BASE_URL": "", "ANTHROPIC_API_KEY": SECRET},
    "vertex": {
        "UNITUNE_VERTEX_BASE_URL": "",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GOOGLE_CLOUD_LOCATION": "us-central1",
    },
    "bedrock": {
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "",
        "AWS_ACCESS_KEY_ID": "AKIA0123456789",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    },
}
EVERY_KIND = [*BY_JOB, *BY_ENVIRONMENT]
ADDRESSES = ("_BASE_URL", "_ENDPOINT", "_RUNTIME")


def prepared(stage: Stage, kind: str, patch: pytest.MonkeyPatch) -> str:
    """Return a job of a kind, with all that it needs allowed and set."""
    if kind in BY_JOB:
        patch.setenv("UNITUNE_ALLOW_KEYS", f"LLM_API_KEY@{stage.server.url}")
        return named_by_job(kind, f"{stage.server.url}/v1")
    for name, value in BY_ENVIRONMENT[kind].items():
        patch.setenv(name, f"{stage.server.url}{value}" if name.endswith(ADDRESSES) else value)
    return job(asked("model", backend=kind))


def in_one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("kind", BY_JOB)
def test_a_key_is_sent_to_an_address_of_a_job_once_the_user_has_allowed_the_pair(
    stage: Stage, kind: str
) -> None:
    refused = stage.compare(named_by_job(kind, f"{stage.server.url}/v1"))
    assert refused.code == 2, refused.err
    assert stage.vendor.seen == []
    said = in_one_line(refused.err)
    assert "which you have not allowed" in said
    command = re.search(r"`unitune (keys allow \S+ \S+)`", said)
    assert command, said
    words = [word.replace("VARIABLE", "LLM_API_KEY") for word in command[1].split()]
    assert words == ["keys", "allow", stage.server.url, "LLM_API_KEY"]
    assert stage.unitune(*words).code == 0
    done = stage.compare(named_by_job(kind, f"{stage.server.url}/v1"))
    assert done.code in (0, 3), done.err
    assert set(stage.vendor.keys) == {f"Bearer {SECRET}"}


@pytest.mark.parametrize("kind", BY_JOB)
def test_another_key_port_or_scheme_is_another_pair(
    stage: Stage, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "sk-OTHER-SECRET")
    port = stage.server.url.rpartition(":")[2]
    for place in ("http://127.0.0.1", f"https://127.0.0.1:{port}", f"http://localhost:{port}"):
        assert stage.unitune("keys", "allow", place, "LLM_API_KEY").code == 0
    if kind != "openai-id":  # which takes whatever key is allowed
        assert stage.unitune("keys", "allow", stage.server.url, "OTHER_KEY").code == 0
    refused = stage.compare(named_by_job(kind, f"{stage.server.url}/v1"))
    assert (refused.code, stage.vendor.seen) == (2, []), refused.err


@pytest.mark.parametrize("kind", BY_JOB)
def test_nobody_else_is_asked_before_a_key_is_refused(
    stage: Stage, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{stage.other.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    told = json.loads(named_by_job(kind, f"{stage.server.url}/v1"))
    first = asked("model", backend="openai", name="first", role="baseline")
    told["evaluate"]["contenders"].insert(0, first)
    refused = stage.compare(json.dumps(told))
    assert refused.code == 2, refused.err
    assert (stage.vendor.seen, stage.other.requests) == ([], [])


def test_check_and_plan_say_that_a_key_is_not_allowed(stage: Stage) -> None:
    told = json.loads(named_by_job("server", f"{stage.server.url}/v1"))
    told |= {"model": "smollm2-135m-instruct"}
    told["data"]["train"] = "train.jsonl"
    (stage.folder / "unitune.yaml").write_text(json.dumps(told), encoding="utf-8")
    for command in ("check", "plan"):
        done = stage.unitune(command, "unitune.yaml")
        assert f"unitune keys allow {stage.server.url} LLM_API_KEY" in in_one_line(done.out)
    assert stage.vendor.seen == []


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_training_is_sent_to_no_server_of_a_job_without_a_word_of_the_user(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    told = json.loads(job(recorded("b", "candidate")))
    told |= {"model": "gpt-4.1-mini-2025-04-14", "backend": "openai"}
    told["data"] = {"train": "train.jsonl"}
    told["options"] = {"openai": {"base_url": f"{stage.server.url}/v1"}}
    (stage.folder / "unitune.yaml").write_text(json.dumps(told), encoding="utf-8")
    more = ["--allow-unpriced"] if command == "run" else []
    done = stage.unitune(command, "unitune.yaml", *more)
    assert (done.code, stage.vendor.seen) == (2, []), done.err
    assert f"unitune keys allow {stage.server.url} VARIABLE" in in_one_line(done.out + done.err)


@pytest.mark.parametrize("status", [302, 307])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_no_redirect_takes_a_key_or_a_question_elsewhere(
    stage: Stage, kind: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.vendor.status = status
    done = stage.compare(prepared(stage, kind, monkeypatch))
    assert stage.other.requests == []
    assert stage.vendor.seen
    assert done.code == 4, done.err
    if kind != "bedrock":  # AWS's SDK says no more than the status
        assert "redirects are not followed" in in_one_line(done.err)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_server_that_repeats_what_it_was_sent_puts_no_key_anywhere(
    stage: Stage, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.vendor.status = 401
    done = stage.compare(prepared(stage, kind, monkeypatch))
    assert done.code == 4, done.err
    assert any(SECRET in value for value in stage.vendor.keys), "it was sent, so it can be repeated"
    told = stage.everything(done)
    assert "You sent" in "".join(told.values())
    forms = (SECRET, SECRET[:20], base64.b64encode(SECRET.encode()).decode()[:-2])
    assert [place for place, text in told.items() for form in forms if form in text] == []


HIDDEN = ["user:PW-SECRET@", "PW-SECRET@"]


@pytest.mark.parametrize("where", [*HIDDEN, "?key=PW-SECRET", "#PW-SECRET"])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated(
    stage: Stage, kind: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{stage.server.url}/v1"
    url = url.replace("://", f"://{where}") if where in HIDDEN else url + where
    if kind in BY_JOB:
        text = named_by_job(kind, url, None)
    else:
        text = prepared(stage, kind, monkeypatch)
        name = next(name for name in BY_ENVIRONMENT[kind] if name.endswith(ADDRESSES))
        monkeypatch.setenv(name, url)
    done = stage.compare(text)
    assert (done.code, stage.vendor.seen) == (2, []), done.err
    (stage.folder / "unitune.yaml").unlink()
    places = [place for place, told in stage.everything(done).items() if "SECRET" in told]
    assert places == []


@pytest.mark.parametrize("where", [*HIDDEN, "?key=PW-SECRET"])
@pytest.mark.parametrize("command", ["check", "plan"])
def test_an_option_with_a_secret_in_its_address_is_refused_and_not_repeated(
    stage: Stage, where: str, command: str
) -> None:
    url = f"{stage.server.url}/v1"
    url = url.replace("://", f"://{where}") if where in HIDDEN else url + where
    told = json.loads(job(recorded("b", "candidate"), options={"openai": {"base_url": url}}))
    (stage.folder / "unitune.yaml").write_text(json.dumps(told), encoding="utf-8")
    done = stage.unitune(command, "unitune.yaml", "--json")
    assert done.code == 2
    assert "SECRET" not in done.out + done.err


@pytest.mark.parametrize("kind", ["openai-id", "azure", "nebius", "mantle"])
def test_headers_meant_for_openai_are_sent_to_nobody_else(
    stage: Stage, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = prepared(stage, kind, monkeypatch)
    for variable in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, "GATE-SECRET")
    stage.compare(text)
    assert any(SECRET in value for value in stage.vendor.keys)
    sent = [value for asked in stage.vendor.seen for value in asked.headers.values()]
    assert [value for value in sent if "GATE-SECRET" in value] == []


def test_what_is_allowed_is_listed_and_taken_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "https://llm.example.com"
    assert stage.unitune("keys", "allow", "https://LLM.example.com:443/v1", "LLM_API_KEY").code == 0
    monkeypatch.setenv("UNITUNE_ALLOW_KEYS", "CI_KEY@http://127.0.0.1:8000, B@https://b.example")
    listed = json.loads(stage.unitune("keys", "--json").out)["keys"]
    file = str(stage.folder / "config/unitune/config.yaml")
    assert listed == [
        {"address": place, "variable": "LLM_API_KEY", "source": file},
        {"address": "http://127.0.0.1:8000", "variable": "CI_KEY", "source": "UNITUNE_ALLOW_KEYS"},
        {"address": "https://b.example", "variable": "B", "source": "UNITUNE_ALLOW_KEYS"},
    ]
    assert place in stage.unitune("keys").out
    assert stage.unitune("keys", "remove", place, "OTHER").code == 2
    assert stage.unitune("keys", "remove", place).code == 0
    assert place not in stage.unitune("keys").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("https://u:SECRET@x.example", "A"), "user name or password"),
        (("x.example", "A"), "is not an address"),
        (("https://x.example", "sk-SECRET"), "name of an environment variable"),
    ],
)
def test_a_permission_that_makes_no_sense_is_refused_and_repeats_no_secret(
    stage: Stage, words: tuple[str, str], told: str
) -> None:
    done = stage.unitune("keys", "allow", *words)
    assert done.code == 2
    assert told in in_one_line(done.err)
    assert "SECRET" not in done.err


def test_permissions_of_the_environment_that_cannot_be_read_are_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in ("sk-SECRET@https://x.example", "A@SECRET@x", "A@https://x.example?SECRET", "A"):
        monkeypatch.setenv("UNITUNE_ALLOW_KEYS", f"B@https://b.example {wrong}")
        done = stage.unitune("keys")
        assert done.code == 2
        assert "entry 2 of UNITUNE_ALLOW_KEYS" in in_one_line(done.err)
        assert "SECRET" not in done.err


def test_no_file_of_the_folder_allows_anything(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a committed configuration nor a relative XDG_CONFIG_HOME is the user's word."""
    text = f"keys:\n  {stage.server.url}: [LLM_API_KEY]\n"
    for place in ("unitune", ".config/unitune", ".unitune", "conf/unitune"):
        (stage.folder / place).mkdir(parents=True)
        (stage.folder / place / "config.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("HOME", str(stage.folder / "me"))
    for named in ("", "conf", "./conf", "."):
        monkeypatch.setenv("XDG_CONFIG_HOME", named)
        assert stage.compare(named_by_job("server", f"{stage.server.url}/v1")).code == 2
    assert stage.vendor.seen == []
