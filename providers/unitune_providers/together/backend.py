"""Tune open models at Together AI with LoRA or full trainings, and deploy them.

A tuned model answers only from a dedicated endpoint, charged by the minute, or from its weights
after a `download`. An endpoint (the name for requests) has a deployment (a model on hardware) and a
traffic split. `deploy` looks for each before it creates it, so it can be repeated after a crash.

Source: together 3.1.1, ``/v2/projects/…``. The description of 2026-04-28 has an older
``/v1/endpoints``, which this SDK no longer has.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import quote

from pydantic import JsonValue

from unitune.backends.capabilities import DeploymentStatus
from unitune.backends.kit.api import Api, by_token, created_id
from unitune.backends.kit.hosted import wait_until, without_none
from unitune.backends.offer import Limits, ModelUpdate, Offer, PriceUpdate
from unitune.backends.options import validated
from unitune.errors import CONFLICT, BackendError, JobError, NotFoundError, Unsupported, UserError
from unitune.models import TunedModel
from unitune.security.json_fields import Fields
from unitune.workspace.user_settings import variable
from unitune_providers.together.options import DeployOptions
from unitune_providers.together.trainings import TRAININGS, TogetherTrainings

LIMITS_SOURCE = "Together, GET /fine-tunes/models/limits"
PROJECT = "TOGETHER_PROJECT_ID"
STOP_SECONDS = 300.0  # longest wait of `undeploy` for replicas to drain
POLL_SECONDS = 3.0
# States of a deployment that does not start again by itself
ASLEEP = ("DEPLOYMENT_STATE_STOPPED", "DEPLOYMENT_STATE_STOPPING")
STOPPED = ("DEPLOYMENT_STATE_STOPPED", "DEPLOYMENT_STATE_FAILED")
# Adapter modes of configurations that load adapters at run time; a whole model needs another
SERVES_ADAPTERS = ("fixed", "dynamic")
NEXT_PAGE = by_token("after", "next_cursor")


class TogetherBackend(TogetherTrainings):
    """Backend that tunes and serves models at Together AI."""

    name: ClassVar[str] = "together"
    capabilities = ("Deletes", "Deploys", "Downloads")

    def download(self, model: TunedModel, folder: Path) -> Path:
        """Download a tuned model's weights into a folder and return the file.

        A LoRA training gives its adapter, as merged weights are kept only for some base models.
        """
        job_id, step = self._training_of(model)
        is_full = self._job(job_id).fields("training_type").text("type") == "Full"
        kind = "model_output_path" if is_full else "adapter"
        which = {"checkpoint": kind} if step is None else {"checkpoint_step": step}
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{secrets.token_hex(8)}.part"
        try:
            with draft.open("xb") as file:
                content_type = self.api.download(
                    *("v1", "finetune", "download"),
                    action=f"send the weights of training {job_id}",
                    file=file,
                    query={"ft_id": job_id, **which},
                )
            # The SDK distinguishes two archives by content type.
            ending = ".tar.gz" if "x-tar" in content_type else ".tar.zst"
            name = model.name.replace("/", "--").replace(":", "-step-")
            return draft.replace(folder / f"{name}{ending}")
        finally:
            draft.unlink(missing_ok=True)

    def delete_model(self, model: TunedModel) -> None:
        """Delete a tuned model and its job."""
        name, step = _name_and_step(model.name)
        if step is not None:
            raise Unsupported(
                f"together cannot delete checkpoint {model.name} without its model, {name}."
            )
        if job_id := self._job_that_made(name):
            self.api.delete(*TRAININGS, job_id, action=f"delete {model.name}")

    @cached_property
    def project(self) -> str:
        """Project of the endpoints, from the environment or the key."""
        if chosen := variable(PROJECT):
            return chosen
        caller = self.api.get("v3", "whoami", action="look up the project of the key")
        if project := caller.fields("project").text("id"):
            return project
        raise UserError(
            f"the key in {self.key_variable} does not belong to a single project. Set {PROJECT} to "
            "the project of the endpoints; `tg projects list` lists projects."
        )

    def deploy(self, model: TunedModel, name: str, options: Mapping[str, JsonValue]) -> str:
        """Deploy a tuned model on dedicated hardware and return the endpoint's id."""
        chosen = validated(DeployOptions, options, "deploy option")
        endpoint = self._endpoint(name)
        deployments = endpoint.items("deployments") if endpoint else ()
        deployment = next((each for each in deployments if _has_name(each, name)), None)
        if endpoint is None or deployment is None:
            body = self._deployment_body(model, name, chosen)  # before anything is created
            endpoint = endpoint or self._create(name)
            path = ("endpoints", self._id(endpoint), "deployments")
            deployment = self._serving.post(*path, action=f"start deployment {name}", body=body)
        elif deployment.text("state") in ASLEEP:
            self._scale(self._id(endpoint), deployment, _autoscaling(chosen))
        deployment_id = self._id(deployment)
        split = [entry.text("deploymentId") for entry in endpoint.items("trafficSplit")]
        if deployment_id not in split:
            self._route(self._id(endpoint), [{"deploymentId": deployment_id, "weight": 1}])
        return self._id(endpoint)

    def find_deployment(self, name: str) -> str | None:
        endpoint = self._endpoint(name)
        return endpoint and endpoint.text("id")

    def deployment_status(self, ref: str, model: TunedModel) -> DeploymentStatus:
        """Return the status of an endpoint; a stopped one is gone, as it costs nothing."""
        if (endpoint := self._existing(ref)) is None:
            return DeploymentStatus("gone", model, "no such endpoint")
        served = model.model_copy(update={"name": endpoint.text("name") or model.name})
        for deployment in endpoint.items("deployments"):
            word = deployment.text("state") or "no state"
            return DeploymentStatus(_state(deployment), served, word)
        return DeploymentStatus("failed", served, "the endpoint has no deployment")

    def undeploy(self, ref: str) -> None:
        """Stop and remove an endpoint; raise a `BackendError` while it is still stopping."""
        if (endpoint := self._existing(ref)) is None:
            return
        for deployment in endpoint.items("deployments"):
            self._scale(ref, deployment, {"minReplicas": 0, "maxReplicas": 0})
        endpoint = self._stopped(ref)
        if endpoint.items("trafficSplit"):
            self._route(ref, [])
        action = f"remove endpoint {ref}"
        for deployment in endpoint.items("deployments"):
            path = ("endpoints", ref, "deployments", self._id(deployment))
            self._serving.delete(*path, action=action)
        self._serving.delete("endpoints", ref, action=action)

    @property
    def _serving(self) -> Api:
        return Api(self.endpoint(f"/v2/projects/{quote(self.project, safe='')}"))

    def _endpoint(self, name: str) -> Fields | None:
        """Return the endpoint of a name; its full name begins with the project's."""
        query, action = {"filter": f'name="{name}"'}, "list the endpoints"
        endpoints = self._serving.pages(
            "endpoints", action=action, next_page=NEXT_PAGE, query=query
        )
        return next((endpoint for endpoint in endpoints if _has_name(endpoint, name)), None)

    def _create(self, name: str) -> Fields:
        try:
            action = f"create endpoint {name}"
            return self._serving.post("endpoints", action=action, body={"name": name})
        except BackendError as error:
            # Another process may have created it since the search.
            endpoint = self._endpoint(name) if error.status == CONFLICT else None
            if endpoint is None:
                raise
            return endpoint

    def _existing(self, ref: str) -> Fields | None:
        return self._serving.find("endpoints", ref, action=f"read endpoint {ref}")

    def _deployment_body(
        self, model: TunedModel, name: str, options: DeployOptions
    ) -> dict[str, JsonValue]:
        weights_id = self._weights_id(model)
        weights = self._serving.get("models", weights_id, action=f"read model {weights_id}")
        path = f"projects/{weights.text('projectId')}/models/{weights_id}"
        if (config := options.config) is None:
            config = self._config(weights, weights.text("baseModel") or path, options)
        elif "/" not in config:
            config = f"projects/{self.project}/configs/{config}"
        body: dict[str, JsonValue] = {
            "name": name,
            "model": path,
            "config": config,
            "autoscaling": _autoscaling(options),
            "inactiveTimeout": options.inactive_timeout,
        }
        return without_none(body)

    def _job_that_made(self, name: str) -> str | None:
        jobs = self._jobs().items()
        return next((ref for ref, job in jobs if job.text("model_output_name") == name), None)

    def _training_of(self, model: TunedModel) -> tuple[str, int | None]:
        name, step = _name_and_step(model.name)
        if (job_id := self._job_that_made(name)) is None:
            raise _no_model(model)
        return job_id, step

    def _weights_id(self, model: TunedModel) -> str:
        job_id, step = self._training_of(model)
        if step is None:
            job = self._job(job_id)
            # Together merges an adapter into its base when it is deployed alone.
            ids = [job.text("model_object_id"), job.text("adapter_object_id")]
        else:
            checkpoints = self._list_checkpoints(job_id)
            ids = [item.text("object_id") for item in checkpoints if item.whole("step") == step]
        if (weights_id := next(filter(None, ids), None)) is None:
            raise _no_model(model)
        return weights_id

    def _config(self, weights: Fields, base: str, options: DeployOptions) -> str:
        query, action = {"referenceModel": base}, f"list the configurations of {base}"
        listed = self._serving.pages("configs", action=action, next_page=NEXT_PAGE, query=query)
        whole = [item for item in listed if _selector(item, "adapter_mode") not in SERVES_ADAPTERS]
        fitting = [item for item in whole if options.hardware in (None, _hardware(item))]
        if len(fitting) == 1:
            return f"projects/{fitting[0].text('projectId')}/configs/{self._id(fitting[0])}"
        known = ", ".join(f"{item.text('id')} ({_hardware(item)})" for item in fitting or whole)
        what = "several configurations" if fitting else "no configuration"
        where = f" on {options.hardware}" if options.hardware else ""
        raise JobError(
            f"together has {what} for {weights.text('name')}{where}. Choose one with the deploy "
            f"option `config` or `hardware`. Available: {known or 'none'}."
        )

    def _scale(self, ref: str, deployment: Fields, replicas: dict[str, JsonValue]) -> None:
        path = (ref, "deployments", self._id(deployment))
        self._change(path, f"scale the deployment of endpoint {ref}", "autoscaling", replicas)

    def _route(self, ref: str, split: list[JsonValue]) -> None:
        self._change((ref,), f"route the requests of endpoint {ref}", "trafficSplit", split)

    def _change(self, path: tuple[str, ...], action: str, field: str, value: JsonValue) -> None:
        query, body = {"updateMask": field}, {field: value}
        self._serving.request("PATCH", "endpoints", *path, action=action, params=query, json=body)

    def _stopped(self, ref: str) -> Fields:
        """Wait until all deployments have stopped, as Together removes only stopped ones."""
        endpoint, running = Fields({}), list[str | None]()

        def is_stopped() -> bool:
            nonlocal endpoint, running
            endpoint = self._existing(ref) or Fields({})
            states = [deployment.text("state") for deployment in endpoint.items("deployments")]
            running = [state for state in states if state not in STOPPED]
            return not running

        if not wait_until(is_stopped, STOP_SECONDS, POLL_SECONDS):
            raise BackendError(
                f"endpoint {ref} is scaled to 0, but still {running[0]} after {STOP_SECONDS:.0f} "
                "seconds. It costs money until it has stopped. Undeploy it again."
            )
        return endpoint

    def _id(self, resource: Fields) -> str:
        return created_id(resource, self.api.endpoint)


class TogetherPrices:
    """Reader of models' limits; Together's API has no price list."""

    def read_prices(self, offer: Offer, day: date) -> PriceUpdate:
        backend, updates, notes = TogetherBackend(), list[ModelUpdate](), list[str]()
        for name in (model.name for model in offer.models):
            if (limits := backend.limits(name)) is None:
                notes.append(f"{name}: not tuned by Together now")
                continue
            most = Limits(
                epochs_most=limits.whole("max_num_epochs"),
                row_tokens=limits.whole("max_seq_length_sft"),
            )
            updates.append(
                ModelUpdate(
                    backend=offer.name, model=name, limits=most, as_of=day, source=LIMITS_SOURCE
                )
            )
        notes.append("Together's API has no price list; a launch requests a quote")
        return PriceUpdate(models=tuple(updates), notes=tuple(notes))


def _name_and_step(name: str) -> tuple[str, int | None]:
    model, _, step = name.rpartition(":")
    return (model, int(step)) if model and step.isdecimal() else (name, None)


def _no_model(model: TunedModel) -> NotFoundError:
    hint = "It may have been deleted; `tg fine-tuning list` lists existing models."
    return NotFoundError("model at together", model.name, (), hint)


def _has_name(resource: Fields, name: str) -> bool:
    return (resource.text("name") or "").rpartition("/")[2] == name


def _hardware(config: Fields) -> str:
    return f"{_selector(config, 'accelerator_count')}x{_selector(config, 'accelerator_type')}"


def _selector(config: Fields, key: str) -> str | None:
    selectors = config.items("selectors")
    return next((item.text("value") for item in selectors if item.text("key") == key), None)


def _autoscaling(options: DeployOptions) -> dict[str, JsonValue]:
    highest = options.max_replicas or options.min_replicas
    return {"minReplicas": options.min_replicas, "maxReplicas": highest}


def _state(deployment: Fields) -> Literal["starting", "ready", "failed", "gone"]:
    word = deployment.text("state")
    if word == "DEPLOYMENT_STATE_STOPPED":
        return "gone"
    # A draining deployment costs money and will not return.
    if word in ("DEPLOYMENT_STATE_FAILED", "DEPLOYMENT_STATE_STOPPING"):
        return "failed"
    answers = word == "DEPLOYMENT_STATE_READY" or bool(deployment.whole("readyReplicas"))
    return "ready" if answers else "starting"
