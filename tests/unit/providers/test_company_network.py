"""Each vendor by each means of a company's network: the table of the how-to, a test for each cell.

Clients call the vendors' real host names; a proxy on loopback leads them to doubles.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.auth", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")
pytest.importorskip("tinker", reason="needs the vendors' extras")

from unit.providers.company_stage import (
    ADDRESSES,
    GOOGLE_USER,
    HOSTS,
    KEYS,
    LLAMA,
    MODELS,
    SETTINGS,
    Stage,
    azure_identity,
)
from vendors import fireworks, hf_jobs, skypilot
from vendors.anthropic import AnthropicVendor
from vendors.azure_sessions import AzureSessionsVendor
from vendors.bedrock import vendor as bedrock
from vendors.bedrock.storage import s3_storage
from vendors.company import USER, Company, company_network
from vendors.openai.azure import ENTRA_TOKEN, AzureVendor
from vendors.openai.nebius import NebiusVendor
from vendors.openai.vendor import MantleVendor, OpenAIVendor
from vendors.tinker.vendor import TinkerVendor
from vendors.together import vendor as together
from vendors.vertex import vendor as vertex

from unitune.errors import BackendError
from unitune.testing.loopback import serve
from unitune.workspace import user_config
from unitune.workspace.user_config import UserConfig

# Tinker's SDK keeps its connections for the life of the process.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

GUIDE = Path(__file__).parents[3] / "docs/how-to/work-behind-a-proxy.md"
ACCOUNT = "a@b.iam.gserviceaccount.com"
IMPERSONATED = (
    f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{ACCOUNT}"
    ":generateAccessToken"
)


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Collect the SDK's connections while their warnings are ignored."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    doubles: dict[str, Any] = {
        "openai": OpenAIVendor(),
        "azure": AzureVendor(),
        "azure-sessions": AzureSessionsVendor(
            models={"Qwen/Qwen3.8-27B": 32768}, prefix="/api/projects/p"
        ),
        "together": together.TogetherVendor(),
        "fireworks": fireworks.FireworksVendor(),
        "tinker": TinkerVendor(models={"Qwen/Qwen3-8B": 32768}, prefix="/services/tinker-prod"),
        "nebius": NebiusVendor(bases=(LLAMA,)),
        "mantle": MantleVendor(bases=("openai.gpt-oss-20b",)),
        "anthropic": AnthropicVendor(),
        "vertex": vertex.VertexVendor(),
        "hf-jobs": hf_jobs.HfJobsVendor(tmp_path_factory.mktemp("hf-jobs")),
        "skypilot": skypilot.SkyPilotVendor(tmp_path_factory.mktemp("skypilot")),
    }
    with ExitStack() as stack:
        storage = stack.enter_context(s3_storage(bedrock.BUCKET))
        doubles["bedrock"] = bedrock.BedrockVendor(storage)
        urls = {name: stack.enter_context(serve(each)).url for name, each in doubles.items()}
        folder = tmp_path_factory.mktemp("company")
        yield stack.enter_context(company_network(folder, urls))


@pytest.fixture
def stage(
    company: Company,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Stage]:
    vendor = str(request.getfixturevalue("vendor"))
    named = re.compile(
        r"(AWS|AZURE|OPENAI|TOGETHER|FIREWORKS|TINKER|NEBIUS|ANTHROPIC|GOOGLE|UNITUNE|LLM|HF|SKYPILOT)_|"
        r".*_PROXY$|"
        r"SSL_CERT|.*_CA_BUNDLE$",
        re.IGNORECASE,
    )
    for name in filter(named.match, list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(
        "UNITUNE_ALLOW_KEYS", f"LLM_API_KEY@https://llm.example.com,LLM_API_KEY@{company.url}"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setattr("unitune.backends.retry.sleep", lambda _: None)
    (tmp_path / "user.json").write_text(json.dumps(GOOGLE_USER))
    company.direct = "openai" if vendor == "server" else vendor
    company.tunnels.clear()
    company.seen.clear()
    made = Stage(vendor, company, tmp_path, monkeypatch)
    made.set(SETTINGS.get(vendor, {}))
    made.begin_anew()
    yield made
    made.begin_anew()


def by_proxy(stage: Stage) -> None:
    stage.set(KEYS[stage.vendor])
    stage.through_proxy()
    stage.call()
    assert f"{HOSTS[stage.vendor]}:443" in stage.company.tunnels
    stage.patch.setenv("HTTPS_PROXY", stage.company.proxy.replace(USER, "john"))
    stage.begin_anew()
    with pytest.raises((BackendError, AssertionError)):
        stage.call()


def by_no_proxy(stage: Stage) -> None:
    stage.set({**KEYS[stage.vendor], **ADDRESSES[stage.vendor], "NO_PROXY": "127.0.0.1"})
    stage.through_proxy()
    stage.call()
    assert stage.company.tunnels == []
    assert stage.company.seen


def by_own_authority(stage: Stage) -> None:
    stage.set(KEYS[stage.vendor])
    stage.patch.setenv("HTTPS_PROXY", stage.company.proxy)
    try:
        error = stage.ask().error
    except BackendError as untrusted:
        error = str(untrusted)
    assert "CERTIFICATE_VERIFY_FAILED" in (error or "")
    assert "set SSL_CERT_FILE to a PEM file" in (error or "")
    assert stage.company.seen == []
    stage.begin_anew()
    stage.patch.setenv("SSL_CERT_FILE", str(stage.company.certificate))
    stage.call()


def by_gateway(stage: Stage) -> None:
    stage.set(KEYS[stage.vendor])
    stage.through_proxy()
    added = {"headers": {"x-gateway-key": "GATEWAY_KEY"}, "query": {"api-version": "VERSION"}}
    config = UserConfig.model_validate({"gateways": {stage.address: added}})
    user_config.write(config)
    stage.set({"GATEWAY_KEY": "secret-of-the-gateway", "VERSION": "2026-11-30"})
    stage.call()
    assert stage.sent("x-gateway-key") == {"secret-of-the-gateway"}
    called = [each for each in stage.company.seen if each.host == HOSTS[stage.vendor]]
    assert all("api-version=2026-11-30" in each.path for each in called)


def by_organisation(stage: Stage) -> None:
    stage.set({**KEYS[stage.vendor], "OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-1"})
    stage.set({"GOOGLE_CLOUD_QUOTA_PROJECT": "billing-project"})
    stage.through_proxy()
    stage.call()
    if stage.vendor == "vertex":
        assert stage.sent("x-goog-user-project") == {"billing-project"}
        return
    assert stage.sent("openai-organization") == {"org-1"}
    assert stage.sent("openai-project") == {"proj-1"}


def by_command(stage: Stage) -> None:
    ((variable, key),) = KEYS[stage.vendor].items()
    command = [sys.executable, "-c", f"print({key!r})"]
    user_config.write(UserConfig.model_validate({"key_commands": {variable: command}}))
    stage.through_proxy()
    stage.call()


def by_aws_profile(stage: Stage) -> None:
    printed = {"Version": 1, "AccessKeyId": bedrock.KEY, "SecretAccessKey": "s"}
    script = stage.folder / "print_keys"
    script.write_text(f"#!/bin/sh\necho '{json.dumps(printed)}'\n")
    script.chmod(0o700)
    _aws_profile(stage, f"credential_process = {script}")


def by_aws_sso(stage: Stage) -> None:
    tokens = stage.folder / "sso"
    tokens.mkdir()
    stage.patch.setattr("botocore.tokens.SSOTokenProvider._SSO_TOKEN_CACHE_DIR", str(tokens))
    name = hashlib.sha1(b"company").hexdigest()  # noqa: S324 - as botocore names it
    token = {"accessToken": "t", "expiresAt": "2100-01-01T00:00:00Z", "region": "us-east-1"}
    (tokens / f"{name}.json").write_text(json.dumps({**token, "startUrl": "https://c.test/start"}))
    _aws_profile(
        stage,
        "sso_session = company\nsso_account_id = 123456789012\nsso_role_name = dev\n"
        "[sso-session company]\nsso_region = us-east-1\nsso_start_url = https://c.test/start",
    )
    assert "portal.sso.us-east-1.amazonaws.com:443" in stage.company.tunnels


def by_aws_role(stage: Stage) -> None:
    _aws_profile(
        stage,
        "role_arn = arn:aws:iam::123456789012:role/r\nsource_profile = base\n"
        "[profile base]\nregion = us-east-1\naws_access_key_id = K\naws_secret_access_key = s",
    )
    assert "sts.us-east-1.amazonaws.com:443" in stage.company.tunnels


def _aws_profile(stage: Stage, lines: str) -> None:
    (stage.folder / "aws").write_text(f"[profile work]\nregion = us-east-1\n{lines}\n")
    stage.patch.setenv("AWS_PROFILE", "work")
    stage.through_proxy()
    stage.call()
    if stage.vendor == "mantle":
        assert all(
            (each or "").startswith("Bearer bedrock-") for each in stage.sent("authorization")
        )


def by_workload_identity(stage: Stage) -> None:
    (stage.folder / "subject").write_text("jwt")
    kind = "urn:ietf:params:oauth:token-type:jwt"
    pool = "projects/1/locations/global/workloadIdentityPools/p/providers/x"
    _google(
        stage,
        {
            "type": "external_account",
            "audience": f"//iam.googleapis.com/{pool}",
            "subject_token_type": kind,
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": {"file": str(stage.folder / "subject")},
        },
    )
    assert "sts.googleapis.com:443" in stage.company.tunnels


def by_impersonation(stage: Stage) -> None:
    _google(
        stage,
        {
            "type": "impersonated_service_account",
            "service_account_impersonation_url": IMPERSONATED,
            "delegates": [],
            "source_credentials": GOOGLE_USER,
        },
    )
    assert "iamcredentials.googleapis.com:443" in stage.company.tunnels


def _google(stage: Stage, credentials_file: dict[str, Any]) -> None:
    file = stage.folder / "adc.json"
    file.write_text(json.dumps(credentials_file))
    stage.patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    stage.through_proxy()
    stage.call()


def by_entra(stage: Stage) -> None:
    tokens = iter([ENTRA_TOKEN] * 9)
    azure_identity(stage.patch, lambda _: next(tokens))
    stage.through_proxy()
    stage.call()
    assert stage.sent("authorization") == {f"Bearer {ENTRA_TOKEN}"}
    assert stage.sent("api-key") == {None}


WITHOUT_GATEWAY = ("bedrock", "tinker")  # whose SDKs take no further headers
WITH_KEYS = tuple(name for name in MODELS if name not in ("vertex", "bedrock"))
MEANS: dict[str, tuple[Callable[[Stage], None], tuple[str, ...]]] = {
    "proxy with password": (by_proxy, tuple(MODELS)),
    "NO_PROXY": (by_no_proxy, tuple(MODELS)),
    "private CA": (by_own_authority, tuple(MODELS)),
    "gateway": (by_gateway, tuple(name for name in MODELS if name not in WITHOUT_GATEWAY)),
    "organisation, project": (by_organisation, ("openai", "vertex")),
    "key command": (by_command, WITH_KEYS),
    "AWS profile": (by_aws_profile, ("bedrock", "mantle")),
    "AWS SSO": (by_aws_sso, ("bedrock", "mantle")),
    "AWS role": (by_aws_role, ("bedrock", "mantle")),
    "workload identity": (by_workload_identity, ("vertex",)),
    "impersonation": (by_impersonation, ("vertex",)),
    "Entra ID": (by_entra, ("azure", "azure-sessions")),
}
"""What calls by each means, and for which vendors the means applies."""
CELLS = [(vendor, means) for vendor in MODELS for means in MEANS]


def table() -> dict[tuple[str, str], str]:
    """The cells of the how-to's table."""
    part = GUIDE.read_text("utf-8").partition("## What works where")[2]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    head, *rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines)
    return {
        (row[0], name): cell for row in rows for name, cell in zip(head[1:], row[1:], strict=True)
    }


def test_the_guides_table_has_these_cells_and_no_other() -> None:
    assert set(CELLS) == set(table())


def cells(*, applies: bool) -> list[Any]:
    return [
        pytest.param(vendor, means, id=f"{vendor}-{means}")
        for vendor, means in CELLS
        if applies == (vendor in MEANS[means][1])
    ]


@pytest.mark.parametrize(("vendor", "means"), cells(applies=True))
def test_vendor_is_reached_by_the_means(stage: Stage, vendor: str, means: str) -> None:
    assert table()[vendor, means] == "yes"
    MEANS[means][0](stage)


@pytest.mark.parametrize(("vendor", "means"), cells(applies=False))
def test_means_does_not_apply_to_the_vendor(vendor: str, means: str) -> None:
    is_lacking = vendor in WITHOUT_GATEWAY and means == "gateway"
    assert ("no" if is_lacking else "n/a") == table()[vendor, means]
