"""Each hosted backend has the optional capabilities of its vendor and no others."""

from __future__ import annotations

import pytest

pytest.importorskip("boto3", reason="needs the vendors' extras")
pytest.importorskip("google.auth", reason="needs the vendors' extras")

from unitune.backends import capabilities, registry

OPENAI = "Checkpoints Deletes DescribesJobs Imports ListsJobs ValidatesOptions"
ABILITIES = {
    "anthropic": "Batches CountsTokens ValidatesOptions",
    "azure": f"{OPENAI} Deploys Pauses",
    "bedrock": "Deletes Deploys DescribesJobs Imports ListsJobs SwapsModel ValidatesOptions",
    "fireworks": "Deletes Deploys DescribesJobs ListsJobs Quotes SwapsModel ValidatesOptions",
    "mantle": OPENAI,
    "nebius": f"{OPENAI} Deploys",
    "openai": f"{OPENAI} Batches GuaranteesByServer Pauses",
    "together": f"{OPENAI} Deploys Downloads Quotes",
    "vertex": f"{OPENAI} Batches CountsTokens",
}


@pytest.mark.parametrize(("name", "expected"), ABILITIES.items(), ids=ABILITIES)
def test_backend_has_the_capabilities_of_its_vendor(name: str, expected: str) -> None:
    backend = registry.backend(name)
    kinds = {each: getattr(capabilities, each, None) for each in registry.protocols()}
    assert sorted(expected.split()) == sorted(
        each for each, kind in kinds.items() if kind and isinstance(backend, kind)
    )
