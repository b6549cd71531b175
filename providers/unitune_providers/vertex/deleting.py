"""Removing a tuned model of Vertex AI: from the endpoints that answer with it, then itself.

google-genai has no calls for this, so the REST methods of Endpoint and Model service are used: a
model can only be deleted when no endpoint has it deployed, and of a model with several versions
only the one that the endpoint answers with may go. Each step is an operation that goes on after
its answer and is waited for. What is gone already counts as done.

Source: googleapis/googleapis, google/cloud/aiplatform/v1, endpoint_service.proto and
model_service.proto, read 2026-11-25.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pydantic import JsonValue

from unitune_providers.vertex.cloud import Cloud
from unitune_providers.vertex.errors import vendor_errors
from unitune_providers.vertex.rest import Resource, Rest


class Deployment(NamedTuple):
    """A model that stands behind an endpoint."""

    endpoint: str
    deployed_id: str


def delete_tuned_model(cloud: Cloud, endpoint: str) -> None:
    """Remove the model that an endpoint answers with, and its endpoints.

    Args:
        cloud: Where it is.
        endpoint: Resource name of the endpoint.

    Raises:
        BackendError: Vertex AI refused a step.
        Unreachable: It gave no answer, or an operation takes too long.
    """
    with vendor_errors("delete the model"), cloud.session() as session:
        vertex = Rest(cloud, session)
        standing = vertex.read(endpoint)
        if standing is None:
            return
        models = [_version_name(one) for one in standing.get("deployedModels", [])]
        deployments = [found for model in models for found in _deployments(vertex, model)]
        for deployment in deployments:
            body: dict[str, JsonValue] = {"deployedModelId": deployment.deployed_id}
            vertex.change("POST", f"{deployment.endpoint}:undeployModel", body)
        for model in models:
            _delete_version(vertex, model)
        for name in dict.fromkeys([one.endpoint for one in deployments] + [endpoint]):
            vertex.change("DELETE", name)


def _version_name(deployed: Resource) -> str:
    model = str(deployed["model"]).partition("@")[0]
    version = deployed.get("modelVersionId")
    return f"{model}@{version}" if version else model


def _deployments(vertex: Rest, model: str) -> Iterator[Deployment]:
    """Every place where a model answers: its checkpoints have endpoints of their own."""
    for one in (vertex.read(model) or {}).get("deployedModels", []):
        yield Deployment(str(one["endpoint"]), str(one["deployedModelId"]))


def _delete_version(vertex: Rest, model: str) -> None:
    """Delete one version; the only version goes with its model, as Vertex AI wants it."""
    whole = model.partition("@")[0]
    versions = (vertex.read(f"{whole}:listVersions") or {}).get("models", [])
    alone = len(versions) <= 1
    vertex.change("DELETE", whole if alone else f"{model}:deleteVersion")
