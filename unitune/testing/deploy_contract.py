"""What every backend must do whose tuned models answer from deployments; part of the contract.

Skipped for a backend that is no `unitune.backends.capabilities.Deploys`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest
from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.capabilities import DeploymentStatus, Deploys
from unitune.models import TunedModel

if TYPE_CHECKING:
    from unitune.testing.contract import Training


class DeployContract:
    """The tests; a subclass names the backend."""

    name: ClassVar[str]
    deploy_options: ClassVar[Mapping[str, JsonValue]] = {}
    """The backend's own, with which a deployment comes up."""
    poll_seconds: ClassVar[float]
    patience_seconds: ClassVar[float]

    @pytest.fixture
    def deploys(self) -> Deploys:
        """The backend, if its models answer from deployments."""
        found = registry.backend(self.name)
        if not isinstance(found, Deploys):
            pytest.skip(f"{self.name} needs no deployments")
        return found

    def ready(self, deploys: Deploys, ref: str, model: TunedModel) -> DeploymentStatus:
        """Look at a deployment until it comes up no more."""
        until = time.monotonic() + self.patience_seconds
        while (seen := deploys.deployment_status(ref, model)).state == "starting":
            assert time.monotonic() < until, f"still starting, {seen.raw!r}"
            time.sleep(self.poll_seconds)
        assert seen.state == "ready", seen.raw
        return seen

    @contextmanager
    def answering(self, model: TunedModel) -> Generator[TunedModel]:
        """Give the model that is asked, deployed while the body runs where it has to be."""
        backend = registry.backend(self.name)
        if not isinstance(backend, Deploys):
            yield model
            return
        ref = backend.deploy(model, f"contract-{time.time_ns() % 10**12}", self.deploy_options)
        try:
            yield self.ready(backend, ref, model).model
        finally:
            backend.undeploy(ref)

    def test_deployment_comes_up_once_and_goes(self, deploys: Deploys, training: Training) -> None:
        """What is charged by the hour is found by its name, never doubled, and ends when told."""
        name = f"contract-{time.time_ns() % 10**12}"
        assert deploys.find_deployment(name) is None
        ref = deploys.deploy(training.model, name, self.deploy_options)
        assert deploys.deploy(training.model, name, self.deploy_options) == ref
        assert deploys.find_deployment(name) == ref
        self.ready(deploys, ref, training.model)
        deploys.undeploy(ref)
        assert deploys.find_deployment(name) is None, "it stands, and costs money"
        assert deploys.deployment_status(ref, training.model).state == "gone"
        deploys.undeploy(ref)

    def test_deployment_told_its_own_answer_says_the_same(
        self, deploys: Deploys, training: Training
    ) -> None:
        """A later look is handed the model that an earlier look gave; it must not change."""
        ref = deploys.deploy(
            training.model, f"contract-{time.time_ns() % 10**12}", self.deploy_options
        )
        try:
            seen = self.ready(deploys, ref, training.model)
            assert deploys.deployment_status(ref, seen.model).model == seen.model
        finally:
            deploys.undeploy(ref)
