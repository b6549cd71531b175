"""What is left of botocore's descriptions says the same as the whole of them."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("boto3", reason="needs the extra `bedrock`")

from botocore.loaders import Loader
from botocore.regions import EndpointResolver

from unitune_providers.bedrock.descriptions import Lean

WHOLE, LEAN = Loader(), Loader(file_loader=Lean())
SERVICES = ("bedrock", "bedrock-runtime", "s3", "signin", "sso", "sso-oidc", "sts")
"""Ours, and those of AWS's ways to sign in."""


def without_prose(described: Any) -> Any:
    """Return a description with empty prose and without patterns of texts."""
    if isinstance(described, list):
        return [without_prose(one) for one in described]
    if not isinstance(described, dict):
        return described
    return {
        name: "" if name == "documentation" and isinstance(value, str) else without_prose(value)
        for name, value in described.items()
        if not (name == "pattern" and isinstance(value, str))
    }


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("kind", ["service-2", "paginators-1", "endpoint-rule-set-1"])
def test_a_service_differs_in_its_prose_and_patterns_alone(service: str, kind: str) -> None:
    whole, lean = (loader.load_service_model(service, kind) for loader in (WHOLE, LEAN))
    assert without_prose(whole) == lean
    assert (whole == lean) is (kind == "paginators-1")


@pytest.mark.parametrize("service", SERVICES)
def test_every_region_has_the_same_endpoint(service: str) -> None:
    prefix = WHOLE.load_service_model(service, "service-2")["metadata"]["endpointPrefix"]
    endpoints = WHOLE.load_data("endpoints")
    whole, lean = EndpointResolver(endpoints), EndpointResolver(LEAN.load_data("endpoints"))
    regions = {name for partition in endpoints["partitions"] for name in partition["regions"]}
    assert len(regions) > 30
    for region in (*regions, "aws-global", "us-new-9"):
        expected = whole.construct_endpoint(prefix, region)
        assert expected == lean.construct_endpoint(prefix, region), region


def test_there_is_no_description_of_what_is_not_there() -> None:
    assert Lean().load_file("no-such-place/service-2") is None
