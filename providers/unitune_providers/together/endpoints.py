"""Dedicated endpoints at Together: a tuned model answers only from one, at a price by the minute.

An endpoint (a name to ask) holds a deployment (a model on hardware, by a configuration that
Together publishes) and a traffic split that leads from one to the other. `deploy` makes the three
one after the other and looks for each before it makes it, so that it can be repeated after a crash;
`undeploy` stops the deployment, which ends the charges, and then removes all three.

This speaks ``/v2/projects/…``, as the SDK 3.1 does. The description of 2026-04-28 has an older
``/v1/endpoints`` (a model and a hardware at once), which this SDK no longer knows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import JsonValue
from together import ConflictError, omit
from together.types import DeploymentAutoscalingParam, Endpoint, Model
from together.types.endpoint_deployment_summary import EndpointDeploymentSummary
from together.types.models.config import Config

from unitune.backends.capabilities import DeploymentStatus
from unitune.errors import BackendError, JobError
from unitune.models import TunedModel
from unitune_providers.together.client import Connection, is_gone, translated
from unitune_providers.together.models import registry_id
from unitune_providers.together.options import DeployOptions, deploy_options

STOP_SECONDS = 300.0
"""How long `undeploy` waits for replicas to drain."""
LOOK_SECONDS = 3.0
ASLEEP = ("DEPLOYMENT_STATE_STOPPED", "DEPLOYMENT_STATE_STOPPING")
"""What does not start again by itself."""
STOPPED = ("DEPLOYMENT_STATE_STOPPED", "DEPLOYMENT_STATE_FAILED")
SERVES_ADAPTERS = ("fixed", "dynamic")
"""Configurations that adapters are hung into at run time; a model of its own needs another."""


def deploy(
    connection: Connection, model: TunedModel, name: str, given: Mapping[str, JsonValue]
) -> str:
    """Bring a model up and return the id of its endpoint; see `Deploys`.

    Raises:
        JobError: An option is not right, or the configuration must be chosen.
        NotFoundError: Together has no such model.
    """
    options = deploy_options(given)
    endpoint = _named(connection, name)
    deployment = endpoint and _deployment(endpoint, name)
    if endpoint is None or deployment is None:
        served = _served(connection, model, options)  # before anything is made, as it may refuse
        endpoint = endpoint or _created(connection, name)
        deployment_id = _start(connection, endpoint, name, served, options)
    else:
        deployment_id = deployment.id
        if deployment.state in ASLEEP:
            _scale(connection, endpoint.id, deployment_id, _autoscaling(options))
    if all(entry.deployment_id != deployment_id for entry in endpoint.traffic_split or []):
        with translated(f"lead requests to endpoint {endpoint.name}"):
            connection.writes.endpoints.update(
                endpoint.id,
                project_id=connection.project,
                traffic_split=[{"deployment_id": deployment_id, "weight": 1}],
                update_mask="trafficSplit",
            )
    return endpoint.id


def find(connection: Connection, name: str) -> str | None:
    """Return the id of the endpoint of a name; None where there is none."""
    endpoint = _named(connection, name)
    return None if endpoint is None else endpoint.id


def deployment_status(connection: Connection, ref: str, model: TunedModel) -> DeploymentStatus:
    """Return how an endpoint stands.

    Args:
        connection: To Together.
        ref: The endpoint's id.
        model: What it serves.
    """
    endpoint = _existing(connection, ref)
    if endpoint is None:
        return DeploymentStatus("gone", model, "no such endpoint")
    asked = model.model_copy(update={"name": endpoint.name})
    if not endpoint.deployments:
        return DeploymentStatus("failed", asked, "the endpoint has no deployment")
    deployment = endpoint.deployments[0]
    return DeploymentStatus(_standing(deployment), asked, deployment.state)


def undeploy(connection: Connection, ref: str) -> None:
    """Stop and remove an endpoint; one that is gone is no error.

    Raises:
        BackendError: It is still stopping; call again.
    """
    endpoint = _existing(connection, ref)
    if endpoint is None:
        return
    for deployment in endpoint.deployments or []:
        _scale(connection, ref, deployment.id, {"min_replicas": 0, "max_replicas": 0})
    endpoint = _stopped(connection, ref)
    with translated(f"remove endpoint {ref}"):
        if endpoint.traffic_split:
            connection.writes.endpoints.update(
                ref, project_id=connection.project, traffic_split=[], update_mask="trafficSplit"
            )
        for deployment in endpoint.deployments or []:
            connection.writes.endpoints.deployments.delete(
                deployment.id, endpoint_id=ref, project_id=connection.project
            )
        connection.writes.endpoints.delete(ref, project_id=connection.project)


def _named(connection: Connection, name: str) -> Endpoint | None:
    """Return the endpoint of a name; the vendor's own comes with the project's before it."""
    with translated("list the endpoints"):
        listed = connection.reads.endpoints.list(
            project_id=connection.project, filter=f'name="{name}"'
        )
        return next((one for one in listed if one.name.rpartition("/")[2] == name), None)


def _created(connection: Connection, name: str) -> Endpoint:
    with translated(f"create endpoint {name}"):
        try:
            return connection.writes.endpoints.create(project_id=connection.project, name=name)
        except ConflictError:
            # Made by another process since we looked.
            found = _named(connection, name)
            if found is None:
                raise
            return found


def _existing(connection: Connection, ref: str) -> Endpoint | None:
    try:
        with translated(f"look at endpoint {ref}"):
            return connection.reads.endpoints.retrieve(ref, project_id=connection.project)
    except BackendError as error:
        if is_gone(error):
            return None
        raise


def _deployment(endpoint: Endpoint, name: str) -> EndpointDeploymentSummary | None:
    found = endpoint.deployments or []
    return next((one for one in found if one.name.rpartition("/")[2] == name), None)


class _Served(NamedTuple):
    """Weights and the configuration that serves them, as paths."""

    model: str
    config: str


def _served(connection: Connection, model: TunedModel, options: DeployOptions) -> _Served:
    weights = _weights(connection, model)
    config = options.config
    if config is None:
        config = _config_path(_config(connection, weights, options))
    elif "/" not in config:
        config = f"projects/{connection.project}/configs/{config}"
    return _Served(f"projects/{weights.project_id}/models/{weights.id}", config)


def _start(
    connection: Connection, endpoint: Endpoint, name: str, served: _Served, options: DeployOptions
) -> str:
    with translated(f"start deployment {name}"):
        made = connection.writes.endpoints.deployments.create(
            endpoint.id,
            project_id=connection.project,
            name=name,
            model=served.model,
            config=served.config,
            autoscaling=_autoscaling(options),
            inactive_timeout=options.inactive_timeout or omit,
        )
    return made.id


def _weights(connection: Connection, model: TunedModel) -> Model:
    found = registry_id(connection, model)
    with translated(f"look up the weights of {model.name}"):
        return connection.reads.models.retrieve(found, project_id=connection.project)


def _config(connection: Connection, weights: Model, options: DeployOptions) -> Config:
    """Return the one configuration that fits; which of several is the user's to say."""
    base = weights.base_model or f"projects/{weights.project_id}/models/{weights.id}"
    with translated(f"list the configurations for {weights.name}"):
        listed = list(
            connection.reads.models.configs.list(
                project_id=connection.project, reference_model=base
            )
        )
    own = [one for one in listed if _selector(one, "adapter_mode") not in SERVES_ADAPTERS]
    fitting = [one for one in own if options.hardware in (None, _hardware(one))]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(f"{one.id} ({_hardware(one)})" for one in fitting or own) or "none"
    what = "several configurations" if fitting else "no configuration"
    on = f" on {options.hardware}" if options.hardware else ""
    raise JobError(
        f"together has {what} for {weights.name}{on}. Name one with the deploy option `config`, or "
        f"`hardware`. There are: {known}."
    )


def _config_path(config: Config) -> str:
    return f"projects/{config.project_id}/configs/{config.id}"


def _hardware(config: Config) -> str:
    """Return a configuration's hardware as Together names it: ``1xnvidia-h100-80gb``."""
    count, kind = _selector(config, "accelerator_count"), _selector(config, "accelerator_type")
    return f"{count}x{kind}"


def _selector(config: Config, key: str) -> str | None:
    return next((one.value for one in config.selectors or [] if one.key == key), None)


def _autoscaling(options: DeployOptions) -> DeploymentAutoscalingParam:
    most = options.max_replicas or options.min_replicas
    return {"min_replicas": options.min_replicas, "max_replicas": most}


def _scale(
    connection: Connection, ref: str, deployment_id: str, to: DeploymentAutoscalingParam
) -> None:
    with translated(f"scale the deployment of endpoint {ref}"):
        connection.writes.endpoints.deployments.update(
            deployment_id,
            endpoint_id=ref,
            project_id=connection.project,
            autoscaling=to,
            update_mask="autoscaling",
        )


def _stopped(connection: Connection, ref: str) -> Endpoint:
    """Wait until nothing serves any more: Together removes only what is stopped."""
    until = time.monotonic() + STOP_SECONDS
    while True:
        with translated(f"look at endpoint {ref}"):
            endpoint = connection.reads.endpoints.retrieve(ref, project_id=connection.project)
        standing = [one.state for one in endpoint.deployments or [] if one.state not in STOPPED]
        if not standing:
            return endpoint
        if time.monotonic() > until:
            raise BackendError(
                f"endpoint {ref} is scaled to nothing, but still {standing[0]} after "
                f"{STOP_SECONDS:.0f} seconds. It costs until it has stopped; undeploy it again."
            )
        time.sleep(LOOK_SECONDS)


def _standing(
    deployment: EndpointDeploymentSummary,
) -> Literal["starting", "ready", "failed", "gone"]:
    """Return a deployment's state in our words; `DeploymentStatus.raw` has the vendor's."""
    if deployment.state == "DEPLOYMENT_STATE_STOPPED":
        return "gone"
    # While it drains it costs, and it will not come back.
    if deployment.state in ("DEPLOYMENT_STATE_FAILED", "DEPLOYMENT_STATE_STOPPING"):
        return "failed"
    answers = deployment.state == "DEPLOYMENT_STATE_READY" or bool(deployment.ready_replicas)
    return "ready" if answers else "starting"
