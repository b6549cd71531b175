"""Deploy tuned adapters at Nebius Token Factory, as custom models with names of their own.

Nebius appends letters to the requested name (``BASE-LoRa:NAME-AbCd``), so a deployment is found by
the part that was requested. It charges by tokens; no hourly price was found. Not tested at Nebius.

Source, by a third party who cites docs.tokenfactory.nebius.com/post-training/deploy-custom-model:
arindam200/nebius-skills, nebius-deploy-lora, 2026-03-09.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus
from unitune.backends.kit.api import Api
from unitune.backends.kit.hosted import NoOptions
from unitune.backends.options import validated
from unitune.errors import Unreachable
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.openai.options import NebiusOptions
from unitune_providers.openai.wire import WireBackend

# States by Nebius' words; any other is starting
STATES: dict[str, Literal["ready", "failed"]] = {"active": "ready", "error": "failed"}


class NebiusModels(WireBackend[NebiusOptions]):
    """Custom models, which serve tuned adapters."""

    capabilities = ("Deploys",)

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Deploy a tuned adapter, unless a custom model of this name exists."""
        validated(NoOptions, options, "deploy option")
        if (ref := self.find_deployment(name)) is not None:
            return ref
        body = {"source": model.name, "base_model": model.base, "name": name}
        created = self._models().post(action=f"deploy {model.name}", body=body)
        if (ref := created.text("name")) is None:
            raise Unreachable(f"nebius deployed {model.name} and did not return its name.")
        return ref

    def find_deployment(self, name: str) -> str | None:
        mark = f"-lora:{name}-".lower()
        names = (each.text("name") or "" for each in self._listed(f"look for deployment {name}"))
        return next((each for each in names if mark in each.lower()), None)

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        served = model.model_copy(update={"name": ref})
        listed = self._listed(f"show deployment {ref}")
        found = next((each for each in listed if each.text("name") == ref), None)
        if found is None:
            return DeploymentStatus("gone", served, "not found")
        raw = found.text("status") or ""
        return DeploymentStatus(STATES.get(raw, "starting"), served, raw)

    def undeploy(self, ref: str) -> None:
        self._models().delete(*ref.split("/"), action=f"delete deployment {ref}")

    def _listed(self, action: str) -> list[Fields]:
        return list(self._models().get(action=action).items("data"))

    def _models(self) -> Api:
        root = self.base_url().rstrip("/").removesuffix("/v1")
        return Api(replace(self.endpoint(), url=f"{root}/v0/models"))
