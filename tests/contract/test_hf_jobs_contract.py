"""The backend of Hugging Face Jobs keeps the contract, at a double of the Hub's API of jobs."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("huggingface_hub", reason="needs the extra `hf-jobs`")

from support.remote_contract import RemoteContract
from vendors.hf_jobs import hf_jobs_setup

pytestmark = pytest.mark.heavy


class TestHfJobs(RemoteContract):
    name = "hf-jobs"
    setup = hf_jobs_setup()
    setup_with = staticmethod(hf_jobs_setup)
