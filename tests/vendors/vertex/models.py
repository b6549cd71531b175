"""Tuned models and endpoints on loopback: what a tuning job of Vertex AI leaves, how it answers,
and its removal.

Deletions are operations: the first answer says that it goes on, the next look that it is done. A
model that an endpoint has deployed cannot be deleted, nor the only version of a model by itself.

Source: googleapis/googleapis, google/cloud/aiplatform/v1, endpoint_service.proto and
model_service.proto.
"""

from __future__ import annotations

import itertools
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse
from unitune.testing.vendor_setup import RoutedVendor, ServerBehavior, route
from vendors import streams
from vendors.vertex.requests import (
    ANSWERING,
    LOCATION,
    answer_with,
    check_count,
    check_thinking,
    input_tokens,
    missing,
    question,
    read_body,
    untimely,
)

ENDPOINT = rf"{{name:{LOCATION}/endpoints/\d+}}"
MODEL = rf"{{name:{LOCATION}/models/\d+(?:@\d+)?}}"
VERSION = rf"{{name:{LOCATION}/models/\d+@\d+}}"
OPERATION = rf"{{name:{LOCATION}/operations/\d+}}"
ANSWERS = f"/v1beta1/{{model:{LOCATION}/(?:endpoints|publishers)/[^:]+}}"


class Models(RoutedVendor):
    """Models with their versions, and endpoints that answer with them."""

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.versions: dict[str, list[int]] = {}
        """By model: the versions that exist."""
        self.endpoints: dict[str, str | None] = {}
        """By endpoint: the version that it has deployed, ``MODEL@VERSION``, if any."""
        self.checkpoints: dict[str, str] = {}
        """By endpoint: the checkpoint of that version; the last is the default."""
        self._operations: set[str] = set()
        self._numbers = itertools.count(7_000_001)

    def add_model(self, location: str, model: str | None, endpoints: int) -> tuple[str, list[str]]:
        """Make a model, or a new version of one, and deploy it.

        Args:
            location: ``projects/…/locations/…``.
            model: Of which this is the next version; None for a new model.
            endpoints: How many.

        Returns:
            The version's name, and those of its endpoints.
        """
        name = model or f"{location}/models/{next(self._numbers)}"
        versions = self.versions.setdefault(name, [])
        versions.append(max(versions, default=0) + 1)
        names = [f"{location}/endpoints/{next(self._numbers)}" for _ in range(endpoints)]
        version = f"{name}@{versions[-1]}"
        self.endpoints.update(dict.fromkeys(names, version))
        self.checkpoints.update((name, str(number)) for number, name in enumerate(names, 1))
        return version, names

    def is_tuned(self, model: str) -> bool:
        """Whether a model that answers is a tuned one: an endpoint, or a model with a version."""
        if "/publishers/" in model:
            if not ANSWERING.fullmatch(model.rpartition("/")[2]):
                raise missing(f"Publisher Model `{model}`")
            return False
        if "/endpoints/" not in model:
            self._version(model)
        elif self.endpoints.get(model) is None:
            raise missing(model)
        return True

    def respond(self, model: str, body: dict[str, Any]) -> JsonValue:
        """Answer a request to any model."""
        replies = self.behavior.replies if self.is_tuned(model) else {}
        check_thinking(body, model.rpartition("/")[2])
        return answer_with(body, replies.get(question(body), self.behavior.otherwise))

    @route("POST", f"{ANSWERS}:generateContent")
    def generate_content(self, request: VendorRequest, model: str) -> JsonValue:
        return self.respond(model, read_body(request))

    @route("POST", f"{ANSWERS}:streamGenerateContent")
    def stream_generate_content(self, request: VendorRequest, model: str) -> VendorResponse:
        return streams.content(self.respond(model, read_body(request)))

    @route("POST", f"{ANSWERS}:countTokens")
    def count_tokens(self, request: VendorRequest, model: str) -> JsonValue:
        """Count what a model would read."""
        self.is_tuned(model)
        body = read_body(request)
        check_count(body)
        return {"totalTokens": input_tokens(body)}

    @route("GET", f"/v1/{ENDPOINT}")
    @route("GET", f"/v1beta1/{ENDPOINT}")
    def endpoint(self, _: VendorRequest, name: str) -> JsonValue:
        """Show an endpoint with what it has deployed."""
        version = self._deployed_version(name)
        if version is None:
            return {"name": name, "deployedModels": []}
        model, number = version.split("@")
        deployed = {"id": _deployed_id(name), "model": model, "modelVersionId": number}
        if name in self.checkpoints:
            deployed["checkpointId"] = self.checkpoints[name]
        return {"name": name, "deployedModels": [{**deployed}]}

    @route("POST", f"/v1/{ENDPOINT}:undeployModel")
    def undeploy_model(self, request: VendorRequest, name: str) -> JsonValue:
        """Let an endpoint answer no longer."""
        deployed_id = request.json.get("deployedModelId")
        if self._deployed_version(name) is None or deployed_id != _deployed_id(name):
            raise missing(f"DeployedModel {deployed_id}")
        self.endpoints[name] = None
        return self._operation(name)

    @route("DELETE", f"/v1/{ENDPOINT}")
    def delete_endpoint(self, _: VendorRequest, name: str) -> JsonValue:
        if self._deployed_version(name) is not None:
            raise untimely(f"Endpoint {name} has a deployed model. Undeploy it first.")
        del self.endpoints[name]
        return self._operation(name)

    @route("GET", f"/v1/{MODEL}")
    @route("GET", f"/v1beta1/{MODEL}")
    def model(self, _: VendorRequest, name: str) -> JsonValue:
        """Show a version of a model, by default its last."""
        model, number = self._version(name)
        deployed = self._endpoints_of(f"{model}@{number}")
        kept = [self.checkpoints[name] for name in deployed if name in self.checkpoints]
        checkpoints: list[JsonValue] = [{"checkpointId": name, "epoch": name} for name in kept]
        return {
            "name": model,
            "versionId": str(number),
            "deployedModels": [
                {"endpoint": name, "deployedModelId": _deployed_id(name)} for name in deployed
            ],
            **({"checkpoints": checkpoints, "defaultCheckpointId": kept[-1]} if kept else {}),
        }

    @route("GET", f"/v1/{MODEL}:listVersions")
    def list_versions(self, _: VendorRequest, name: str) -> JsonValue:
        model = self._version(name)[0]
        return {
            "models": [{"name": model, "versionId": str(number)} for number in self.versions[model]]
        }

    @route("DELETE", f"/v1/{MODEL}")
    def delete_model(self, _: VendorRequest, name: str) -> JsonValue:
        model = self._undeployed_version(name)[0]
        del self.versions[model]
        return self._operation(model)

    @route("DELETE", f"/v1/{VERSION}:deleteVersion")
    def delete_version(self, _: VendorRequest, name: str) -> JsonValue:
        model, number = self._undeployed_version(name)
        if len(self.versions[model]) == 1:
            raise untimely(f"{name} is the only version. Delete the model instead.")
        self.versions[model].remove(number)
        return self._operation(model)

    @route("GET", f"/v1/{OPERATION}")
    def operation(self, _: VendorRequest, name: str) -> JsonValue:
        """Show an operation, which is done by then."""
        if name not in self._operations:
            raise missing(f"The Operation {name}")
        return {"name": name, "done": True, "response": {}}

    def _deployed_version(self, endpoint: str) -> str | None:
        if endpoint not in self.endpoints:
            raise missing(f"The Endpoint {endpoint}")
        return self.endpoints[endpoint]

    def _version(self, name: str) -> tuple[str, int]:
        """Return a model and the version of it that is named, by default its last."""
        model, _, number = name.partition("@")
        versions = self.versions.get(model)
        if not versions or (number and int(number) not in versions):
            raise missing(f"The Model {model}")
        return model, int(number or versions[-1])

    def _undeployed_version(self, name: str) -> tuple[str, int]:
        model, number = self._version(name)
        if self._endpoints_of(f"{model}@{number}"):
            raise untimely(f"Model {model} is deployed. Undeploy it first.")
        return model, number

    def _endpoints_of(self, version: str) -> list[str]:
        return [name for name, deployed in self.endpoints.items() if deployed == version]

    def _operation(self, resource: str) -> JsonValue:
        location = "/".join(resource.split("/")[:4])
        operation = f"{location}/operations/{next(self._numbers)}"
        self._operations.add(operation)
        return {"name": operation}


def _deployed_id(endpoint: str) -> str:
    return f"9{endpoint.rpartition('/')[2]}"
