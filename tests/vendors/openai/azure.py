"""Azure on loopback: OpenAI's wire with a header of its own, and deployments by the management API.

A tuned model answers from a deployment alone, by the deployment's name; base models answer by their
own names, as if each had a deployment of that name.

Sources: Azure/azure-rest-api-specs, Microsoft.CognitiveServices 2024-10-01, Deployments (its client
azure-mgmt-cognitiveservices 14.1.0 reads these answers: `test_azure_management`); MicrosoftDocs/
azure-ai-docs, fine-tuning-rest.md (trainingType) and deployment-types.md (SKU names in code); the
text of InsufficientQuota: Azure-Samples/azure-search-openai-demo, issue 2091.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import JsonValue

from unitune.testing.loopback import Server, VendorRequest, VendorResponse
from unitune.testing.vendor_setup import Refused, RoutedVendor, route
from vendors.openai.checks import Bound, Rules
from vendors.openai.jobs import LoopbackJob
from vendors.openai.lists import Json
from vendors.openai.vendor import OpenAIVendor

ARM_TOKEN = "arm-token-0123456789"  # noqa: S105 - of a server on loopback
ENTRA_TOKEN = "entra-token"  # noqa: S105 - likewise
ACCOUNT = (
    "/subscriptions/sub-1/resourceGroups/group-1/providers/Microsoft.CognitiveServices"
    "/accounts/resource-1"
)
DEPLOYMENTS = f"{ACCOUNT}/deployments"
DEPLOYMENT = f"{DEPLOYMENTS}/{{name}}"
TRAINING_TYPES = {"Standard", "GlobalStandard", "globalStandard", "developerTier"}
SKUS = {"Standard", "GlobalStandard", "DataZoneStandard", "DeveloperTier", "ProvisionedManaged"}


def environment(server: Server) -> dict[str, str]:
    """Return the environment in which the backend finds a served vendor."""
    vendor = server.vendor
    assert isinstance(vendor, AzureVendor), "it is no other vendor"
    return {
        "AZURE_OPENAI_ENDPOINT": server.url,
        "AZURE_OPENAI_API_KEY": vendor.key,
        "AZURE_OPENAI_ACCOUNT": "resource-1",
        "AZURE_SUBSCRIPTION_ID": "sub-1",
        "AZURE_RESOURCE_GROUP": "group-1",
        "AZURE_RESOURCE_MANAGER_URL": server.url,
        "AZURE_ACCESS_TOKEN": ARM_TOKEN,
    }


@dataclass
class AzureVendor(OpenAIVendor):
    """Azure's state."""

    rules: ClassVar[Rules] = Rules(
        arguments=Rules().arguments | {"trainingType"},
        further={"dpo": {"l2_multiplier": Bound(float, 0)}},
    )
    key_headers: ClassVar[Mapping[str, str]] = {"api-key": "", "authorization": "Bearer "}
    filters: ClassVar[bool] = False

    # deployments by name
    deployments: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    provisioning: str = "Succeeded"  # the state of deployments, in ARM's words
    quota: int = 1000  # thousands of tokens per minute that deployments may have in all
    # trainings that may run or wait; at Azure 3 and 20 (openai/quotas-limits.md)
    trainings: int = 1000
    # tokens of Entra ID that are valid now
    tokens: set[str] = field(default_factory=lambda: {ENTRA_TOKEN})

    def check_key(self, request: VendorRequest) -> None:
        """Take the key, in either header, or a token of Entra ID."""
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            super().check_key(request)

    def answer(self, request: VendorRequest) -> VendorResponse:
        """Answer a request to the resource or to the management API."""
        if request.path.startswith("/subscriptions/"):
            return ResourceManager(self).answer(request)
        return super().answer(request)

    def _saved(self, job: LoopbackJob) -> list[Json]:
        """Name checkpoints as Azure does; its documents deploy them by their id."""
        return [
            {**saved, "id": f"ftchkpt-{job.number:016x}{saved['step_number']:016x}"}
            for saved in super()._saved(job)
        ]

    def tuned(self) -> dict[str, LoopbackJob]:
        """Return the jobs by what can be deployed: models and ids of checkpoints."""
        ids = {str(saved["id"]): job for job in self.jobs.values() for saved in self._saved(job)}
        return {**super().tuned(), **ids}

    @route("POST", "/fine_tuning/jobs")
    def create_job(self, request: VendorRequest) -> JsonValue:
        """Take a job, unless its training type is unknown or too many wait."""
        if request.json.get("trainingType", "Standard") not in TRAINING_TYPES:
            raise Refused(400, "Invalid value for trainingType.", param="trainingType")
        waiting = [job for job in self.jobs.values() if not job.ended(self.behavior)]
        if len(waiting) >= self.trainings:
            raise Refused(429, "The maximum number of training jobs is reached.")
        return super().create_job(request)

    def _behind(self, name: str) -> str:
        """Return the model of a deployment; a tuned one has no other name."""
        if name in self.deployments:
            return str(self.deployments[name]["properties"]["model"]["name"])
        return "no such deployment" if name in self.tuned() else name


class ResourceManager(RoutedVendor):
    """The management API, with the deployments of one resource."""

    key = ARM_TOKEN
    wrong_key = "InvalidAuthenticationToken"
    no_route = "NotFound"
    unreadable = "InvalidRequestContent"

    def __init__(self, resource: AzureVendor) -> None:
        super().__init__(resource.behavior)
        self.resource = resource

    def check_key(self, request: VendorRequest) -> None:
        super().check_key(request)
        version = request.query.get("api-version")
        if not request.path.startswith(ACCOUNT) or version != ["2024-10-01"]:
            raise Refused(400, "InvalidResource")

    def error(self, refusal: Refused) -> JsonValue:
        return {"error": {"code": refusal.message, "message": f"It is {refusal.message}."}}

    @route("PUT", DEPLOYMENT)
    def deploy(self, request: VendorRequest, name: str) -> VendorResponse:
        body = request.json
        model = body.get("properties", {}).get("model", {})
        if not re.fullmatch(r"[A-Za-z0-9._-]{2,64}", name) or body.keys() != {"sku", "properties"}:
            raise Refused(400, "InvalidRequestContent")
        if model.get("name") not in self.resource.tuned():
            raise Refused(400, "DeploymentModelNotSupported")
        if body["sku"].get("name") not in SKUS:
            raise Refused(400, "InvalidResourceProperties")
        others = (each for other, each in self.resource.deployments.items() if other != name)
        used = sum(int(each["sku"]["capacity"]) for each in others)
        if used + body["sku"]["capacity"] > self.resource.quota:
            raise Refused(400, "InsufficientQuota")
        self.resource.deployments[name] = body
        return VendorResponse(self.deployment(request, name), 201)

    @route("GET", DEPLOYMENT)
    def deployment(self, _: VendorRequest, name: str) -> JsonValue:
        if name not in self.resource.deployments:
            raise Refused(404, "NotFound")
        made = self.resource.deployments[name]
        properties = {**made["properties"], "provisioningState": self.resource.provisioning}
        kind = "Microsoft.CognitiveServices/accounts/deployments"
        return {
            **made,
            "id": f"{DEPLOYMENTS}/{name}",
            "name": name,
            "type": kind,
            "properties": properties,
        }

    @route("GET", DEPLOYMENTS)
    def listed(self, request: VendorRequest) -> JsonValue:
        """Show the deployments one by one, so that a list has pages."""
        names = sorted(self.resource.deployments)
        start = int(request.first("$skip") or 0)
        shown = [self.deployment(request, name) for name in names[start : start + 1]]
        following = f"http://{request.headers['host']}{DEPLOYMENTS}?api-version=2024-10-01"
        more = start + 1 < len(names)
        return {"value": shown, **({"nextLink": f"{following}&$skip={start + 1}"} if more else {})}

    @route("DELETE", DEPLOYMENT)
    def undeploy(self, _: VendorRequest, name: str) -> VendorResponse:
        return VendorResponse(b"", 202 if self.resource.deployments.pop(name, None) else 204)
