"""The Ray backend keeps the contract, at a double of Ray's job API; adapters are real ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="needs the extra `local`")
pytest.importorskip("fsspec", reason="needs the extra `ray`")

from support.tiny_model import save_tiny_model, write_rows
from vendors.ray import ray_setup

from unitune.backends.protocol import Backend
from unitune.testing import BackendContract
from unitune.testing.contract_base import reply_once, sha256_of
from unitune.testing.loopback import Server
from unitune_local.remote.launch import RemoteLaunch
from unitune_local.remote.training import run

pytestmark = pytest.mark.heavy


class TestRay(BackendContract):
    name = "ray"
    setup = ray_setup()
    # These load a model dozens of times.
    test_polls_survive_fields_that_are_left_out = pytest.mark.slow(
        BackendContract.test_polls_survive_fields_that_are_left_out
    )
    test_whatever_answers_a_question_it_is_a_row = pytest.mark.slow(
        BackendContract.test_whatever_answers_a_question_it_is_a_row
    )

    def test_settings_of_an_answer_are_sent(self, backend: Backend, server: Server) -> None:
        """Models answer on this machine, by the settings that the local backend's tests try."""
        before = len(server.requests)
        reply_once(backend.chat(self.base_model()))
        assert len(server.requests) == before


@pytest.fixture(scope="module", autouse=True)
def _real_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A base, and an adapter that a worker of a cluster leaves, trained by its own code."""
    folder = tmp_path_factory.mktemp("models")
    TestRay.model = str(save_tiny_model(folder / "tiny"))
    rows = write_rows(folder / "rows.jsonl", 8)
    file = {"ref": rows.name, "sha256": sha256_of(rows)}
    job = {
        "name": "ray",
        "model": TestRay.model,
        "backend": "ray",
        "data": {"train": "rows.jsonl"},
        "tuning": {"epochs": 1},
    }
    launch = RemoteLaunch(key="r1-1", storage=str(folder), job=job, training=file, validation=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_CACHE", str(folder / "cache"))
        run(launch)
        TestRay.setup = ray_setup(folder / "jobs" / launch.key / "adapter")
        yield
