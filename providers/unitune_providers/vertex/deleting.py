"""Removing a tuned model of Vertex AI: from the endpoints that answer with it, then itself.

google-genai has no calls for this, so the REST methods of Endpoint and Model service are used: a
model can only be deleted when no endpoint has it deployed, and of a model with several versions
only the one that the endpoint answers with may go. Each step is an operation that goes on after
its answer and is waited for. What is gone already counts as done.

Source: googleapis/googleapis, google/cloud/aiplatform/v1, endpoint_service.proto and
model_service.proto, read 2026-11-25.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import requests
from google.auth.transport.requests import AuthorizedSession
from pydantic import JsonValue

from unitune.errors import BackendError, Unreachable
from unitune_providers.vertex.cloud import Cloud
from unitune_providers.vertex.errors import pause_of, safe, vendor_errors

Resource = dict[str, Any]
NOT_FOUND = 404
FAILED = 400


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
        vertex = _Rest(cloud, session)
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


def _deployments(vertex: _Rest, model: str) -> Iterator[Deployment]:
    """Every place where a model answers: its checkpoints have endpoints of their own."""
    for one in (vertex.read(model) or {}).get("deployedModels", []):
        yield Deployment(str(one["endpoint"]), str(one["deployedModelId"]))


def _delete_version(vertex: _Rest, model: str) -> None:
    """Delete one version; the only version goes with its model, as Vertex AI wants it."""
    whole = model.partition("@")[0]
    versions = (vertex.read(f"{whole}:listVersions") or {}).get("models", [])
    alone = len(versions) <= 1
    vertex.change("DELETE", whole if alone else f"{model}:deleteVersion")


class _Rest:
    """Vertex AI's REST interface, as far as it is used here."""

    def __init__(self, cloud: Cloud, session: AuthorizedSession) -> None:
        self._cloud = cloud
        self._session = cast("requests.Session", session)
        self._patience = cloud.patience

    def read(self, name: str) -> Resource | None:
        """Return a resource, or None when it is gone."""
        return self._send("GET", name)

    def change(self, method: str, name: str, body: dict[str, JsonValue] | None = None) -> None:
        """Start an operation and wait for its end."""
        operation = self._send(method, name, body)
        until = time.monotonic() + self._patience.operation_seconds
        while operation and not operation.get("done"):
            if time.monotonic() > until:
                raise Unreachable(
                    f"{operation['name']} is still going on after "
                    f"{self._patience.operation_seconds:.0f} seconds. Try again later."
                )
            time.sleep(self._patience.look_seconds)
            operation = self._send("GET", str(operation["name"]))
        if operation and "error" in operation:
            said = operation["error"].get("message", "no reason given")
            raise BackendError(f"Vertex AI could not delete {name}: {said}", status=FAILED)

    def _send(
        self, method: str, name: str, body: dict[str, JsonValue] | None = None
    ) -> Resource | None:
        answer = self._session.request(
            method, self._cloud.url(name), json=body, timeout=self._patience.request_seconds
        )
        if answer.status_code == NOT_FOUND:
            return None
        if answer.status_code >= FAILED:
            raise BackendError(
                f"Google Cloud refused to {method} {name} (HTTP {answer.status_code}): "
                f"{_said(answer)}",
                status=answer.status_code,
                retry_after=pause_of(answer.headers),
            )
        return cast("Resource", answer.json())


def _said(answer: requests.Response) -> str:
    try:
        return safe(str(cast("Resource", answer.json())["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return answer.reason
