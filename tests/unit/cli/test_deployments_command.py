"""The commands about what stands at vendors, over a vendor on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.command_line import Command
from support.job_files import chat_row, distinct_rows, write_job, write_rows

pytest.importorskip("boto3", reason="needs the extra `bedrock`")

from vendors.serving import ServedVendor, serve_vendor

from unitune.job.job import Job
from unitune.run import deploying, deployment
from unitune.testing.loopback import Fault

DEPLOYMENTS = r"/custom-model-deployments"


@pytest.fixture
def vendor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unitune: Command
) -> Iterator[ServedVendor]:
    """Bedrock, a job for it in the current folder, and no process left behind."""
    assert unitune
    rows = (chat_row(f"{number}?", "yes") for number in range(60))
    write_rows(tmp_path / "train.jsonl", rows)
    write_job(tmp_path, model="amazon.nova-micro-v1:0:128k", backend="bedrock")
    monkeypatch.setattr(deploying, "_leave_reaper", lambda *_: None)
    monkeypatch.setattr(deployment, "POLL_SECONDS", 0.01)
    with serve_vendor("bedrock") as served:
        yield served


@pytest.fixture
def run_id(vendor: ServedVendor, unitune: Command) -> str:
    assert vendor
    assert unitune("run", "unitune.yaml", "--quiet", "--budget", "20").code == 0
    listed = json.loads(unitune("runs", "--json").out)["runs"]
    return str(listed[0]["id"])


def test_a_deployment_is_listed_until_it_is_taken_down(unitune: Command, run_id: str) -> None:
    up = unitune("deployments", "up", run_id, "--ttl", "30m", "--allow-unpriced")
    assert (up.code, f"unitune deployments down {run_id}-d1" in up.out) == (0, True)

    (row,) = json.loads(unitune("deployments", "--json").out)["deployments"]
    assert tuple(row[key] for key in ("id", "run", "backend", "state")) == (
        f"{run_id}-d1",
        run_id,
        "bedrock",
        "ready",
    )
    assert f"{run_id}-d1" in unitune("deployments").out

    assert f"{run_id}-d1 is gone." in unitune("deployments", "down", run_id).out
    assert unitune("deployments").out == "No active deployments.\n"
    assert "gone" in unitune("deployments", "--all").out


def test_a_vendor_that_does_not_answer_leaves_the_list_as_it_was_last_seen(
    unitune: Command, run_id: str, vendor: ServedVendor
) -> None:
    unitune("deployments", "up", run_id, "--json", "--allow-unpriced")
    vendor.server.inject_fault(Fault.EXPIRED_KEY, "GET", DEPLOYMENTS)
    listed = unitune("deployments")
    assert (listed.code, f"{run_id}-d1" in listed.out) == (0, True)
    assert f"{run_id}-d1 could not be checked" in listed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ttl", "2 weeks"), "--ttl is '2 weeks'; write a time such as 30m, 2h or 1d."),
        (("--option", "size"), "--option 'size' is invalid. Write KEY=VALUE."),
    ],
)
def test_what_cannot_be_read_is_refused(
    unitune: Command, run_id: str, arguments: tuple[str, ...], said: str
) -> None:
    refused = unitune("deployments", "up", run_id, *arguments)
    assert (refused.code, said in refused.err) == (2, True)


def test_a_script_deploys_only_within_a_budget(unitune: Command, run_id: str) -> None:
    """On-demand hosting at Bedrock is free in its offer; --price may name provisioned hosting."""
    priced = ("--ttl", "3h", "--price", "hosting=1.70")
    refused = unitune("deployments", "up", run_id, *priced)
    assert (refused.code, "$5.10 at $1.70 per hour" in refused.err) == (6, True)
    over = unitune("deployments", "up", run_id, *priced, "--budget", "5")
    assert (over.code, "the deployment may cost $5.10" in over.err) == (6, True)
    assert json.loads(unitune("deployments", "--all", "--json").out)["deployments"] == []

    assert unitune("deployments", "up", run_id, *priced, "--budget", "5.10").code == 0
    (row,) = json.loads(unitune("deployments", "--json").out)["deployments"]
    assert row["usd_per_hour"] == "1.70"


def test_the_projects_budget_holds_for_deployments(
    unitune: Command, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "budget.yaml").write_text("project_usd: 5\n", encoding="utf-8")
    (tmp_path / "prices.yaml").write_text(
        "prices: [{backend: bedrock, hosting: 1.70}]\n", encoding="utf-8"
    )
    over = unitune("deployments", "up", run_id, "--ttl", "3h", "--allow-unpriced")
    assert (over.code, "the project's budget is $5" in over.err) == (6, True)
    for _ in range(2):  # the second continues the first and costs nothing more
        assert unitune("deployments", "up", run_id, "--ttl", "2h").code == 0
    monkeypatch.setattr("unitune.run.deploying._unfinished", lambda _: None)
    again = unitune("deployments", "up", run_id, "--ttl", "2h")
    assert (again.code, "is spent or reserved" in again.err) == (6, True), again.err


def test_an_import_writes_a_job_that_plans(unitune: Command, run_id: str, tmp_path: Path) -> None:
    assert run_id
    job_id = json.loads(unitune("runs", "--json").out)["runs"][0]["job_id"]
    done = unitune("import", f"bedrock:{job_id}", "--output", "moved")
    assert (done.code, "wrote moved/unitune.yaml" in done.out) == (0, True)
    assert Job.load(tmp_path / "moved" / "unitune.yaml").backend == "bedrock"
    assert unitune("plan", "moved/unitune.yaml").code == 0


def test_delete_forgets_a_run_once_all_of_it_is_gone(
    unitune: Command, run_id: str, vendor: ServedVendor
) -> None:
    vendor.server.inject_fault(Fault.EXPIRED_KEY, "DELETE", "custom-models")
    kept = unitune("runs", "delete", run_id, "--yes")
    assert (kept.code, "not deleted" in kept.err) == (2, True)
    assert run_id in unitune("runs").out

    gone = unitune("runs", "delete", run_id, "--yes")
    assert (0, f"{run_id} is deleted.\n") == (gone.code, gone.out)
    assert run_id not in unitune("runs").out


def test_nothing_is_deleted_before_somebody_said_so(
    unitune: Command, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in ((run_id,), (run_id[:3],), (run_id[:3], "--yes")):
        refused = unitune("runs", "delete", *arguments)
        assert refused.code == 2
        assert "the model " in refused.err
        assert f"unitune runs delete {run_id} --yes" in " ".join(refused.err.split())
    monkeypatch.setattr("unitune.cli.consent.is_interactive", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    told = unitune("runs", "delete", run_id)
    assert (told.code, "nothing was" in told.err) == (2, True)
    assert run_id in unitune("runs").out
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    done = unitune("runs", "delete", run_id)
    assert (0, f"{run_id} is deleted.\n") == (done.code, done.out)


def test_what_a_deployed_model_says_is_asked_of_the_deployment(
    unitune: Command, run_id: str
) -> None:
    alone = unitune("chat", run_id, "-m", "2?")
    assert (alone.code, f"unitune deployments up {run_id} --ttl 2h" in alone.err) == (2, True)
    unitune("deployments", "up", run_id, "--allow-unpriced")
    assert unitune("chat", run_id, "-m", "2?").code == 0


def test_a_run_says_what_it_costs_while_it_runs_and_when_it_has_ended(
    unitune: Command, tmp_path: Path
) -> None:
    write_rows(tmp_path / "train.jsonl", distinct_rows(60))
    write_job(tmp_path, model="gpt-4o-mini", backend="openai")
    with serve_vendor("openai"):
        refused = unitune("run", "unitune.yaml")
        done = unitune("run", "unitune.yaml", "--budget", "1", "--allow-unpriced")
    assert (refused.code, "Set a budget" in refused.err) == (6, True)
    assert "so far" in done.err
    assert "Estimated" in done.out
    assert "trained tokens, $0.01 at the price of the plan" in done.out
