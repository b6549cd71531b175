"""The Ray backend keeps the contract, at a double of Ray's job API; adapters are real ones."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("fsspec", reason="needs the extra `ray`")

from support.remote_contract import RemoteContract
from vendors.ray import ray_setup

pytestmark = pytest.mark.heavy


class TestRay(RemoteContract):
    name = "ray"
    setup = ray_setup()
    setup_with = staticmethod(ray_setup)
