"""The Fireworks backend keeps the contract, and its requests and responses fit the vendor's SDK."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fireworks import Fireworks
from vendors import fireworks as vendor
from vendors.serving import VENDORS

from unitune.backends import registry
from unitune.job.job import Reward, Tuning
from unitune.models import Start
from unitune.testing import BackendContract
from unitune.testing.loopback import Server
from unitune_providers.fireworks import COLLECTIONS

PAIR = (
    '{"input":{"messages":[{"role":"user","content":"Colour of snow?"}]},"preferred_output":'
    '[{"role":"assistant","content":"white"}],"non_preferred_output":'
    '[{"role":"assistant","content":"black"}]}\n'
)


SAMPLED = Reward(group_size=4, max_tokens=64, temperature=0.7)


class TestFireworks(BackendContract):
    name = "fireworks"
    setup = VENDORS["fireworks"]
    tuning = Tuning(epochs=2, batch_size=4, warmup=3)
    deploy_options = {"hot_reload": True}  # noqa: RUF012 - the contract's class attribute

    @pytest.mark.parametrize("method", ["sft", "dpo", "rft"])
    def test_job_of_each_method_is_what_the_sdk_reads(
        self, server: Server, tmp_path: Path, method: str
    ) -> None:
        """The vendor's own client finds what we created, with the settings that we sent."""
        launch = self.launch(tmp_path, options={"evaluator": "accounts/acme/evaluators/exact"})
        rows = self.upload(tmp_path / "pairs.jsonl", (PAIR,) * 3) if method == "dpo" else None
        tuning = self.tuning.model_copy(update={"reward": SAMPLED} if method == "rft" else {})
        job = launch.job.model_copy(update={"method": method, "tuning": tuning})
        launch = replace(launch, job=job, training=rows or launch.training, validation=None)
        backend = registry.backend("fireworks")
        job_id = backend.submit(launch)
        with Fireworks(
            api_key=vendor.KEY, account_id=vendor.ACCOUNT, base_url=server.url
        ) as client:
            jobs: dict[str, Any] = {
                "sft": client.supervised_fine_tuning_jobs,
                "dpo": client.dpo_jobs,
                "rft": client.reinforcement_fine_tuning_jobs,
            }
            read = jobs[method].get(launch.key)
        training = read if method == "sft" else read.training_config
        assert (training.epochs, training.batch_size_samples) == (2, 4)
        assert training.base_model == vendor.BASE
        assert training.learning_rate_warmup_steps == 3
        assert read.dataset == launch.training.ref
        if method == "rft":
            sampling = read.inference_parameters
            assert (sampling.response_candidates_count, sampling.max_output_tokens) == (4, 64)
            assert sampling.temperature == 0.7
        model = self.follow(job_id)[-1].model
        assert model is not None
        assert model.name == f"accounts/acme/models/{launch.key}"

        # The SDK: only one of base_model and warm_start_from should be specified.
        backend.submit(replace(launch, key=f"{launch.key}1", start=Start(model=model)))
        body = server.received("POST", f"/{COLLECTIONS[method]}$")[-1].json
        training = body if method == "sft" else body["trainingConfig"]
        assert training["warmStartFrom"] == model.name
        assert "baseModel" not in training
