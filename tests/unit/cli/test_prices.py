"""`unitune prices`: what is known, how old it is, and a refresh that asks before it writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import chat_row, write_job, write_rows
from vendors.prices import HardwareList

from unitune.testing.loopback import serve
from unitune.workspace.install import install_command


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    machines = [
        {"name": name, "prettyName": name, "unitCostMicroUSD": micros, "unitLabel": "minute"}
        for name, micros in (("h200", 75_000), ("a10g-small", 16_667), ("b300", 150_000))
    ]
    with serve(HardwareList(machines)) as server:  # pyright: ignore[reportArgumentType] - JSON
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITUNE_TODAY", "2026-11-25")


def test_all_backends_are_listed_with_the_age_of_their_oldest_price(unitune: Command) -> None:
    out = unitune("prices").out
    lines = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line.strip()}
    assert lines["together"].endswith("201 days its own page, third parties")
    assert "no launch from here yet" in lines["prime-intellect"]
    assert "none closed by 2025-09-15" in lines["cohere"]
    assert "none no charge for training" in lines["local"]


def test_one_backend_is_shown_with_every_source(unitune: Command) -> None:
    out = unitune("prices", "together").out
    assert "api-evangelist/together-ai" in out
    assert "2026-05-08, 201 days, too old to rely on · third parties" in out
    assert "Qwen/Qwen3.5-9B" in out


@pytest.mark.parametrize("width", ["80", "120"])
def test_no_line_is_wider_than_the_terminal(
    unitune: Command, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    for arguments in ((), ("azure",), ("fireworks",), ("together",)):
        lines = unitune("prices", *arguments).out.splitlines()
        assert max(map(len, lines)) <= int(width), arguments


def test_json_has_every_row_with_its_id_age_and_origin(unitune: Command, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(
        "prices: [{backend: openai, model: gpt-4o-mini-2024-07-18, training: 2.40}]\n"
    )
    found = json.loads(unitune("prices", "openai", "--json").out)
    assert (found["schema_version"], found["day"]) == (1, "2026-11-25")
    training = [
        view
        for view in found["backends"][0]["prices"]
        if view["price"]["kind"] == "training" and "4o-mini" in view["price"]["model"]
    ]
    told = [
        (view["price"]["origin"], view["price"]["usd"], view["freshness"], view["overridden"])
        for view in training
    ]
    assert told == [("project", "2.40", "fresh", False), ("offer", "3.00", "old", True)]
    assert all(view["price"]["id"].startswith(view["price"]["origin"]) for view in training)


def test_a_price_on_the_command_line_wins_in_a_plan(unitune: Command, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", (chat_row(f"{number}?", "yes") for number in range(60)))
    write_job(tmp_path, model="gpt-4o-mini", backend="openai")
    out = unitune("plan", "unitune.yaml", "--price", "training=1234.50").out
    assert "1234.50" in out
    assert "given on the command line" in out
    wrong = unitune("plan", "unitune.yaml", "--price", "training=cheap")
    assert (wrong.code, "Write KIND=USD" in wrong.err) == (2, True)


def test_an_unknown_backend_is_refused(unitune: Command) -> None:
    found = unitune("prices", "opnai")
    assert found.code == 2
    assert "Did you mean 'openai'?" in found.err


@pytest.mark.usefixtures("hub")
def test_a_refresh_shows_the_difference_and_writes_nothing_unasked(
    unitune: Command, tmp_path: Path
) -> None:
    found = unitune("prices", "refresh", "hf-jobs")
    assert found.code == 0
    assert "2 changed or new, 1 confirmed." in found.out
    assert "$5.00 an hour" in found.out
    assert "$4.50 an hour" in found.out
    assert "Nothing was written" in found.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("hub")
def test_a_refresh_that_is_agreed_to_writes_the_projects_file(
    unitune: Command, tmp_path: Path
) -> None:
    assert "Written to prices.yaml" in unitune("prices", "refresh", "hf-jobs", "--yes").out
    again = json.loads(unitune("prices", "refresh", "hf-jobs", "--json").out)
    assert (False, {False}) == (
        again["written"],
        {one["before"] != one["after"] for one in again["changes"]},
    )
    listed = json.loads(unitune("prices", "hf-jobs", "--json").out)
    machine = next(
        view["price"]
        for view in listed["backends"][0]["prices"]
        if view["price"]["tier"] == "h200" and not view["overridden"]
    )
    assert (
        machine["origin"],
        machine["usd"],
        machine["as_of"],
    ) == ("project", "4.50", "2026-11-25")
    assert [one.name for one in tmp_path.iterdir()] == ["prices.yaml"]


@pytest.mark.usefixtures("hub")
def test_a_refresh_writes_the_users_file_when_told_to(
    unitune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    unitune("prices", "refresh", "hf-jobs", "--yes", "--user")
    assert (tmp_path / "home" / "unitune" / "prices.yaml").exists()
    assert not (tmp_path / "prices.yaml").exists()


@pytest.fixture
def _silent_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("OPENAI_API_KEY", "TOGETHER_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("AZURE_RETAIL_PRICES_URL", "http://127.0.0.1:1/api/retail/prices")
    monkeypatch.setattr("unitune.backends.retry.sleep", lambda _: None)


@pytest.mark.usefixtures("hub", "_silent_vendors")
def test_a_refresh_of_all_goes_on_past_who_cannot_be_asked(unitune: Command) -> None:
    found = unitune("prices", "refresh")
    assert found.code == 0
    assert "azure could not be read" in found.out
    assert "OPENAI_API_KEY" in found.out or install_command("openai") in found.out
    assert "2 changed or new, 1 confirmed." in found.out


@pytest.mark.usefixtures("_silent_vendors")
def test_a_refresh_in_which_nobody_answers_fails(
    unitune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    found = unitune("prices", "refresh")
    assert found.code == 4
    assert "hf-jobs could not be read" in found.err


def test_who_tells_nothing_by_machine_is_refused(unitune: Command) -> None:
    found = unitune("prices", "refresh", "vertex")
    assert found.code == 2
    assert "azure, bedrock, hf-jobs, mantle, openai, together" in found.err
