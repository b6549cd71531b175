"""The backend of SkyPilot keeps the contract, at a double of its API server."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")

from support.remote_contract import RemoteContract
from vendors.skypilot import skypilot_setup

from unitune.backends.protocol import Backend
from unitune.errors import BackendError
from unitune.testing.loopback import Fault, Server

pytestmark = pytest.mark.heavy


class TestSkyPilot(RemoteContract):
    name = "skypilot"
    setup = skypilot_setup()
    setup_with = staticmethod(skypilot_setup)

    def test_refused_poll_says_its_status(
        self, backend: Backend, server: Server, tmp_path: Path
    ) -> None:
        """The cluster's name is in the query."""
        job_id = backend.submit(self.launch(tmp_path))
        server.inject_fault(Fault.EXPIRED_KEY, "GET", "/api/status")
        with pytest.raises(BackendError) as error:
            backend.poll(job_id, "")
        assert error.value.status == 401
