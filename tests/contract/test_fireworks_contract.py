"""The Fireworks backend keeps the contract, and its requests and responses fit the vendor's SDK."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fireworks import Fireworks
from pydantic import JsonValue
from vendors import fireworks as vendor
from vendors.serving import VENDORS, serve_vendor

from unitune.backends import registry
from unitune.backends.capabilities import Quotes
from unitune.errors import Unsupported
from unitune.job.job import Data, Job, Reward, Tuning
from unitune.models import Start
from unitune.planning.plan import plan
from unitune.run.run import launch
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

    def test_quote_is_what_fireworks_estimates(self, server: Server, tmp_path: Path) -> None:
        launch, backend = self.launch(tmp_path), registry.backend("fireworks")
        assert isinstance(backend, Quotes)
        account = server.vendor
        assert isinstance(account, vendor.FireworksVendor)
        jobs = dict(account.jobs)
        assert backend.quote(launch) == Decimal("1.37")
        assert server.received("POST", ":estimateCost$")[-1].json["baseModel"] == vendor.BASE
        assert jobs == account.jobs

    @pytest.mark.parametrize(
        "estimated",
        [
            None,
            {},
            {"currencyCode": "EUR", "units": "1"},
            {"units": "-1", "nanos": -5},
            {"units": "many"},
        ],
    )
    def test_an_estimate_that_is_none_is_no_quote_of_zero(
        self,
        server: Server,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        estimated: JsonValue,
    ) -> None:
        launch, backend = self.launch(tmp_path), registry.backend("fireworks")
        monkeypatch.setattr(server.vendor, "estimated", estimated)
        assert isinstance(backend, Quotes)
        with pytest.raises(Unsupported, match="did not return an estimate"):
            backend.quote(launch)

    @pytest.mark.parametrize("method", ["dpo", "rft"])
    def test_only_supervised_trainings_have_a_quote(self, tmp_path: Path, method: str) -> None:
        launch, backend = self.launch(tmp_path), registry.backend("fireworks")
        job = launch.job.model_copy(update={"method": method})
        assert isinstance(backend, Quotes)
        with pytest.raises(Unsupported, match="supervised trainings"):
            backend.quote(replace(launch, job=job))

    def test_the_estimate_on_a_job_is_told_once(self, tmp_path: Path) -> None:
        job_id = registry.backend("fireworks").submit(self.launch(tmp_path))
        told = [event for status in self.follow(job_id) for event in status.events]
        texts = [str(event.data["text"]) for event in told if event.key.startswith("estimated")]
        assert texts == ["fireworks estimates the cost of the job at $1.37"]


def test_validation_rows_are_sent_only_where_the_create_call_has_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fireworks-ai 1.2.30: dpo_job_create has no evaluation dataset, supervised has one."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "home"))
    turn = {"role": "user", "content": "Colour of snow?"}
    white, black = ([{"role": "assistant", "content": colour}] for colour in ("white", "black"))
    pair = {"input": {"messages": [turn]}, "preferred_output": white, "non_preferred_output": black}
    sent, rows = dict[str, list[int]](), {"dpo": pair, "sft": {"messages": [turn, *white]}}
    with serve_vendor("fireworks") as served:
        account = served.server.vendor
        assert isinstance(account, vendor.FireworksVendor)
        for method, row in rows.items():
            for name, many in (("train", 20), ("validation", 4)):
                lines = (
                    json.dumps(row).replace("snow", f"{name} {method} {at}") for at in range(many)
                )
                (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
            job = Job(
                name=method,
                model=vendor.BASE,
                backend="fireworks",
                method=method,  # pyright: ignore[reportArgumentType]
                data=Data(train="train.jsonl", validation="validation.jsonl"),
                folder=tmp_path,
            )
            planned = plan(job)
            assert planned.estimate is not None
            assert bool(planned.estimate.of("validation")) == (method == "sft")
            account.files.clear()
            launch(job)
            sent[method] = sorted(file.rows for file in account.files.values())
    assert sent == {"dpo": [20], "sft": [4, 20]}
