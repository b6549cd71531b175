"""What is sent to create a training at Together: what was set, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from vendors.together.checks import LIMITS

from unitune.backends.options import validated
from unitune.backends.protocol import Launch, Upload
from unitune.errors import JobError
from unitune.job.job import Data, Job, Lora, Method, Preference, Tuning
from unitune.job.tuning import EarlyStopping
from unitune.models import Start, TunedModel
from unitune.security.json_fields import Fields
from unitune_providers.together.backend import TogetherBackend
from unitune_providers.together.options import (
    Body,
    DeployOptions,
    TogetherOptions,
    create_body,
    imported_tuning,
)

KNOWN = Fields({"model_name": "Qwen/Qwen3-8B", **LIMITS})
Options = Mapping[str, JsonValue]


def together_options(job: Job) -> TogetherOptions:
    return TogetherBackend().job_options(job)


def job(
    tuning: Tuning | None = None, options: Options | None = None, method: Method = "sft"
) -> Job:
    return Job(
        name="tone",
        model="Qwen/Qwen3-8B",
        backend="together",
        method=method,
        data=Data(train="train.jsonl"),
        tuning=tuning or Tuning(),
        options={"together": dict(options or {})},
    )


def body(
    tuning: Tuning | None = None, options: Options | None = None, method: Method = "sft"
) -> Body:
    made = job(tuning, options, method)
    upload = Upload("file-1", "0" * 64)
    launch = Launch("r251125-abc-1", made, upload, None, Path())
    return create_body(launch, together_options(made), KNOWN)


def test_auto_is_left_out() -> None:
    assert body() == {
        "model": "Qwen/Qwen3-8B",
        "training_file": "file-1",
        "suffix": "r251125-abc-1",
        "training_method": {"method": "sft", "train_on_inputs": "auto"},
    }


def test_a_start_is_sent_in_place_of_the_base() -> None:
    """Together 3.1.1 takes either a model or a checkpoint, not both."""
    model = TunedModel(backend="together", name="acme/Qwen3-8B-r1-1a2b3c4d", base="Qwen/Qwen3-8B")
    made, upload = job(method="dpo"), Upload("file-1", "0" * 64)
    launch = Launch("key-1", made, upload, None, Path(), Start(run="r1", model=model))
    sent = create_body(launch, together_options(made), KNOWN)
    assert model.name == sent["from_checkpoint"]
    assert "model" not in sent


def test_explicit_settings_are_sent_as_they_are() -> None:
    lora = Lora(rank=16, alpha=24, dropout=0.1, targets=("q_proj", "v_proj"))
    sent = body(
        Tuning(epochs=3, batch_size=8, learning_rate=2e-4, sequence_length=4096, seed=7, lora=lora)
    )
    assert tuple(
        sent[name]
        for name in ("n_epochs", "batch_size", "learning_rate", "max_seq_length", "random_seed")
    ) == (3, 8, 2e-4, 4096, 7)
    assert sent["training_type"] == {
        "type": "Lora",
        "lora_r": 16,
        "lora_alpha": 24,
        "lora_dropout": 0.1,
        "lora_trainable_modules": "q_proj,v_proj",
    }


def test_rank_alone_brings_the_alpha_that_together_would_take() -> None:
    assert body(Tuning(lora=Lora(rank=4)))["training_type"] == {
        "type": "Lora",
        "lora_r": 4,
        "lora_alpha": 8,
    }


def test_dropout_alone_brings_the_rank_that_together_would_take() -> None:
    sent = body(Tuning(lora=Lora(dropout=0.2)))["training_type"]
    assert sent == {"type": "Lora", "lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.2}


def test_options_are_sent_under_their_names() -> None:
    sent = body(options={"n_evals": 0, "packing": False})
    assert (sent["n_evals"], sent["packing"]) == (0, False)


@pytest.mark.parametrize(
    ("schedule", "options", "kind", "arguments"),
    [
        ("linear", {}, "linear", {"min_lr_ratio": 0.0}),
        ("linear", {"min_lr_ratio": 0.1}, "linear", {"min_lr_ratio": 0.1}),
        ("cosine", {}, "cosine", {"min_lr_ratio": 0.0, "num_cycles": 0.5}),
        ("constant", {}, "linear", {"min_lr_ratio": 1.0}),
    ],
)
def test_the_schedule_is_said_in_together_s_words(
    schedule: Any, options: Options, kind: str, arguments: Body
) -> None:
    tuning = Tuning(schedule=schedule, warmup=0.1, weight_decay=0.01)
    sent = body(tuning, options)
    assert sent["lr_scheduler"] == {"lr_scheduler_type": kind, "lr_scheduler_args": arguments}
    assert (sent["warmup_ratio"], sent["weight_decay"]) == (0.1, 0.01)
    assert schedule == imported_tuning(Fields(sent))["schedule"]


def test_early_stopping_is_switched_on_with_what_was_set() -> None:
    tuning = Tuning(early_stopping=EarlyStopping(patience=3, min_delta=0.05))
    sent = body(tuning, {"n_evals": 5})
    early = {name: value for name, value in sent.items() if name.startswith("early_stopping")}
    assert early == {
        "early_stopping_enabled": True,
        "early_stopping_patience": 3,
        "early_stopping_min_delta": 0.05,
    }
    assert imported_tuning(Fields(sent))["early_stopping"] == {"patience": 3, "min_delta": 0.05}
    sent = body(Tuning(early_stopping=EarlyStopping()), {"n_evals": 4})
    assert [name for name in sent if name in ("early_stopping_patience", "lr_scheduler")] == []
    assert True is imported_tuning(Fields(sent))["early_stopping"]


@pytest.mark.parametrize(
    ("tuning", "options", "said"),
    [
        (Tuning(), {"min_lr_ratio": 0.1}, r"min_lr_ratio needs tuning\.schedule"),
        (Tuning(schedule="constant"), {"min_lr_ratio": 0.1}, r"min_lr_ratio needs tuning"),
        (
            Tuning(schedule="linear"),
            {"num_cycles": 1},
            r"num_cycles needs tuning\.schedule: cosine",
        ),
        (Tuning(early_stopping=EarlyStopping()), {"n_evals": 3}, "n_evals of at least 4"),
        (Tuning(early_stopping=EarlyStopping(patience=4)), {"n_evals": 5}, "n_evals of at least 6"),
    ],
)
def test_what_goes_together_is_wanted_together(tuning: Tuning, options: Options, said: str) -> None:
    with pytest.raises(JobError, match=said):
        together_options(job(tuning, options))


def test_preference_tuning_says_what_was_set() -> None:
    tuning = Tuning(preference=Preference(beta=0.2, nll_weight=0.5))
    assert body(tuning, method="dpo")["training_method"] == {
        "method": "dpo",
        "dpo_beta": 0.2,
        "rpo_alpha": 0.5,
    }


def test_simpo_needs_no_reference_and_counts_by_token() -> None:
    method = {
        "method": "dpo",
        "dpo_reference_free": True,
        "dpo_normalize_logratios_by_length": True,
    }
    for preference, margin in (
        (Preference(loss="simpo", margin=1.0), 1.0),
        (Preference(loss="simpo"), 0.5),
    ):
        sent = body(Tuning(preference=preference), method="dpo")["training_method"]
        assert sent == {**method, "simpo_gamma": margin}


def test_simpo_without_a_margin_is_refused() -> None:
    """Together switches SimPO on by a margin above 0."""
    tuning = Tuning(preference=Preference(loss="simpo", margin=0))
    with pytest.raises(JobError, match="needs a margin above 0"):
        body(tuning, method="dpo")


def test_full_training_is_asked_for() -> None:
    assert body(options={"training": "full"})["training_type"] == {"type": "Full"}


@pytest.mark.parametrize(
    ("tuning", "options", "said"),
    [
        (
            Tuning(epochs=21),
            {},
            "tuning.epochs is 21; for this base model, together accepts at most 20",
        ),
        (
            Tuning(batch_size=97),
            {},
            "tuning.batch_size is 97; for this base model, together accepts at least 8 and at",
        ),
        (Tuning(batch_size=33), {"training": "full"}, "at least 8 and at most 32"),
        (Tuning(learning_rate=0.1), {}, "tuning.learning_rate is 0.1"),
        (Tuning(sequence_length=64), {}, "tuning.sequence_length is 64"),
        (
            Tuning(lora=Lora(rank=65)),
            {},
            "tuning.lora.rank is 65; for this base model, together accepts at most 64",
        ),
        (Tuning(lora=Lora(alpha=1.5)), {}, "whole numbers"),
        (Tuning(lora=Lora(targets=("gate",))), {}, "tuning.lora.targets has 'gate'"),
        (Tuning(), {"n_evals": 101}, "options.together.n_evals is 101"),
        (Tuning(lora=Lora(rank=8)), {"training": "full"}, "tuning.lora has settings"),
    ],
)
def test_a_setting_that_together_would_not_take_is_refused(
    tuning: Tuning, options: Options, said: str
) -> None:
    with pytest.raises(JobError, match=said):
        body(tuning, options)


def test_preference_tuning_has_limits_of_its_own() -> None:
    assert body(Tuning(batch_size=64))["batch_size"] == 64
    with pytest.raises(JobError, match="at most 48"):
        body(Tuning(batch_size=64), method="dpo")


def test_limits_that_together_does_not_say_are_none() -> None:
    """The published description has fewer limits than the SDK's types."""
    told = {
        name: value
        for name, value in LIMITS.items()
        if "seq_length" not in name and name != "max_num_checkpoints"
    }
    limits = Fields({**told, "lora_training": None})
    made = job(Tuning(sequence_length=1_000_000, lora=Lora(rank=999)))
    launch = Launch("key-1", made, Upload("file-1", ""), None, Path())
    assert create_body(launch, together_options(made), limits)["max_seq_length"] == 1_000_000
    made = job(Tuning(lora=Lora(dropout=0.1)))
    launch = Launch("key-1", made, Upload("file-1", ""), None, Path())
    with pytest.raises(JobError, match=r"Set tuning\.lora\.rank"):
        create_body(launch, together_options(made), limits)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_eval": 1}, "options.together.n_eval is not a known key. Did you mean 'n_evals'"),
        ({"min_lr_ratio": 2}, "options.together.min_lr_ratio is 2; it must be at most 1"),
        (
            {"dpo_normalize_logratios_by_length": True},
            "options.together.dpo_normalize_logratios_by_length does not apply to method sft",
        ),
    ],
)
def test_options_are_checked_by_name_and_value(options: Options, said: str) -> None:
    with pytest.raises(JobError, match=said):
        together_options(job(options=options))


def test_options_of_sft_are_not_for_preferences() -> None:
    with pytest.raises(JobError, match="train_on_inputs does not apply to method dpo"):
        together_options(job(options={"train_on_inputs": True}, method="dpo"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpu": "h100"}, "deploy option.gpu is not a known key"),
        ({"inactive_timeout": 5}, "deploy option.inactive_timeout is 5"),
        ({"min_replicas": 2, "max_replicas": 1}, "max_replicas must not be below"),
    ],
)
def test_options_of_a_deploy_are_checked(options: Options, said: str) -> None:
    with pytest.raises(JobError, match=said):
        validated(DeployOptions, options, "deploy option")
