"""Custom models at Nebius, which serve tuned adapters, over its double."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.providers.openai_spec import Stage
from unit.providers.test_openai_presets import NEBIUS, preset
from vendors.openai.nebius import NebiusVendor
from vendors.openai.vendor import KEY

from unitune.errors import JobError, Unreachable
from unitune.testing.contract_base import reply_once
from unitune.testing.loopback import Fault
from unitune_providers.openai.backend import NebiusBackend


@pytest.fixture
def nebius(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    variables = {"NEBIUS_BASE_URL": "{url}/v1/", "NEBIUS_API_KEY": KEY}
    vendor = NebiusVendor(bases=(NEBIUS,))
    with preset(tmp_path, monkeypatch, NebiusBackend(), vendor, **variables) as stage:
        yield stage


def test_an_adapter_answers_by_the_name_of_its_custom_model(nebius: Stage) -> None:
    backend = nebius.backend
    model = backend.poll(nebius.succeed(), "").model
    assert model is not None
    assert reply_once(backend.chat(model)).error is not None, "not without a deployment"
    ref = backend.deploy(model, "unitune-1", {})
    (sent,) = nebius.server.received("POST", "/v0/models$")
    assert sent.json == {"source": model.name, "base_model": NEBIUS, "name": "unitune-1"}
    assert ref == backend.deploy(model, "unitune-1", {}) == backend.find_deployment("unitune-1")
    assert ref.startswith(f"{NEBIUS}-LoRa:unitune-1-")
    seen = backend.deployment_status(ref, model)
    assert (seen.state, seen.model.name) == ("ready", ref)
    assert reply_once(backend.chat(seen.model)).error is None
    for _ in range(2):
        backend.undeploy(ref)
    assert backend.deployment_status(ref, model).state == "gone"


def test_a_deployment_is_not_taken_for_one_whose_name_begins_alike(nebius: Stage) -> None:
    model = nebius.backend.poll(nebius.succeed(), "").model
    assert model is not None
    nebius.backend.deploy(model, "unitune-11", {})
    assert nebius.backend.find_deployment("unitune-1") is None


@pytest.mark.parametrize(
    ("word", "state"), [("validating", "starting"), ("error", "failed"), ("new word", "starting")]
)
def test_states_are_those_of_nebius(nebius: Stage, word: str, state: str) -> None:
    model = nebius.backend.poll(nebius.succeed(), "").model
    assert model is not None
    ref = nebius.backend.deploy(model, "unitune-1", {})
    nebius.vendor.custom_status = word
    assert nebius.backend.deployment_status(ref, model).state == state


def test_unknown_options_are_refused_and_a_lost_answer_is_found(nebius: Stage) -> None:
    model = nebius.backend.poll(nebius.succeed(), "").model
    assert model is not None
    with pytest.raises(JobError, match="capacity"):
        nebius.backend.deploy(model, "unitune-1", {"capacity": 1})
    nebius.server.inject_fault(Fault.CUT, "POST", "/v0/models$")
    with pytest.raises(Unreachable):
        nebius.backend.deploy(model, "unitune-1", {})
    assert nebius.backend.find_deployment("unitune-1") is not None
