"""`unitune mcp` as the SDK's own client drives it over stdio, with OpenAI's double behind it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_line import Command

pytest.importorskip("mcp", reason="needs the extra `mcp`")

from mcp import Client, StdioServerParameters, stdio_client
from vendors.serving import ServedVendor, serve_vendor

from unitune.evaluate.documents.results import Comparison
from unitune.planning.plan import Plan
from unitune.testing.contract_base import ROWS
from unitune.testing.loopback import Fault

READING = ["check", "plan", "runs", "show", "comparisons", "decide", "cost", "schema"]
LAUNCHING = ["run", "compare", "cancel"]
Talk = Callable[[Client], Awaitable[Any]]
Arguments = dict[str, Any]


@dataclass
class Project:
    """A folder with a job for OpenAI's double."""

    folder: Path
    vendor: ServedVendor
    environment: dict[str, str]

    def save(self, **changes: Any) -> None:
        job = {
            "version": 1,
            "name": "colours",
            "model": self.vendor.setup.model,
            "backend": "openai",
            "data": {"train": "train.jsonl", "test": "test.jsonl"},
            "evaluate": {"scorers": ["exact"], "contenders": ["tuned", "zero-shot"]},
        }
        (self.folder / "unitune.yaml").write_text(yaml.safe_dump(job | changes))

    def talk(self, talk: Talk, *options: str) -> Any:
        """Start a server with options and talk to it."""
        command = ["-m", "unitune", "mcp", *options]
        server = StdioServerParameters(
            command=sys.executable, args=command, env=self.environment, cwd=self.folder
        )

        async def run() -> Any:
            async with Client(stdio_client(server)) as client:
                return await talk(client)

        return asyncio.run(run())

    @property
    def jobs(self) -> int:
        """Create calls that the vendor has received."""
        return len(self.vendor.server.received("POST", self.vendor.setup.create))


@pytest.fixture
def project(tmp_path: Path, guarded_environment: dict[str, str]) -> Iterator[Project]:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(ROWS) * 20)
    cases = [
        {"messages": [{"role": "user", "content": f"Name colour {n}."},
                      {"role": "assistant", "content": "red"}]}
        for n in range(6)
    ]  # fmt: skip
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, cases)))
    with serve_vendor("openai") as vendor:
        own = {
            "UNITUNE_DIR": str(tmp_path / "home"),
            "UNITUNE_TODAY": "2026-11-30",
            "OPENAI_BASE_URL": f"{vendor.server.url}/v1",
            "OPENAI_API_KEY": str(vendor.server.vendor.key),  # pyright: ignore[reportAttributeAccessIssue]
            "CI": "1",
        }
        made = Project(folder, vendor, {**guarded_environment, **own})
        made.save()
        yield made


async def call(client: Client, tool: str, **arguments: Any) -> Arguments:
    """Return the structured content of a successful call."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    """Return the text of a refused call."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.structured_content
    return str(getattr(result.content[0], "text", ""))


def test_a_server_without_a_budget_reads_only(project: Project, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text(ROWS[0])
    (project.folder / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")

    async def talk(client: Client) -> None:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == READING
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        plan = await call(client, "plan")
        assert len(plan.pop("plan_hash")) == 64
        assert Plan.model_validate(plan).errors == ()
        assert (await call(client, "check"))["schema_version"] == 1
        assert (await call(client, "check", file="train.jsonl"))["schema_version"] == 1
        assert (await call(client, "runs")) == {"schema_version": 1, "runs": []}
        assert (await call(client, "comparisons"))["comparisons"] == []
        assert (await call(client, "cost"))["backends"]
        assert (await call(client, "decide"))["conclusion"]
        assert (await call(client, "schema", name="plan"))["$id"] == "urn:unitune:plan:1"
        assert "Unknown tool: run" in await refused(client, "run", plan_hash="x")
        assert "exit code 2" in await refused(client, "show")
        for name in ("../secret.jsonl", "link.jsonl", str(tmp_path / "secret.jsonl")):
            assert "outside the project folder" in await refused(client, "check", file=name)
        own = {"train": "train.jsonl", "test": "test.jsonl"}
        scorers = ["exact", {"type": "python", "function": "../checks.py:good"}]
        for named, key, job in (
            ("../secret.jsonl", "data", {**own, "train": "../secret.jsonl"}),
            ("../chat.jinja", "data", {**own, "chat_template": "../chat.jinja"}),
            ("link.jsonl", "data", {**own, "train": "l*.jsonl"}),
            ("../checks.py", "evaluate", {"scorers": scorers}),
            ("../a.jsonl", "evaluate", {"gate": {"mode": "no-regress", "baseline": "../a.jsonl"}}),
        ):
            project.save(**{key: job})
            assert f"{named}' is outside" in await refused(client, "plan")

    project.talk(talk)
    assert project.vendor.server.requests == []


def test_a_launch_needs_the_hash_of_the_current_plan_and_budget(project: Project) -> None:
    async def talk(client: Client) -> None:
        assert [tool.name for tool in (await client.list_tools()).tools] == READING + LAUNCHING
        plan = await call(client, "plan")
        most = float(plan["estimate"]["lines"][0]["usd"]["high"])
        assert 0 < most < 5
        assert "exit code 5" in await refused(client, "run", plan_hash="0" * 64)
        project.save(tuning={"epochs": 2})
        changed = await refused(client, "run", plan_hash=plan["plan_hash"])
        assert "the plan of unitune.yaml has changed" in changed
        project.save()
        assert project.jobs == 0
        launched = await call(client, "run", plan_hash=plan["plan_hash"])
        (run,) = launched["runs"]
        assert float(launched["budget_used_usd"]) >= most
        again = await call(client, "run", plan_hash=plan["plan_hash"])
        assert [each["id"] for each in again["runs"]] == [run["id"]]
        assert again["budget_used_usd"] == launched["budget_used_usd"]
        assert project.jobs == 1
        while (await call(client, "show", run=run["id"]))["state"] != "succeeded":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        verdict = await call(client, "compare", plan_hash=plan["plan_hash"], run=run["id"])
        names = {*Comparison.model_fields} - {"cases", "folder"}
        assert names <= {*verdict}
        assert verdict["run"] == run["id"]
        spent = float(launched["budget_used_usd"]) + float(verdict["spent_usd"])
        assert float(verdict["budget_used_usd"]) == pytest.approx(spent)
        listed = (await call(client, "comparisons"))["comparisons"]
        assert [each["id"] for each in listed] == [verdict["id"]]
        project.save(evaluate={"scorers": ["exact"], "contenders": ["tuned", "few-shot"]})
        other = (await call(client, "plan"))["plan_hash"]
        for limit in (None, 5):
            more = await call(client, "compare", plan_hash=other, run=run["id"], limit=limit)
            spent += float(more["spent_usd"])
            assert float(more["budget_used_usd"]) == pytest.approx(spent)
        project.save()
        assert "already succeeded" in await refused(client, "cancel", run=run["id"])

    async def without_money(client: Client) -> None:
        project.save(evaluate={"scorers": ["exact"], "contenders": ["tuned", "instructed"]})
        asked = len(project.vendor.server.received("POST", "/chat/completions"))
        plan = await call(client, "plan")
        assert "exit code 6" in await refused(client, "compare", plan_hash=plan["plan_hash"])
        assert len(project.vendor.server.received("POST", "/chat/completions")) == asked

    project.talk(talk, "--allow-launch", "--budget", "5")
    project.talk(without_money, "--allow-launch", "--budget", "0")


def test_all_launches_of_a_session_share_its_budget(project: Project) -> None:
    async def talk(client: Client) -> None:
        first = await call(client, "plan")
        launched = await call(client, "run", plan_hash=first["plan_hash"])
        project.save(tuning={"epochs": 2})
        second = await call(client, "plan")
        assert first["plan_hash"] != second["plan_hash"]
        text = await refused(client, "run", plan_hash=second["plan_hash"])
        assert "of this session's $0.05 is left. Nothing was launched" in text
        assert "exit code 6" in text
        (run,) = launched["runs"]
        cancelled = await call(client, "cancel", run=run["id"])
        assert cancelled["state"] in ("cancelling", "cancelled")

    project.talk(talk, "--allow-launch", "--budget", "0.05")
    assert project.jobs == 1


def test_an_interrupted_launch_is_continued_by_another_server(project: Project) -> None:
    hashes: list[str] = []

    async def interrupted(client: Client) -> None:
        hashes.append((await call(client, "plan"))["plan_hash"])
        project.vendor.server.inject_fault(Fault.CUT, "POST", "/files")
        text = await refused(client, "run", plan_hash=hashes[0])
        assert "exit code 4" in text

    async def talk(client: Client) -> None:
        (run,) = (await call(client, "runs"))["runs"]
        assert run["state"] == "uploading"
        continued = await call(client, "run", plan_hash=hashes[0])
        (again,) = continued["runs"]
        assert again["id"] == run["id"]
        assert again["job_id"]
        assert float(continued["budget_used_usd"]) > 0

    project.talk(interrupted, "--allow-launch", "--budget", "5")
    assert project.jobs == 0
    project.talk(talk, "--allow-launch", "--budget", "5")
    assert project.jobs == 1


@pytest.mark.parametrize("options", [("--allow-launch",), ("--budget", "5")])
def test_launches_and_a_budget_need_each_other(unitune: Command, options: tuple[str, ...]) -> None:
    refusal = unitune("mcp", *options)
    assert refusal.code == 2
    assert "--allow-launch and --budget need each other" in refusal.err


def test_the_command_names_its_extra(unitune: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    refusal = unitune("mcp")
    assert refusal.code == 2
    assert "[mcp]" in refusal.err
