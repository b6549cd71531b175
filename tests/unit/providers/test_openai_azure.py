"""Deployments on Azure, against a stand-in for its management API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from unit.providers.company_stage import azure_identity

from unitune.errors import BackendError, JobError, Unreachable, UserError
from unitune.models import TunedModel
from unitune.testing.loopback import Fault, Server, VendorRequest, VendorResponse, serve
from unitune_providers.openai.azure import ARM_URL
from unitune_providers.openai.backend import AzureBackend

MODEL = TunedModel(backend="azure", name="gpt-4.1.ft-1", base="gpt-4.1-2025-04-14")
PLACE = (
    "/subscriptions/sub-1/resourceGroups/group-1/providers/Microsoft.CognitiveServices"
    "/accounts/resource-1/deployments/"
)


@dataclass
class Arm:
    """Deployments by name."""

    state: str = "Creating"
    stored: dict[str, dict[str, object]] = field(default_factory=dict)

    def answer(self, asked: VendorRequest) -> VendorResponse:
        if asked.headers.get("authorization") != "Bearer a-token":
            return _error(401, "InvalidAuthenticationToken")
        if not asked.path.startswith(PLACE) or asked.query["api-version"] != ["2024-10-01"]:
            return _error(400, "InvalidResource")
        name = asked.path.removeprefix(PLACE)
        if asked.method == "PUT":
            if asked.json.keys() != {"sku", "properties"}:
                return _error(400, "InvalidRequestContent")
            self.stored[name] = asked.json
            return VendorResponse(self._told(name), 201)
        if asked.method == "DELETE":
            return VendorResponse(b"", 202 if self.stored.pop(name, None) else 204)
        return VendorResponse(self._told(name)) if name in self.stored else _error(404, "NotFound")

    def _told(self, name: str) -> dict[str, object]:
        made = self.stored[name]
        return {**made, "name": name, "properties": {"provisioningState": self.state}}


def _error(status: int, code: str) -> VendorResponse:
    content = {"error": {"code": code, "message": f"It is {code}."}}
    return VendorResponse(content, status, {"x-ms-request-id": "request-1"})


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(Arm()) as server:
        monkeypatch.setenv("AZURE_RESOURCE_MANAGER_URL", server.url)
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://resource-1.openai.azure.com/")
        monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "sub-1")
        monkeypatch.setenv("AZURE_RESOURCE_GROUP", "group-1")
        monkeypatch.setenv("AZURE_ACCESS_TOKEN", "a-token")
        monkeypatch.setattr("unitune.backends.retry.sleep", lambda _: None)
        yield server


def test_deployment_comes_up_is_asked_by_its_name_and_goes(arm: Server) -> None:
    backend = AzureBackend()
    ref = backend.deploy(MODEL, "unitune-1", {"capacity": 7})
    assert arm.received("PUT", PLACE)[0].json == {
        "sku": {"name": "Standard", "capacity": 7},
        "properties": {"model": {"format": "OpenAI", "name": "gpt-4.1.ft-1", "version": "1"}},
    }
    assert _state(backend, ref) == ("starting", "Creating")
    arm.vendor.state = "Succeeded"
    seen = backend.deployment_status(ref, MODEL)
    assert (seen.state, seen.model.name) == ("ready", "unitune-1")
    for _ in range(2):
        backend.undeploy(ref)
    assert _state(backend, ref) == ("gone", "not found")


def _state(backend: AzureBackend, ref: str) -> tuple[str, str]:
    seen = backend.deployment_status(ref, MODEL)
    return seen.state, seen.raw


def test_second_deploy_of_a_name_leaves_the_first_as_it_is(arm: Server) -> None:
    backend = AzureBackend()
    assert backend.deploy(MODEL, "unitune-1", {"capacity": 7}) == backend.deploy(
        MODEL, "unitune-1", {}
    )
    assert len(arm.received("PUT", PLACE)) == 1


@pytest.mark.parametrize(
    ("base", "maker", "sku"),
    [
        ("gpt-4.1-2025-04-14", "OpenAI", "Standard"),
        ("gpt-oss-20b", "Microsoft", "GlobalStandard"),
        ("Llama-3.3-70B-Instruct", "Meta", "GlobalStandard"),
        ("Qwen-32B", "Alibaba", "GlobalStandard"),
    ],
)
def test_open_models_have_their_makers_format(arm: Server, base: str, maker: str, sku: str) -> None:
    AzureBackend().deploy(MODEL.model_copy(update={"base": base}), "unitune-1", {})
    body = arm.received("PUT", PLACE)[0].json
    assert (maker, sku) == (body["properties"]["model"]["format"], body["sku"]["name"])


def test_unknown_option_is_named(arm: Server) -> None:
    with pytest.raises(JobError, match="capacitee"):
        AzureBackend().deploy(MODEL, "unitune-1", {"capacitee": 1})
    assert arm.requests == []


@pytest.mark.parametrize("word", ["Failed", "Canceled"])
def test_failed_deployment_says_so(arm: Server, word: str) -> None:
    AzureBackend().deploy(MODEL, "unitune-1", {})
    arm.vendor.state = word
    assert _state(AzureBackend(), "unitune-1") == ("failed", word)


def test_refusal_has_status_and_request_id_and_no_token(
    arm: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_ACCESS_TOKEN", "a-secret-token")
    with pytest.raises(BackendError, match="It is InvalidAuthenticationToken") as caught:
        AzureBackend().undeploy("unitune-1")
    assert (caught.value.status, caught.value.request_id) == (401, "request-1")
    assert "a-secret-token" not in str(caught.value)
    assert arm.requests


def test_token_is_taken_out_of_azures_words_and_its_pause_is_kept(
    arm: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"error": {"code": "TooManyRequests", "message": "Too often by a-token."}}
    monkeypatch.setattr(Arm, "answer", lambda *_: VendorResponse(told, 429, {"Retry-After": "7"}))
    with pytest.raises(
        BackendError, match=r"Too often by \*\*\* \[TooManyRequests\] \(HTTP 429\)"
    ) as caught:
        AzureBackend().undeploy("unitune-1")
    assert caught.value.retry_after == 7.0
    assert arm.requests


def test_answer_that_is_no_json_is_unreachable(
    arm: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Arm, "answer", lambda *_: VendorResponse(b"<html>proxy</html>"))
    with pytest.raises(Unreachable, match="JSONDecodeError"):
        AzureBackend().deployment_status("unitune-1", MODEL)
    assert arm.requests


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.SILENCE])
def test_no_answer_is_unreachable(
    arm: Server, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr("unitune.backends.kit.api.TIMEOUT_SECONDS", 0.2)
    arm.inject_fault(fault, "GET", PLACE, times=9)
    with pytest.raises(Unreachable, match="could not show deployment"):
        AzureBackend().deployment_status("unitune-1", MODEL)


def test_missing_token_says_where_one_comes_from(
    arm: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_ACCESS_TOKEN")
    monkeypatch.setitem(sys.modules, "azure.identity", None)
    with pytest.raises(UserError, match=r"AZURE_ACCESS_TOKEN.*unitune's extra `azure`"):
        AzureBackend().deployment_status("unitune-1", MODEL)
    azure_identity(monkeypatch, {f"{ARM_URL}/.default": "a-token"}.__getitem__)
    assert AzureBackend().deployment_status("unitune-1", MODEL).state == "gone"
    assert arm.requests
