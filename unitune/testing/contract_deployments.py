"""What a backend must do whose tuned models answer from deployments, which cost money."""

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
    """The tests; a subclass names the backend."""

    @pytest.fixture(scope="class")
    @classmethod
    def deploys(cls, served: ServedVendor | None) -> Deploys:
        """The backend, if its models answer from deployments; checked before a training is."""
        del served
        backend = registry.backend(cls.name)
        if not isinstance(backend, Deploys):
            pytest.skip(f"{cls.name} needs no deployments")
        return backend

    def ready(self, deploys: Deploys, ref: str, model: TunedModel) -> DeploymentStatus:
        """Poll a deployment until it comes up no more."""
        until = time.monotonic() + self.timeout_seconds
        while (seen := deploys.deployment_status(ref, model)).state in ("starting", "swapping"):
            assert time.monotonic() < until, f"still {seen.state}, {seen.raw!r}"
            time.sleep(self.poll_seconds)
        assert seen.state == "ready", seen.raw
        return seen

    @contextmanager
    def deployed(self, deploys: Deploys, model: TunedModel, name: str = "") -> Generator[str]:
        """Give the id of a deployment, which stands while the body runs."""
        ref = deploys.deploy(model, name or new_name(), self.deploy_options)
        try:
            yield ref
        finally:
            deploys.undeploy(ref)

    @contextmanager
    def answering(self, model: TunedModel) -> Generator[TunedModel]:
        """Give the model that answers, deployed while the body runs where it has to be."""
        backend = registry.backend(self.name)
        if not isinstance(backend, Deploys):
            yield model
            return
        with self.deployed(backend, model) as ref:
            yield self.ready(backend, ref, model).model

    def test_deployment_comes_up_once_and_goes(self, deploys: Deploys, training: Training) -> None:
        """What is charged by the hour is found by its name, never doubled, and ends on request."""
        name = new_name()
        assert deploys.find_deployment(name) is None
        ref = deploys.deploy(training.model, name, self.deploy_options)
        assert deploys.deploy(training.model, name, self.deploy_options) == ref
        assert deploys.find_deployment(name) == ref
        self.ready(deploys, ref, training.model)
        deploys.undeploy(ref)
        assert deploys.find_deployment(name) is None, "it stands, and costs money"
        assert deploys.deployment_status(ref, training.model).state == "gone"
        deploys.undeploy(ref)

    def test_deployment_polled_with_its_own_status_is_the_same(
        self, deploys: Deploys, training: Training
    ) -> None:
        """A later poll gets the model that an earlier poll gave; it must not change."""
        with self.deployed(deploys, training.model) as ref:
            seen = self.ready(deploys, ref, training.model)
            assert deploys.deployment_status(ref, seen.model).model == seen.model

    def test_deployment_serves_the_model_that_is_put_in_its_place(
        self, deploys: Deploys, training: Training, tmp_path: Path
    ) -> None:
        """A promotion moves a deployment: no second one, and asked for twice it is moved once."""
        if not isinstance(deploys, SwapsModel):
            pytest.skip(f"{self.name} cannot put another model in its place")
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
    """Return the name of a deployment that no other test has."""
    return f"contract-{time.time_ns() % 10**12}"
