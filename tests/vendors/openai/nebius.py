"""Nebius on loopback: own hyperparameters at the top level, no metadata, models without names.

A tuned model answers from a custom model alone, whose name ends in letters of Nebius' choice.

Source of custom models: arindam200/nebius-skills, nebius-deploy-lora (2026-03-09), a third party.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Refused, route
from vendors.openai.checks import Rules
from vendors.openai.lists import Json
from vendors.openai.vendor import OpenAIVendor


@dataclass
class NebiusVendor(OpenAIVendor):
    """Nebius' state."""

    custom: dict[str, Json] = field(default_factory=dict[str, Json])  # custom models by name
    custom_status: str = "active"  # what their status becomes once they are listed

    prefix = "/v[01]"
    rules: ClassVar[Rules] = Rules(
        arguments=Rules().arguments - {"metadata"},
        own_hyperparameters=frozenset(
            {
                "n_epochs",
                "batch_size",
                "learning_rate",
                "warmup_ratio",
                "weight_decay",
                "packing",
                "max_grad_norm",
                "context_length",
                "lora",
                "lora_r",
                "lora_alpha",
                "lora_dropout",
            }
        ),
    )
    filters: ClassVar[bool] = False
    keeps_metadata: ClassVar[bool] = False
    names_models: ClassVar[bool] = False

    @route("POST", "/models")
    def create_custom(self, request: VendorRequest) -> JsonValue:
        """Deploy an adapter, below /v0; a second one of the name gets other letters."""
        body = request.json
        job_id, _, checkpoint = str(body.get("source")).partition(":")
        job = self._job(job_id)
        if checkpoint not in {str(saved["id"]) for saved in self._saved(job)}:
            raise Refused(400, f"Checkpoint {checkpoint} does not exist.")
        if body.get("base_model") != job.request["model"]:
            raise Refused(400, f"{job_id} was not tuned from {body.get('base_model')}.")
        name = f"{body['base_model']}-LoRa:{body['name']}-Ab{len(self.custom):02d}"
        self.custom[name] = {"name": name, "source": body["source"], "status": "validating"}
        return self.custom[name]

    @route("GET", "/models")
    def list_models(self, _: VendorRequest) -> JsonValue:
        """List the custom models below /v0, and all models below /v1."""
        if not _.path.startswith("/v0/"):
            return super().list_models(_)
        shown = list(self.custom.values())
        for each in shown:
            each["status"] = self.custom_status
        return {"data": [{**each} for each in shown]}

    @route("DELETE", "/models/{name:.+}")
    def delete_model(self, _: VendorRequest, name: str) -> JsonValue:
        if self.custom.pop(name, None) is None:
            raise Refused(404, f"The model {name!r} does not exist")
        return {}

    def _behind(self, name: str) -> str:
        if name in self.custom:
            job = self._job(str(self.custom[name]["source"]).partition(":")[0])
            return job.tuned
        return "no such deployment" if name in self.tuned() else name
