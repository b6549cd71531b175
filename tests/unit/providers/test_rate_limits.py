"""How long a vendor asks to wait reaches the core, whichever vendor it is."""

from __future__ import annotations

import pytest

pytest.importorskip("together", reason="needs the vendors' extras")
pytest.importorskip("google.genai", reason="needs the vendors' extras")
pytest.importorskip("boto3", reason="needs the vendors' extras")

from pathlib import Path

from vendors.serving import VENDORS, serve_vendor

from unitune.backends import registry
from unitune.backends.protocol import Launch, Upload
from unitune.errors import BackendError
from unitune.job.job import Data, Job
from unitune.testing.contract_base import ROWS
from unitune.testing.loopback import Fault


@pytest.mark.parametrize("name", sorted(VENDORS))
def test_a_refused_create_call_says_how_long_to_wait(name: str, tmp_path: Path) -> None:
    with serve_vendor(name) as served:
        backend = registry.backend(name)
        model = served.setup.model
        job = Job(name="a", model=model, backend=name, data=Data(train="train.jsonl"))
        file = tmp_path / "train.jsonl"
        file.write_text("".join(ROWS) * 10)
        uploaded: Upload = backend.upload(file, "a" * 64)
        served.server.inject_fault(Fault.RATE_LIMITED, "POST", served.setup.create)
        with pytest.raises(BackendError) as told:
            backend.submit(Launch("r251125-abc-1", job, uploaded, None, tmp_path))
        assert (told.value.status, told.value.retry_after) == (429, 1.0)
        assert len(served.server.received("POST", served.setup.create)) == 1
