"""Two clients in one process, each with its own ledger, keys and prices."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from vendors.openai.vendor import OpenAIVendor

import unitune
from unitune import Client, Data, Evaluate, Job, PriceEntry, Tuned, ZeroShot
from unitune.backends import registry
from unitune.backends.credentials import key_in
from unitune.cost.prices.book import book_for
from unitune.errors import JobError, NotFoundError, UserError
from unitune.security.redaction import redacted
from unitune.testing.loopback import Server, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune.workspace import user_settings
from unitune.workspace.home import artifacts, home, ledger_url
from unitune.workspace.user_config import Notify, UserConfig, write

SIDES = ("north", "south")
REPORT = """
import os, sys
with open(sys.argv[1], "a") as file:
    file.write(os.environ["UNITUNE_RUN"] + " " + os.environ["UNITUNE_DIR"] + "\\n")
"""


def key_of(side: str) -> str:
    return f"sk-of-the-{side}-0123456789"


def variables_of(client: Client) -> dict[str, Any]:
    """Return the settings that a client's functions see."""
    run: Callable[..., Any] = client._settings.run
    names = ("UNITUNE_DIR", "UNITUNE_LEDGER", "OPENAI_API_KEY")
    return {name: run(user_settings.variable, name) for name in names}


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    for name, count in (("train", 40), ("test", 20)):
        rows = (
            {"prompt": f"{name} question {number}", "completion": f"answer {number}"}
            for number in range(count)
        )
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        name="demo",
        model="tiny",
        backend="fake",
        data=Data(train="train.jsonl", test="test.jsonl"),
        evaluate=Evaluate(contenders=(ZeroShot(), Tuned())),
        folder=tmp_path,
    )


@pytest.fixture
def servers() -> Iterator[dict[str, Server]]:
    """Two accounts at a vendor, each with its own key."""
    with ExitStack() as stack:
        yield {
            side: stack.enter_context(serve(OpenAIVendor(ServerBehavior(), key=key_of(side))))
            for side in SIDES
        }


def keys_of(request_log: Server) -> set[str]:
    return {request.headers.get("authorization", "") for request in request_log.requests}


def test_two_threads_use_two_ledgers_and_two_keys(job: Job, servers: dict[str, Server]) -> None:
    together = threading.Barrier(len(SIDES))
    hosted = job.model_copy(update={"backend": "openai", "model": "gpt-4.1-mini-2025-04-14"})

    def work(side: str) -> tuple[Client, unitune.Run]:
        address = {"OPENAI_BASE_URL": f"{servers[side].url}/v1"}
        client = Client(home=side, keys={"openai": key_of(side), **address})
        together.wait()
        run = client.launch(hosted, budget=50)
        together.wait()
        run.wait(0.01)
        assert run.model.ask("train question 1")
        assert asyncio.run(run.model.reply("train question 2")).text
        assert "".join(run.model.stream("train question 3"))
        comparison = client.compare(hosted, run, allow_unpriced=True)
        assert [each.errors for each in comparison.contenders] == [0, 0]
        return client, run

    with ThreadPoolExecutor(len(SIDES)) as pool:
        done = dict(zip(SIDES, pool.map(work, SIDES), strict=True))
    for side, (client, run) in done.items():
        assert [each.id for each in client.runs()] == [run.id]
        assert len(client.comparisons()) == 1
        assert run.folder.is_relative_to(Path(side).absolute())
        assert keys_of(servers[side]) == {f"Bearer {key_of(side)}"}
    assert unitune.runs() == []
    backends = [client._settings.run(registry.backend, "openai") for client, _ in done.values()]
    assert backends[0] is not backends[1], "they keep what depends on the key, such as a project"


def test_what_a_client_returns_keeps_its_settings(job: Job) -> None:
    client = Client(home="north")
    run = client.launch(job)
    assert home() != Path("north").absolute()
    assert [event.kind for event in run.watch(0.001)]
    assert run.state is unitune.types.State.SUCCEEDED
    (version,) = (client.registry.register(run),)
    assert str(version) in run._repr_html_()
    found = client.find_run(str(version))
    assert (found.id, found.export.__name__) == (run.id, "export")
    assert [each.id for each in client.launch_sweep(job, allow_duplicate=True)] != [run.id]
    assert len(client.runs()) == 2
    assert unitune.runs() == []


def test_a_comparison_works_inside_a_running_event_loop(job: Job) -> None:
    client = Client(home="north")

    async def session() -> unitune.Comparison:
        run = client.launch(job).wait(0.001)
        assert (await run.model.reply("train question 1")).text
        return client.compare(job, run)

    comparison = asyncio.run(session())
    assert [each.id for each in client.comparisons()] == [comparison.id]
    assert comparison.folder is not None
    assert comparison.folder.is_relative_to(Path("north").absolute())
    assert not home().exists(), "the requests' thread has the client's settings"


def test_a_generator_that_is_left_early_restores_the_settings(job: Job) -> None:
    client = Client(home="north")
    events = client.launch(job).watch(0.001)
    next(events)
    assert user_settings.current() is not client._settings
    events.close()
    assert user_settings.current() is not client._settings


def test_a_clients_home_replaces_the_ledger_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNITUNE_LEDGER", "postgresql://here/ledger")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    folder = str(tmp_path / "north")
    assert variables_of(Client(home="north")) == {
        "UNITUNE_DIR": folder,
        "UNITUNE_LEDGER": "",
        "OPENAI_API_KEY": "sk-of-the-environment",
    }
    shared = Client(home="postgresql://there/ledger")
    assert shared._settings.run(ledger_url) == "postgresql://there/ledger"
    assert shared._settings.run(artifacts) == artifacts()
    assert ledger_url() == "postgresql://here/ledger"


def test_keys_are_given_by_backend_or_by_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "token-of-the-environment")
    client = Client(keys={"azure": "key-of-the-client", "LLM_KEY": "another-secret-key"})
    run: Callable[..., Any] = client._settings.run
    assert run(key_in, "AZURE_OPENAI_API_KEY") == "key-of-the-client"
    assert run(key_in, "AZURE_OPENAI_AD_TOKEN") is None, "it would be sent instead of the key"
    assert run(key_in, "LLM_KEY") == "another-secret-key"
    assert key_in("LLM_KEY") is None
    assert redacted("key-of-the-client another-secret-key") == "*** ***"
    assert "key" not in repr(client._settings)


@pytest.mark.parametrize(
    ("keys", "error", "why"),
    [
        ({"opanai": "x"}, NotFoundError, "Did you mean 'openai'"),
        ({"fake": "x"}, UserError, "has no single key"),
        ({"openai": "a\nb"}, UserError, "characters that are not allowed"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused(
    keys: dict[str, str], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        Client(keys=keys)


def test_prices_replace_the_users_own(job: Job, tmp_path: Path) -> None:
    entry = PriceEntry.model_validate({"backend": "openai", "training": "7.25", "source": "mine"})
    file = tmp_path / "own.yaml"
    file.write_text("prices: [{backend: openai, training: 8.5, source: mine}]\n", "utf-8")
    hosted = job.model_copy(update={"backend": "openai", "model": "gpt-4.1-mini-2025-04-14"})

    def price(client: Client | None) -> Decimal:
        run: Callable[..., Any] = client._settings.run if client else lambda call, *a: call(*a)
        rows = run(book_for, hosted).rows("openai")
        return next(row.usd for row in rows if row.kind == "training")

    listed = price(None)
    given = Decimal("7.25"), Decimal("8.5")
    assert (price(Client(prices=[entry])), price(Client(prices=file))) == given
    assert listed == price(None) != given[0]
    with pytest.raises(JobError, match="no such file"):
        Client(prices="none.yaml")


def test_a_child_process_gets_the_variables_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_LEDGER", "postgresql://elsewhere/ledger")
    client = Client(home="north", keys={"openai": key_of("north")})
    environment = client._settings.run(user_settings.environment)
    assert environment["UNITUNE_DIR"] == str(Path("north").absolute())
    assert environment["UNITUNE_LEDGER"] == ""
    assert environment["OPENAI_API_KEY"] == key_of("north")
    assert user_settings.environment() == dict(os.environ)


def test_a_users_program_is_told_the_clients_home(job: Job, tmp_path: Path) -> None:
    reports = tmp_path / "reports"
    command = (sys.executable, "-c", REPORT, str(reports))
    write(UserConfig(notify=Notify(command=command)))
    runs = {side: Client(home=side).launch(job).wait(0.001) for side in SIDES}
    expected = [f"{run.id} {Path(side).absolute()}" for side, run in runs.items()]
    assert reports.read_text("utf-8").splitlines() == expected


def test_a_client_shows_its_functions() -> None:
    client = Client()
    assert {"launch", "compare", "registry"} <= {*dir(client)}
    assert "promote" in dir(client.registry)
    assert client.launch.__doc__ == unitune.launch.__doc__
    with pytest.raises(AttributeError, match="no function 'promote'"):
        _ = client.promote
