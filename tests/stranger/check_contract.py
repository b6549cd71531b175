"""The complete contract test of a backend outside of unitune."""

from __future__ import annotations

from unitune_stranger.vendor import KEY, ExampleVendor

from unitune.testing import BackendContract, VendorSetup


class TestStrangerBackend(BackendContract):
    name = "stranger"
    setup = VendorSetup(
        vendor=ExampleVendor,
        environment=lambda server: {"STRANGER_URL": server.url, "STRANGER_API_KEY": KEY},
        create=r"/jobs$",
        model="base-words",
        timeouts=("unitune.backends.kit.api.TIMEOUT_SECONDS",),
    )
