"""Azure on loopback: OpenAI's wire with a header of its own, and deployments by the management API.

A tuned model answers from a deployment alone, by the deployment's name; base models answer by their
own names, as if each had a deployment of that name.

Source: learn.microsoft.com/rest/api/aiservices/accountmanagement/deployments/create-or-update.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from unitune.testing.loopback import Server, VendorRequest, VendorResponse
from vendors.openai.checks import Rules
from vendors.openai.lists import Json
from vendors.openai.vendor import OpenAIVendor

ARM_TOKEN = "arm-token-0123456789"  # noqa: S105 - of a server on loopback
ACCOUNT = (
    "/subscriptions/sub-1/resourceGroups/group-1/providers/Microsoft.CognitiveServices"
    "/accounts/resource-1/deployments/"
)


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


@dataclass(slots=True)
class AzureVendor(OpenAIVendor):
    """Azure's state.

    Args:
        deployments: What stands, by name.
        provisioning: The state of deployments, in ARM's words.
    """

    rules: ClassVar[Rules] = Rules(arguments=Rules().arguments | {"trainingType"})
    key_header: ClassVar[str] = "api-key"
    filters: ClassVar[bool] = False

    deployments: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    provisioning: str = "Succeeded"

    def answer(self, asked: VendorRequest) -> VendorResponse:
        """Answer a request to the resource or to the management API."""
        if asked.path.startswith("/subscriptions/"):
            return self._manage(asked)
        return OpenAIVendor.answer(self, asked)

    def _behind(self, name: str) -> str:
        """Return the model of a deployment; a tuned one has no other name."""
        if name in self.deployments:
            return str(self.deployments[name]["properties"]["model"]["name"])
        return "no such deployment" if name in self.tuned() else name

    def _manage(self, asked: VendorRequest) -> VendorResponse:
        if asked.headers.get("authorization") != f"Bearer {ARM_TOKEN}":
            return _error(401, "InvalidAuthenticationToken")
        if not asked.path.startswith(ACCOUNT) or asked.query.get("api-version") != ["2024-10-01"]:
            return _error(400, "InvalidResource")
        name = asked.path.removeprefix(ACCOUNT)
        if asked.method == "PUT":
            return self._deploy(name, asked)
        if asked.method == "DELETE":
            return VendorResponse(b"", 202 if self.deployments.pop(name, None) else 204)
        return (
            VendorResponse(self._standing(name))
            if name in self.deployments
            else _error(404, "NotFound")
        )

    def _deploy(self, name: str, asked: VendorRequest) -> VendorResponse:
        body = asked.json
        model = body.get("properties", {}).get("model", {})
        if not re.fullmatch(r"[A-Za-z0-9._-]{2,64}", name) or {"sku", "properties"} != body.keys():
            return _error(400, "InvalidRequestContent")
        if model.get("name") not in self.tuned():
            return _error(400, "DeploymentModelNotSupported")
        self.deployments[name] = body
        return VendorResponse(self._standing(name), 201)

    def _standing(self, name: str) -> Json:
        properties: Json = {"provisioningState": self.provisioning}
        return {**self.deployments[name], "name": name, "properties": properties}


def _error(status: int, code: str) -> VendorResponse:
    content: Json = {"error": {"code": code, "message": f"It is {code}."}}
    return VendorResponse(content, status, {"x-ms-request-id": "request-1"})
