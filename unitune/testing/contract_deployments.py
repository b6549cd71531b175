"""Test backends whose tuned models need deployments."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from unitune.backends import registry
from unitune.backends.capabilities import DeploymentStatus, Deploys, SwapsModel
from unitune.models import TunedModel
from unitune.testing.contract_base import ContractBase, Training
from unitune.testing.vendor_setup import ServedVendor


class DeploymentContract(ContractBase):
    """Tests of deployments."""

    @pytest.fixture(scope="class")
    @classmethod
    def deploys(cls, served: ServedVendor | None) -> Deploys:
        """Return the backend, if its models need deployments; checked before any training."""
        del served
        backend = registry.backend(cls.name)
        if not isinstance(backend, Deploys):
            pytest.skip(f"{cls.name} needs no deployments")
        return backend

    def ready(self, deploys: Deploys, ref: str, model: TunedModel) -> DeploymentStatus:
        """Poll a deployment until it is ready."""
        until = time.monotonic() + self.timeout_seconds
        while (seen := deploys.deployment_status(ref, model)).state in ("starting", "swapping"):
            assert time.monotonic() < until, f"still {seen.state}, {seen.raw!r}"
            time.sleep(self.poll_seconds)
        assert seen.state == "ready", seen.raw
        return seen

    @contextmanager
    def deployed(self, deploys: Deploys, model: TunedModel, name: str = "") -> Generator[str]:
        """Deploy a model while the body runs and yield the deployment's id."""
        ref = deploys.deploy(model, name or new_name(), self.deploy_options)
        try:
            yield ref
        finally:
            deploys.undeploy(ref)

    @contextmanager
    def answering(self, model: TunedModel) -> Generator[TunedModel]:
        """Yield the model to send requests to, deployed while the body runs if needed."""
        backend = registry.backend(self.name)
        if not isinstance(backend, Deploys):
            yield model
            return
        with self.deployed(backend, model) as ref:
            yield self.ready(backend, ref, model).model

    def test_deployment_comes_up_once_and_goes(self, deploys: Deploys, training: Training) -> None:
        name = new_name()
        assert deploys.find_deployment(name) is None
        ref = deploys.deploy(training.model, name, self.deploy_options)
        assert deploys.deploy(training.model, name, self.deploy_options) == ref
        assert deploys.find_deployment(name) == ref
        self.ready(deploys, ref, training.model)
        deploys.undeploy(ref)
        assert deploys.find_deployment(name) is None, "it still runs and costs money"
        assert deploys.deployment_status(ref, training.model).state == "gone"
        deploys.undeploy(ref)

    def test_deployment_polled_with_its_own_status_is_the_same(
        self, deploys: Deploys, training: Training
    ) -> None:
        with self.deployed(deploys, training.model) as ref:
            seen = self.ready(deploys, ref, training.model)
            assert deploys.deployment_status(ref, seen.model).model == seen.model

    def test_deployment_serves_the_model_that_is_put_in_its_place(
        self, deploys: Deploys, training: Training, tmp_path: Path
    ) -> None:
        if not isinstance(deploys, SwapsModel):
            pytest.skip(f"{self.name} cannot swap models")
        later = self.launch(tmp_path)
        model = self.follow(registry.backend(self.name).submit(later))[-1].model
        assert model is not None
        name = new_name()
        with self.deployed(deploys, training.model, name) as ref:
            assert self.ready(deploys, ref, training.model).tuned == training.model.name
            for new in (model, model, training.model):
                deploys.swap_model(ref, new)
                assert self.ready(deploys, ref, new).tuned == new.name
            assert deploys.find_deployment(name) == ref


def new_name() -> str:
    """Return a new name of a deployment."""
    return f"contract-{time.time_ns() % 10**12}"
