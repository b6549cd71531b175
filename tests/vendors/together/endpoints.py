"""Dedicated endpoints of the Together on loopback, as the SDK 3.1 asks for them (``/v2``)."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Refused, ServerBehavior, route
from vendors.together.jobs import Jobs
from vendors.together.parts import NAMESPACE, PROJECT_ID, Fields, fresh, missing, moment, needed

PLATFORM = "proj_platform"
"""Who owns base models and configurations."""
PROJECT = f"/v2/projects/{PROJECT_ID}"
ENDPOINT = f"{PROJECT}/endpoints/{{endpoint_id}}"
PAGE = 1
"""Endpoints on a page: few, so that clients must turn pages."""
CONFIGS = {
    "cr_one": {"accelerator_count": "1", "accelerator_type": "nvidia-h100-80gb"},
    "cr_two": {"accelerator_count": "2", "accelerator_type": "nvidia-h100-80gb"},
    "cr_adapters": {
        "accelerator_count": "1",
        "accelerator_type": "nvidia-h100-80gb",
        "adapter_mode": "dynamic",
    },
}


@dataclass(slots=True)
class Deployment:
    """A model on hardware."""

    id: str
    name: str
    model: str
    config: str
    replicas: int
    most: int
    inactive_timeout: int
    looks: int = 0
    draining: int = 0
    """Looks until it has stopped."""

    def state(self, behavior: ServerBehavior) -> str:
        """Return the vendor's word."""
        if not self.most:
            return "DEPLOYMENT_STATE_STOPPING" if self.draining else "DEPLOYMENT_STATE_STOPPED"
        if self.looks <= behavior.queued_polls:
            return "DEPLOYMENT_STATE_PROVISIONING"
        return "DEPLOYMENT_STATE_FAILED" if behavior.fails else "DEPLOYMENT_STATE_READY"


@dataclass(slots=True)
class Endpoint:
    """A name to ask."""

    id: str
    name: str
    deployments: dict[str, Deployment] = field(default_factory=dict[str, Deployment])
    split: dict[str, float] = field(default_factory=dict[str, float])


class Endpoints(Jobs):
    """All endpoints of the project."""

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.endpoints: dict[str, Endpoint] = {}

    @route("POST", f"{PROJECT}/endpoints")
    def create_endpoint(self, request: VendorRequest) -> Fields:
        """Create an endpoint."""
        name = needed(request.json, "name", str)
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name):
            raise Refused(400, f"invalid endpoint name {name}")
        if any(endpoint.name == name for endpoint in self.endpoints.values()):
            raise Refused(409, f"endpoint {name} already exists")
        endpoint = Endpoint(fresh("ep_"), name)
        self.endpoints[endpoint.id] = endpoint
        return self._shown(endpoint)

    @route("GET", f"{PROJECT}/endpoints")
    def list_endpoints(self, request: VendorRequest) -> Fields:
        """Answer a page of endpoints."""
        text = request.first("filter") or ""
        match = re.fullmatch(r'name="([^"]*)"', text)
        if text and not match:
            raise Refused(400, "invalid filter expression")
        # The real filter knows substrings too; a client must look at the names itself.
        name = match[1] if match else ""
        listed = [endpoint for endpoint in self.endpoints.values() if name in endpoint.name]
        start = request.number("after", 0)
        page = [self._shown(endpoint) for endpoint in listed[start : start + PAGE]]
        more = start + PAGE < len(listed)
        return {"data": page, "next_cursor": str(start + PAGE) if more else None}

    @route("GET", ENDPOINT)
    def endpoint(self, _: VendorRequest, endpoint_id: str) -> Fields:
        """Answer one endpoint; looking lets its deployments go on."""
        endpoint = self._endpoint(endpoint_id)
        for deployment in endpoint.deployments.values():
            deployment.looks += 1
            deployment.draining = max(0, deployment.draining - 1)
        return self._shown(endpoint)

    @route("PATCH", ENDPOINT)
    def update_endpoint(self, request: VendorRequest, endpoint_id: str) -> Fields:
        """Replace the traffic split."""
        endpoint = self._endpoint(endpoint_id)
        split = request.json.get("trafficSplit")
        if split is None or (not split and request.first("updateMask") is None):
            raise Refused(400, "no fields to update")
        weights = {entry["deploymentId"]: entry["weight"] for entry in split}
        for deployment_id in weights:
            self._deployment(endpoint, deployment_id)
        endpoint.split = weights
        return self._shown(endpoint)

    @route("DELETE", ENDPOINT)
    def delete_endpoint(self, _: VendorRequest, endpoint_id: str) -> Fields:
        """Remove an endpoint that holds nothing."""
        endpoint = self._endpoint(endpoint_id)
        if endpoint.deployments:
            raise Refused(409, "endpoint has deployments")
        del self.endpoints[endpoint_id]
        return {}

    @route("POST", f"{ENDPOINT}/deployments")
    def deploy(self, request: VendorRequest, endpoint_id: str) -> Fields:
        """Create a deployment."""
        endpoint, body = self._endpoint(endpoint_id), request.json
        name, model = needed(body, "name", str), needed(body, "model", str)
        scaling = needed(body, "autoscaling", dict)
        config = needed(body, "config", str)
        if any(deployment.name == name for deployment in endpoint.deployments.values()):
            raise Refused(409, f"deployment {name} already exists")
        if self.weights(model.rpartition("/")[2]) is None:
            raise missing("Model", model)
        if config.rpartition("/")[2] not in CONFIGS:
            raise Refused(400, f"config {config} is not compatible with the model")
        idle = int(body.get("inactiveTimeout", 0))
        if idle and not 30 <= idle <= 1440:
            raise Refused(400, "inactiveTimeout must be 0 or from 30 to 1440")
        least, most = _replicas(scaling)
        deployment = Deployment(fresh("dep_"), name, model, config, least, most, idle)
        endpoint.deployments[deployment.id] = deployment
        return self._whole(endpoint, deployment)

    @route("PATCH", f"{ENDPOINT}/deployments/{{deployment_id}}")
    def scale(self, request: VendorRequest, endpoint_id: str, deployment_id: str) -> Fields:
        """Change the replicas of a deployment; none stops it."""
        endpoint = self._endpoint(endpoint_id)
        deployment = self._deployment(endpoint, deployment_id)
        running = bool(deployment.most)
        deployment.replicas, deployment.most = _replicas(needed(request.json, "autoscaling", dict))
        deployment.draining = 2 if running and not deployment.most else 0
        deployment.looks = deployment.looks if running else 0
        return self._whole(endpoint, deployment)

    @route("DELETE", f"{ENDPOINT}/deployments/{{deployment_id}}")
    def delete_deployment(self, _: VendorRequest, endpoint_id: str, deployment_id: str) -> Fields:
        """Remove a deployment that has stopped and gets no requests."""
        endpoint = self._endpoint(endpoint_id)
        deployment = self._deployment(endpoint, deployment_id)
        if deployment.state(self.behavior) != "DEPLOYMENT_STATE_STOPPED":
            raise Refused(400, "deployment must be stopped first")
        if deployment_id in endpoint.split:
            raise Refused(400, "deployment is in the traffic split")
        del endpoint.deployments[deployment_id]
        return {}

    @route("GET", f"{PROJECT}/configs")
    def configs(self, request: VendorRequest) -> Fields:
        """Answer the configurations for a base model."""
        reference = request.first("referenceModel")
        if not reference:
            raise Refused(400, "referenceModel is required")
        shown = [
            {
                "id": name,
                "certifications": [],
                "projectId": PLATFORM,
                "referenceModel": reference,
                "referenceModelId": reference.rpartition("/")[2],
                "selectors": [{"key": key, "value": value} for key, value in selectors.items()],
            }
            for name, selectors in CONFIGS.items()
        ]
        return {"data": shown, "next_cursor": None}

    @route("GET", f"{PROJECT}/models/{{model_id}}")
    def model(self, _: VendorRequest, model_id: str) -> Fields:
        """Answer the registry's entry of a job's weights."""
        job = self.weights(model_id)
        if job is None:
            raise missing("Model", model_id)
        return {
            "id": model_id,
            "name": job.name,
            "organizationId": "org_loopback",
            "projectId": PROJECT_ID,
            "visibility": "VISIBILITY_PRIVATE",
            "weights": {"type": "WEIGHTS_TYPE_DEFAULT"},
            "baseModel": f"projects/{PLATFORM}/models/ml_base",
            "baseModelId": "ml_base",
        }

    def answers(self, name: str) -> bool | None:
        """Return whether an endpoint of this name answers; None: there is none."""
        for endpoint in self.endpoints.values():
            if name == f"{NAMESPACE}/{endpoint.name}":
                ready = {
                    deployment.id
                    for deployment in endpoint.deployments.values()
                    if deployment.state(self.behavior) == "DEPLOYMENT_STATE_READY"
                }
                return any(weight and key in ready for key, weight in endpoint.split.items())
        return None

    def _endpoint(self, endpoint_id: str) -> Endpoint:
        if endpoint_id not in self.endpoints:
            raise missing("Endpoint", endpoint_id)
        return self.endpoints[endpoint_id]

    def _deployment(self, endpoint: Endpoint, deployment_id: str) -> Deployment:
        if deployment_id not in endpoint.deployments:
            raise missing("Deployment", deployment_id)
        return endpoint.deployments[deployment_id]

    def _shown(self, endpoint: Endpoint) -> Fields:
        return {
            "id": endpoint.id,
            "name": f"{NAMESPACE}/{endpoint.name}",
            "projectId": PROJECT_ID,
            "createdAt": moment(time.time()),
            "updatedAt": moment(time.time()),
            "endpointType": "ENDPOINT_TYPE_DEDICATED",
            "etag": "1",
            "visibility": "VISIBILITY_PRIVATE",
            "trafficSplit": [
                {"deploymentId": key, "weight": weight} for key, weight in endpoint.split.items()
            ],
            "deployments": [
                self._summary(endpoint, deployment) for deployment in endpoint.deployments.values()
            ],
        }

    def _summary(self, endpoint: Endpoint, deployment: Deployment) -> Fields:
        state = deployment.state(self.behavior)
        return {
            "id": deployment.id,
            "name": f"{NAMESPACE}/{endpoint.name}/{deployment.name}",
            "autoscaling": {
                "minReplicas": deployment.replicas,
                "maxReplicas": deployment.most,
            },
            "createdAt": moment(time.time()),
            "estimatedEffectiveTrafficShare": 1.0 if deployment.id in endpoint.split else 0.0,
            "model": f"{deployment.model}/revisions/rv_1",
            "modelId": deployment.model.rpartition("/")[2],
            "state": state,
            "trafficMode": "TRAFFIC_MODE_LIVE",
            "readyReplicas": deployment.replicas if state == "DEPLOYMENT_STATE_READY" else 0,
        }

    def _whole(self, endpoint: Endpoint, deployment: Deployment) -> Fields:
        summary = self._summary(endpoint, deployment)
        state = summary.pop("state")
        return {
            **summary,
            "config": deployment.config,
            "configId": deployment.config.rpartition("/")[2],
            "endpointId": endpoint.id,
            "etag": "1",
            "hardware": "1xnvidia-h100-80gb",
            "modelRevisionId": "rv_1",
            "projectId": PROJECT_ID,
            "status": {"message": "", "state": state},
            "updatedAt": moment(time.time()),
            "inactiveTimeout": deployment.inactive_timeout,
        }


def _replicas(scaling: Fields) -> tuple[int, int]:
    least = int(scaling.get("minReplicas", 1))
    most = int(scaling.get("maxReplicas", least))
    if most < least or (most and not least):
        raise Refused(400, "minReplicas must be at least 1, or both must be 0")
    return least, most
