"""The Together backend keeps the contract of every backend, on the real SDK and a loopback."""

from __future__ import annotations

import pytest

pytest.importorskip("together", reason="needs the extra `together`")

from vendors.serving import VENDORS

from unitune.testing.contract import BackendContract


class TestTogether(BackendContract):
    name = "together"
    setup = VENDORS["together"]
    deploy_options = {"config": "cr_one"}  # noqa: RUF012 - the contract's class attribute
