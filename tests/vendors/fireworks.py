"""Fireworks AI on loopback: its jobs, and deployments with the tuned models that are merged there.

A deployment of a tuned model has it merged from the beginning (live merge). One with hot reload is
of a base, and takes one tuned model at a time, which the next replaces. What it refuses is what the
vendor's documents and examples say that it does; where they are silent, as of a load into a live
merge, it refuses too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from pydantic import JsonValue

from unitune.testing.loopback import VendorRequest
from unitune.testing.vendor_setup import Progress, Refused, ServerBehavior, existing, route
from vendors.bodies import chat_completion
from vendors.fireworks_jobs import ACCOUNT, BASE, KEY, PAGE_SIZE, ROOT, FireworksJobs, checked

__all__ = ["ACCOUNT", "BASE", "KEY", "DeployedModel", "FireworksVendor"]


@dataclass(slots=True)
class DeployedModel:
    """A model in a deployment, as the vendor calls it."""

    number: int
    model: str
    progress: Progress = field(default_factory=Progress)
    failed: bool = False  # whether it could not be merged
    replaced: bool = False  # whether another is put in its place; it answers until then
    # whether requests reach it; the first may not, as the cookbook says
    is_reached: bool = False

    def is_merged(self, behavior: ServerBehavior) -> bool:
        """Whether it answers."""
        return not self.failed and self.progress.started(behavior)

    def as_json(self, deployment: str, behavior: ServerBehavior) -> dict[str, JsonValue]:
        """Return it as responses show it."""
        state = "DEPLOYED" if self.is_merged(behavior) else "DEPLOYING"
        words = ("INTERNAL", "the addon cannot be merged") if self.failed else ("OK", "")
        return {
            "name": f"accounts/{ACCOUNT}/deployedModels/m{self.number}",
            "model": self.model,
            "deployment": deployment,
            "state": "UNDEPLOYING" if self.replaced else state,
            "status": dict(zip(("code", "message"), words, strict=True)),
        }


@dataclass(slots=True)
class Deployment:
    """A deployment."""

    name: str
    request: Mapping[str, Any]
    models: list[DeployedModel]  # the one loaded last is the last
    progress: Progress = field(default_factory=Progress)
    merge_fails: bool = False  # whether the next merge fails

    @property
    def is_hot(self) -> bool:
        """Whether its tuned model can be replaced."""
        return self.request.get("enableHotReloadLatestAddon", False)

    def state(self, behavior: ServerBehavior) -> str:
        """Return the vendor's word; one whose model is replaced is ready meanwhile."""
        return "READY" if self.progress.started(behavior) else "CREATING"

    def answering(self, behavior: ServerBehavior) -> DeployedModel:
        """Return the model that answers, and forget those that it has replaced."""
        merged = [each for each in self.models if each.is_merged(behavior)]
        if merged and merged[-1] is self.models[-1]:
            self.models = [each for each in self.models if not each.replaced]
        return merged[-1]


class FireworksVendor(FireworksJobs):
    """Fireworks, with one account and one key; `files` and `jobs` are its books."""

    key = KEY

    def __init__(self, behavior: ServerBehavior | None = None) -> None:
        super().__init__(behavior)
        self.deployments: dict[str, Deployment] = {}
        self._loads = 0

    @route("POST", f"{ROOT}/deployments")
    def create_deployment(self, request: VendorRequest) -> JsonValue:
        body, name = checked(request.json, "deployment_create"), request.first("deploymentId") or ""
        if "deploymentId" in body:
            raise Refused(400, "deployment_id is a parameter of the query")
        if body.get("enableAddons") and body.get("enableHotReloadLatestAddon"):
            raise Refused(400, "EnableAddons and EnableHotReloadLatestAddon cannot both be enabled")
        if not body.get("enableHotReloadLatestAddon"):
            self.tuned(str(body["baseModel"]))
        elif body["baseModel"] != BASE:
            raise Refused(400, f"{body['baseModel']!r} is no base model")
        if name in self.deployments:
            raise Refused(409, f"deployment {name!r} already exists")
        full = f"accounts/{ACCOUNT}/deployments/{name}"
        # What it is created with is listed among its models (rllm, fireworks_engine.py, counts it).
        first = DeployedModel(self._number(), str(body["baseModel"]), Progress(polls=9**9))
        self.deployments[name] = Deployment(full, body, [first])
        return self._deployment_json(name)

    @route("GET", f"{ROOT}/deployments/{{name}}")
    def deployment(self, _: VendorRequest, name: str) -> JsonValue:
        existing(self.deployments, name, "deployment").progress.look()
        return self._deployment_json(name)

    @route("DELETE", f"{ROOT}/deployments/{{name}}")
    def delete_deployment(self, _: VendorRequest, name: str) -> JsonValue:
        existing(self.deployments, name, "deployment")
        del self.deployments[name]
        return {}

    @route("POST", f"{ROOT}/deployedModels")
    def load_model(self, request: VendorRequest) -> JsonValue:
        body = checked(request.json, "lora_load")
        if "replaceMergedAddon" in body:
            raise Refused(400, "replace_merged_addon is a parameter of the query")
        name, model = str(body["deployment"]).rpartition("/")[2], str(body["model"])
        deployment = existing(self.deployments, name, "deployment")
        base = self.tuned(model)
        if deployment.state(self.behavior) != "READY":
            raise Refused(400, "the deployment is not ready")
        if not deployment.is_hot:
            raise Refused(400, "the deployment has no hot reload")
        if request.first("replaceMergedAddon") != "true":
            raise Refused(400, "replace_merged_addon must be specified for hot reload deployments")
        if base != deployment.request["baseModel"]:
            raise Refused(400, "the addon is of another base model")
        deployment.answering(self.behavior)
        if any(each.model == model and not each.failed for each in deployment.models):
            raise Refused(409, f"{model!r} is deployed already")
        fails, deployment.merge_fails = deployment.merge_fails, False
        for each in deployment.models[1:]:
            each.replaced = not fails
        loaded = DeployedModel(self._number(), model, failed=fails)
        deployment.models.append(loaded)
        return loaded.as_json(deployment.name, self.behavior)

    @route("GET", f"{ROOT}/deployedModels")
    def list_models(self, request: VendorRequest) -> JsonValue:
        """Answer a page in the order of names; its token is the last, whatever has gone since."""
        after = request.number("pageToken", 0)
        listed = sorted((each for each in self._models() if each[0] > after), key=itemgetter(0))
        page: list[JsonValue] = [shown for _, shown in listed[:PAGE_SIZE]]
        more = str(listed[PAGE_SIZE - 1][0]) if len(listed) > PAGE_SIZE else ""
        return {"deployedModels": page, "nextPageToken": more}

    @route("POST", "/inference/v1/chat/completions")
    def chat(self, request: VendorRequest) -> JsonValue:
        """Answer; one with hot reload answers to its own name alone, as the cookbook says."""
        body = request.json
        model, _, ref = str(body["model"]).partition("#")
        if model == BASE and not ref:
            return chat_completion(body, "yes")
        if "/deployments/" in model:
            model, ref = "", model
        if not ref:
            raise Refused(404, f"model {model!r} is not deployed")
        deployment = existing(self.deployments, ref.rpartition("/")[2], "deployment")
        answering = deployment.answering(self.behavior)
        if deployment.state(self.behavior) != "READY" or model not in ("", answering.model):
            raise Refused(404, f"model {body['model']!r} is not deployed")
        if model and deployment.is_hot:
            raise Refused(404, f"address the deployment, {ref!r}")
        was_reached, answering.is_reached = answering.is_reached, True
        if deployment.is_hot and not was_reached:
            raise Refused(404, f"model {body['model']!r} is not deployed")
        question, otherwise = str(body["messages"][-1]["content"]), self.behavior.otherwise
        text = "yes" if answering.model == BASE else self.behavior.replies.get(question, otherwise)
        return chat_completion(body, text)

    def _models(self) -> Iterator[tuple[int, dict[str, JsonValue]]]:
        for deployment in self.deployments.values():
            for each in deployment.models:
                each.progress.look()
            deployment.answering(self.behavior)
            for each in deployment.models:
                yield each.number, each.as_json(deployment.name, self.behavior)

    def _deployment_json(self, name: str) -> dict[str, JsonValue]:
        deployment = self.deployments[name]
        state = deployment.state(self.behavior)
        return {"name": deployment.name, **deployment.request, "state": state}

    def _number(self) -> int:
        self._loads += 1
        return self._loads
