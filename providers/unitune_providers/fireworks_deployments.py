"""Deploy models at Fireworks AI and address its resources.

A deployment is started with a tuned model, which is merged into its base and answers to
``MODEL#DEPLOYMENT``. With the option `hot_reload` it is started with the base; the tuned model is
loaded once it is ready and can be replaced. The deployment then answers to its own name.

Sources: docs.fireworks.ai, its gateway's OpenAPI 4.259.0 (create-deployment, create-deployed-model,
deploying-loras, ondemand-deployments: the name to query); fireworks-ai 1.2.30. The order of calls
is that of fw-ai/cookbook, eval/multi_lora_hotreload_eval.py (76821fa): the state of the deployed
model, not that of the deployment, shows what is merged; then requests are sent until one is
answered. Undocumented: loading into a deployment without hot reload, which is not tried; how a
failed merge is shown, for which `status` is read; and which shapes support hot reload (not FP8 and
FP4 with separate adapters, by the cookbook), which is therefore an option.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from unitune.backends.capabilities import DeploymentStatus
from unitune.backends.kit.api import Api, Query, ResourceApi, by_token
from unitune.backends.kit.hosted import HostedBackend, Options, create_named, required
from unitune.backends.options import validated
from unitune.documents import Spec
from unitune.errors import CONFLICT, BackendError, Unsupported
from unitune.models import TunedModel
from unitune.security.json_fields import Fields

HOT_RELOAD = "enableHotReloadLatestAddon"
READY = "READY"
GONE = ("DELETING", "DELETED")


class FireworksDeployOptions(Spec):
    """Options of a deployment."""

    shape: str = "default"
    """Name of a deployment shape: hardware and precision tested by Fireworks with a base."""
    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    hot_reload: bool = False
    """Whether `promote --deploy` can replace its model by another one of the same base. The base is
    then started first and the model merged afterwards."""


class FireworksDeployments(HostedBackend[Options]):
    """Deployments and resources of an account at Fireworks AI."""

    name: ClassVar[str] = "fireworks"
    capabilities = ("Deploys", "SwapsModel")
    address = "https://api.fireworks.ai"
    address_variable = "FIREWORKS_BASE_URL"
    key_variable = "FIREWORKS_API_KEY"
    headers_variable = "FIREWORKS_CUSTOM_HEADERS"
    chat_path = "/inference/v1"

    @property
    def api(self) -> ResourceApi:
        """The vendor's API, with paths as resource names."""
        return ResourceApi(self.endpoint("/v1"))

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Deploy a tuned model, or the base into which it is loaded; return the name."""
        chosen = validated(FireworksDeployOptions, options, "deploy options of fireworks")
        body: dict[str, JsonValue] = {
            "baseModel": model.base if chosen.hot_reload else model.name,
            "deploymentShape": chosen.shape,
            "minReplicaCount": chosen.min_replicas,
            "maxReplicaCount": max(chosen.min_replicas, chosen.max_replicas),
        }
        if chosen.hot_reload:
            body[HOT_RELOAD] = True
        return self._create("deployments", "deploymentId", name, body)

    def find_deployment(self, name: str) -> str | None:
        ref = self._ref("deployments", name)
        return ref if self._find(ref) else None

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        if (deployment := self._find(ref)) is None:
            return DeploymentStatus("gone", model, "no such deployment")
        word = deployment.text("state") or "no state"
        if word == "FAILED":
            return DeploymentStatus("failed", model, word)
        if _is_hot(deployment) or model.name == ref:
            return self._hot_status(ref, model, deployment, word)
        name = f"{model.name.partition('#')[0]}#{ref}"
        served = model.model_copy(update={"name": name})
        return DeploymentStatus("ready" if word == READY else "starting", served, word)

    def swap_model(self, ref: str, model: TunedModel) -> None:
        """Replace the tuned model of a deployment with hot reload."""
        deployment = self.api.get(ref, action=f"read {ref}")
        if not _is_hot(deployment):
            raise Unsupported(
                f"deployment {ref.rpartition('/')[2]} was started without hot reload, so its model "
                "cannot be replaced. Deploy the new version separately (unitune deployments up RUN "
                "--ttl 2h --option hot_reload=true), send requests there, and take this one down: "
                f"unitune deployments down {ref.rpartition('/')[2]}"
            )
        self._load(ref, model, deployment)

    def undeploy(self, ref: str) -> None:
        """Delete a deployment, even if it is in use."""
        self._delete(ref)

    def model_behind(self, name: str) -> str:
        """Return the tuned model merged into a deployment, for a deployment's name."""
        deployment = self._find(name) if "/deployments/" in name and "#" not in name else None
        models = [] if deployment is None else self._models(name, deployment)
        return ", ".join(each.text("model") or "" for each in models) or name

    def _hot_status(
        self, ref: str, model: TunedModel, deployment: Fields, word: str
    ) -> DeploymentStatus:
        """Return the status with hot reload; a model that is ready has the deployment's name."""
        has_answered, models = model.name == ref, self._models(ref, deployment)
        if word == READY and not models and not has_answered:
            return DeploymentStatus("empty", model, word)
        raw = ", ".join([word, *map(_shown, models)])
        merged = [each for each in models if each.text("state") == "DEPLOYED"]
        on_their_way = [each for each in models if each not in merged and not _has_failed(each)]
        is_moving = word != READY or bool(on_their_way) or len(merged) > 1
        if is_moving or (merged and not has_answered and not self._is_reached(ref)):
            return DeploymentStatus("swapping" if has_answered else "starting", model, raw)
        if not merged:
            return DeploymentStatus("failed", model, raw)
        served = model.model_copy(update={"name": ref})
        return DeploymentStatus("ready", served, raw, merged[0].text("model"))

    def _is_reached(self, ref: str) -> bool:
        """Return whether a deployment answers; for seconds after a merge it may return 404."""
        question: JsonValue = [{"role": "user", "content": "hi"}]
        body: dict[str, JsonValue] = {"model": ref, "messages": question, "max_tokens": 1}
        api, action = Api(self.endpoint(self.chat_path)), f"send a request to {ref}"
        try:
            api.post("chat", "completions", action=action, body=body)
        except BackendError as error:
            return not error.is_not_found
        return True

    def _load(self, ref: str, model: TunedModel, deployment: Fields) -> None:
        action, query = f"load {model.name} into {ref}", {"replaceMergedAddon": "true"}
        body: dict[str, JsonValue] = {"model": model.name, "deployment": ref}
        try:
            self.api.post(self._ref("deployedModels"), action=action, query=query, body=body)
        except BackendError as error:
            if error.status != CONFLICT:
                raise
            if model.name not in [each.text("model") for each in self._models(ref, deployment)]:
                raise

    def _models(self, ref: str, deployment: Fields) -> list[Fields]:
        listed = self.api.pages(
            self._ref("deployedModels"),
            action=f"list the models of {ref}",
            items="deployedModels",
            next_page=by_token(),
            query={"pageSize": "200"},
        )
        base = deployment.text("baseModel")
        return [
            each
            for each in listed
            if each.text("deployment") == ref
            and each.text("model") != base
            and each.text("state") != "UNDEPLOYING"
        ]

    def _ref(self, *path: str) -> str:
        account = required("FIREWORKS_ACCOUNT_ID", "the account at fireworks")
        return "/".join(("accounts", account, *path))

    def _find(self, ref: str, query: Query | None = None) -> Fields | None:
        resource = self.api.find(ref, action=f"find {ref}", query=query)
        return None if resource and resource.text("state") in GONE else resource

    def _create(
        self, collection: str, parameter: str, name: str, body: Mapping[str, JsonValue]
    ) -> str:
        ref, action = self._ref(collection), f"create {name}"
        create_named(self.api, ref, parameter=parameter, name=name, action=action, body=body)
        return f"{ref}/{name}"

    def _delete(self, ref: str) -> None:
        query = {"ignoreChecks": "true"} if "/deployments/" in ref else {}
        self.api.delete(ref, action=f"delete {ref}", query=query)


def _is_hot(deployment: Fields) -> bool:
    return deployment.all.get(HOT_RELOAD) is True


def _has_failed(model: Fields) -> bool:
    return model.fields("status").text("code") not in (None, "OK")


def _shown(model: Fields) -> str:
    words = (model.text("model"), model.text("state"), model.fields("status").text("message"))
    return " ".join(filter(None, words))
