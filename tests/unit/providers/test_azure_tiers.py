"""Deployments at Azure by tier, with the commands and the run layer, over its double."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.command_line import Command
from vendors.openai.azure import AzureVendor, environment

from unitune.run import deploying, deployment
from unitune.run.run import find_run
from unitune.testing.loopback import Server, serve
from unitune.testing.vendor_setup import ServerBehavior
from unitune.workspace.user_settings import current

JOB = """
name: tiers
model: gpt-4.1-mini-2025-04-14
backend: azure
data: {{train: train.jsonl}}
options: {{azure: {{{options}}}}}
"""
ROW = '{"messages":[{"role":"user","content":"%d?"},{"role":"assistant","content":"yes"}]}\n'


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unitune: Command) -> Iterator[Server]:
    assert unitune
    rows = "".join(ROW % number for number in range(60))
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    monkeypatch.setattr(deploying, "_leave_reaper", Mock())
    monkeypatch.setattr(deployment, "POLL_SECONDS", 0.01)
    with serve(AzureVendor(ServerBehavior(queued_polls=0))) as server:
        for name, value in environment(server).items():
            monkeypatch.setenv(name, value)
        current().backends.clear()
        yield server


def trained(unitune: Command, folder: Path, options: str = "") -> str:
    """Return the id of a finished run of a job with these options."""
    (folder / "unitune.yaml").write_text(JOB.format(options=options), encoding="utf-8")
    ran = unitune("run", "unitune.yaml", "--quiet", "--budget", "20", "--allow-unpriced")
    assert ran.code == 0, ran.err
    return str(json.loads(unitune("runs", "--json").out)["runs"][0]["id"])


def deployed_sku(server: Server) -> str:
    (request,) = server.received("PUT", "/subscriptions/")
    return str(request.json["sku"]["name"])


@pytest.mark.parametrize(
    ("options", "given", "expected"),
    [
        ("", (), ("Standard", "1.70")),
        ("training_type: global", (), ("GlobalStandard", "1.70")),
        ("training_type: developer", (), ("GlobalStandard", "1.70")),
        ("training_type: global, sku: DeveloperTier", (), ("DeveloperTier", "0")),
        ("", ("--option", "sku=DataZoneStandard"), ("DataZoneStandard", "1.70")),
    ],
)
def test_the_job_or_the_command_chooses_the_tier(  # noqa: PLR0917 - a table
    azure: Server,
    unitune: Command,
    tmp_path: Path,
    options: str,
    given: tuple[str, ...],
    expected: tuple[str, str],
) -> None:
    run = trained(unitune, tmp_path, options)
    up = unitune("deployments", "up", run, "--ttl", "1h", "--budget", "20", *given, "--json")
    assert up.code == 0, up.err
    (row,) = json.loads(up.out)["deployments"]
    assert (deployed_sku(azure), row["usd_per_hour"]) == expected
    listed = unitune("deployments").out
    assert "azure deletes a deployment that had no request for 15 days" in listed


def test_a_provisioned_deployment_has_no_known_price(
    azure: Server, unitune: Command, tmp_path: Path
) -> None:
    run = trained(unitune, tmp_path)
    assert azure.url
    options = {"sku": "ProvisionedManaged"}
    assert deploying.usd_per_hour(find_run(run), options=options) is None
    refused = unitune(
        "deployments", "up", run, "--budget", "20", "--option", "sku=ProvisionedManaged"
    )
    assert refused.code == 6


def test_a_developer_deployment_is_not_planned_past_its_24_hours(
    azure: Server, unitune: Command, tmp_path: Path
) -> None:
    run = trained(unitune, tmp_path)
    refused = unitune(
        "deployments", "up", run, "--ttl", "2d", "--option", "sku=DeveloperTier", "--budget", "20"
    )
    assert (refused.code, "Use --ttl 24h or less" in refused.err) == (2, True)
    assert azure.received("PUT", "/subscriptions/") == []


def test_a_deployment_that_may_move_data_is_refused_where_the_job_keeps_it(
    azure: Server, unitune: Command, tmp_path: Path
) -> None:
    run = trained(unitune, tmp_path, "residency: region")
    refused = unitune("deployments", "up", run, "--option", "sku=GlobalStandard", "--budget", "20")
    assert "options.azure.residency of the job is region" in refused.err
    assert "may move data to any region" in refused.err
    assert azure.received("PUT", "/subscriptions/") == []
    assert unitune("deployments", "up", run, "--budget", "20").code == 0
