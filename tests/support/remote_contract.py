"""The contract of backends whose jobs are our worker on a machine of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from support.tiny_model import save_tiny_model, write_rows
from unitune.backends.protocol import Backend
from unitune.testing import BackendContract
from unitune.testing.contract_base import reply_once, sha256_of
from unitune.testing.loopback import Server
from unitune.testing.vendor_setup import VendorSetup
from unitune_local.remote.launch import RemoteLaunch
from unitune_local.remote.training import run


class RemoteContract(BackendContract):
    """Contract of a backend whose models answer on this machine."""

    setup_with: ClassVar[Callable[[Path], VendorSetup]]  # by the adapter that trainings leave
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

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _real_models(cls, tmp_path_factory: pytest.TempPathFactory) -> object:
        """Make a base, and an adapter that a worker leaves, trained by its own code."""
        folder = tmp_path_factory.mktemp("models")
        cls.model = str(save_tiny_model(folder / "tiny"))
        rows = write_rows(folder / "rows.jsonl", 8)
        file = {"ref": rows.name, "sha256": sha256_of(rows)}
        job = {
            "name": "rented",
            "model": cls.model,
            "backend": cls.name,
            "data": {"train": "rows.jsonl"},
            "tuning": {"epochs": 1},
        }
        launch = RemoteLaunch.model_validate(
            {
                "key": "r1-1",
                "storage": str(folder),
                "job": job,
                "training": file,
                "validation": None,
            }
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("UNITUNE_CACHE", str(folder / "cache"))
            run(launch)
            cls.setup = cls.setup_with(folder / "jobs" / launch.key / "adapter")
            yield
