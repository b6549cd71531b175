"""Tuned models and endpoints on loopback: what a tuning job of Vertex AI leaves, and its removal.

Deletions are operations: the first answer says that one goes on, the next look that it is done. A
model that an endpoint has deployed cannot be deleted, nor the only version of a model by itself.

Source: googleapis/googleapis, google/cloud/aiplatform/v1, endpoint_service.proto and
model_service.proto.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest, VendorResponse

PLACE = r"projects/[^/]+/locations/[^/]+"


class Refused(Exception):
    """What Vertex AI says no to.

    Args:
        status: HTTP status.
        word: Google's word for it.
        message: For people.
    """

    def __init__(self, status: int, word: str, message: str) -> None:
        super().__init__(message)
        self.answer = VendorResponse(
            {"error": {"code": status, "message": message, "status": word}}, status
        )


def missing(what: str) -> Refused:
    """Return the refusal of something that is not there."""
    return Refused(404, "NOT_FOUND", f"{what} is not found.")


def invalid(why: str) -> Refused:
    """Return the refusal of a request that cannot be right."""
    return Refused(400, "INVALID_ARGUMENT", why)


def untimely(why: str) -> Refused:
    """Return the refusal of what cannot be done now."""
    return Refused(400, "FAILED_PRECONDITION", why)


@dataclass(slots=True)
class Models:
    """Models with their versions, and endpoints that answer with them.

    Args:
        versions: By model: the versions that exist.
        endpoints: By endpoint: the version that it has deployed, ``MODEL@VERSION``, if any.
        checkpoints: By endpoint: the checkpoint of that version; the last is the default.
        deleted: Whatever was deleted, oldest first.
    """

    versions: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    endpoints: dict[str, str | None] = field(default_factory=dict[str, str | None])
    checkpoints: dict[str, str] = field(default_factory=dict[str, str])
    deleted: list[str] = field(default_factory=list[str])
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(7_000_001))
    _operations: set[str] = field(default_factory=set[str])

    def add(self, place: str, model: str | None, endpoints: int) -> tuple[str, list[str]]:
        """Make a model, or a new version of one, and deploy it.

        Args:
            place: ``projects/…/locations/…``.
            model: Of which this is the next version; None for a new model.
            endpoints: How many.

        Returns:
            The version's name, and those of its endpoints.
        """
        name = model or f"{place}/models/{next(self._numbers)}"
        versions = self.versions.setdefault(name, [])
        versions.append(max(versions, default=0) + 1)
        made = [f"{place}/endpoints/{next(self._numbers)}" for _ in range(endpoints)]
        version = f"{name}@{versions[-1]}"
        self.endpoints.update(dict.fromkeys(made, version))
        self.checkpoints.update((one, str(number)) for number, one in enumerate(made, 1))
        return version, made

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request to the Model and Endpoint services."""
        path = re.sub(r"^/v1(beta1)?/", "", asked.path)
        if found := re.fullmatch(rf"({PLACE}/endpoints/\d+)(:undeployModel)?", path):
            return self._endpoint(asked, found[1], undeploy=bool(found[2]))
        if found := re.fullmatch(rf"({PLACE}/models/\d+)(?:@(\d+))?(:\w+)?", path):
            return self._model(asked.method, found[1], found[2], found[3] or "")
        if path in self._operations:
            return VendorResponse({"name": path, "done": True, "response": {}})
        raise missing(asked.path)

    def stands(self, name: str) -> bool:
        """Whether an endpoint answers, or there is such a version of a model."""
        if "/endpoints/" in name:
            return self.endpoints.get(name) is not None
        model, _, version = name.partition("@")
        versions = self.versions.get(model, [])
        return bool(versions) and (not version or int(version) in versions)

    def _endpoint(self, asked: VendorRequest, name: str, *, undeploy: bool) -> VendorResponse:
        if name not in self.endpoints:
            raise missing(f"The Endpoint {name}")
        version = self.endpoints[name]
        if undeploy:
            if version is None or asked.json.get("deployedModelId") != _deployed_id(name):
                raise missing(f"DeployedModel {asked.json.get('deployedModelId')}")
            self.endpoints[name] = None
            return self._operation(name)
        if asked.method == "GET":
            deployed: list[JsonValue] = (
                [_deployed(name, version, self.checkpoints.get(name))] if version else []
            )
            return VendorResponse({"name": name, "deployedModels": deployed})
        if version is not None:
            raise untimely(f"Endpoint {name} has a deployed model. Undeploy it first.")
        del self.endpoints[name]
        return self._deletion(name)

    def _model(self, method: str, name: str, version: str | None, verb: str) -> VendorResponse:
        versions = self.versions.get(name)
        if versions is None or (version and int(version) not in versions):
            raise missing(f"The Model {name}")
        if (method, verb) == ("GET", ":listVersions"):
            return VendorResponse(
                {"models": [{"name": name, "versionId": str(one)} for one in versions]}
            )
        standing = self._standing(f"{name}@{version or versions[-1]}")
        if method == "GET":
            number = str(version or versions[-1])
            shown: dict[str, JsonValue] = {
                "name": name,
                "versionId": number,
                "deployedModels": standing,
            }
            return VendorResponse({**shown, **self._checkpoints(f"{name}@{number}")})
        if standing:
            raise untimely(f"Model {name} is deployed. Undeploy it first.")
        if verb == ":deleteVersion":
            if len(versions) == 1:
                raise untimely(f"{name}@{version} is the only version. Delete the model instead.")
            versions.remove(int(version or 0))
            return self._deletion(f"{name}@{version}")
        del self.versions[name]
        return self._deletion(name)

    def _checkpoints(self, version: str) -> dict[str, JsonValue]:
        kept = [
            self.checkpoints[endpoint]
            for endpoint, deployed in self.endpoints.items()
            if deployed == version and endpoint in self.checkpoints
        ]
        listed: list[JsonValue] = [{"checkpointId": one, "epoch": one} for one in kept]
        return {"checkpoints": listed, "defaultCheckpointId": kept[-1]} if kept else {}

    def _standing(self, version: str) -> list[JsonValue]:
        return [
            {"endpoint": endpoint, "deployedModelId": _deployed_id(endpoint)}
            for endpoint, deployed in self.endpoints.items()
            if deployed == version
        ]

    def _deletion(self, name: str) -> VendorResponse:
        self.deleted.append(name)
        return self._operation(name)

    def _operation(self, resource: str) -> VendorResponse:
        place = "/".join(resource.split("/")[:4])
        operation = f"{place}/operations/{next(self._numbers)}"
        self._operations.add(operation)
        return VendorResponse({"name": operation})


def _deployed_id(endpoint: str) -> str:
    return f"9{endpoint.rpartition('/')[2]}"


def _deployed(endpoint: str, version: str, checkpoint: str | None) -> JsonValue:
    model, _, number = version.partition("@")
    named = {"id": _deployed_id(endpoint), "model": model, "modelVersionId": number}
    return {**named, "checkpointId": checkpoint} if checkpoint else {**named}
