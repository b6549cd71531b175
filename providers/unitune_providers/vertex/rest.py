"""Vertex AI's REST interface, for models and endpoints: google-genai has no calls for those."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from pydantic import JsonValue

from unitune.backends.rate_limits import parse_retry_after
from unitune.errors import BackendError, Unreachable
from unitune_providers.vertex.cloud import Cloud
from unitune_providers.vertex.errors import safe

if TYPE_CHECKING:
    import requests
    from google.auth.transport.requests import AuthorizedSession

Resource = dict[str, Any]
NOT_FOUND = 404
FAILED = 400


class Rest:
    """Vertex AI's REST interface, as far as it is used here.

    Args:
        cloud: Where it is.
        session: Who asks.
        version: Of the interface.
    """

    def __init__(self, cloud: Cloud, session: AuthorizedSession, version: str = "v1") -> None:
        self._cloud = cloud
        self._version = version
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
            method,
            self._cloud.url(name, self._version),
            json=body,
            timeout=self._patience.request_seconds,
        )
        if answer.status_code == NOT_FOUND:
            return None
        if answer.status_code >= FAILED:
            raise BackendError(
                f"Google Cloud refused to {method} {name} (HTTP {answer.status_code}): "
                f"{_said(answer)}",
                status=answer.status_code,
                retry_after=parse_retry_after(answer.headers),
            )
        return cast("Resource", answer.json())


def _said(answer: requests.Response) -> str:
    try:
        return safe(str(cast("Resource", answer.json())["error"]["message"]))
    except (ValueError, KeyError, TypeError):
        return answer.reason
