"""Vendors of steps on loopback, for tests that hold them all to the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from unitune.testing.loopback import serve
from vendors import azure_sessions, tinker
from vendors.azure_sessions import AzureSessionsVendor
from vendors.tinker.vendor import TinkerVendor

AnyVendor = TinkerVendor | AzureSessionsVendor


@dataclass(frozen=True)
class StepPlace:
    """A vendor of steps, and how a test reaches it."""

    name: str
    vendor: type[AnyVendor]
    variables: Mapping[str, str]
    models: Callable[[Any], dict[str, Any]]  # states of the finished models, by name

    def __str__(self) -> str:
        """Return the name, as a test's id."""
        return self.name

    @contextlib.contextmanager
    def served(self, vendor: Any) -> Generator[Any]:
        """Serve the vendor, and let the environment name it."""
        with serve(vendor) as server, pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value.format(url=server.url))
            yield server


def _tinker_models(vendor: TinkerVendor) -> dict[str, Any]:
    kept = vendor.kept.items()
    return {name: each.state for name, each in kept if each.kind == "sampler_weights"}


def _azure_models(vendor: AzureSessionsVendor) -> dict[str, Any]:
    return {
        f"{session.id}/{name}": state
        for session in vendor.sessions.values()
        for name, (_, state) in session.checkpoints.items()
        if name.endswith("-final")
    }


TINKER = StepPlace(
    "tinker",
    TinkerVendor,
    {"TINKER_BASE_URL": "{url}", "TINKER_API_KEY": tinker.KEY},
    _tinker_models,
)
AZURE = StepPlace(
    "azure-sessions",
    AzureSessionsVendor,
    {"AZURE_AI_PROJECT_ENDPOINT": "{url}", "AZURE_AI_API_KEY": azure_sessions.KEY},
    _azure_models,
)
