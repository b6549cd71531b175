"""Full fine-tuning: trained, resumed, saved, answered from, gone on from and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_model import SETTINGS, write_pairs, write_rows
from support.tiny_training import rows_in, run
from support.tuned_here import job_for, noted, tune
from transformers import AutoModelForCausalLM

from unitune.backends.local_capabilities import ExportSpec
from unitune.data.example import Message
from unitune.errors import Unsupported
from unitune.models import Request, TunedModel
from unitune_local.data.batches import TrainingRow, epoch_batches, padded
from unitune_local.export.forms import export
from unitune_local.inference.chat import LocalChatModel
from unitune_local.models.adapter import WEIGHTS, is_full
from unitune_local.models.model import load_adapter
from unitune_local.models.start import read_start

FULL = SETTINGS.model_copy(update={"full": True, "learning_rate": 2e-3, "weight_decay": 0.1})


@pytest.fixture(scope="module")
def rows(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingRow, ...]:
    return rows_in(write_rows(tmp_path_factory.mktemp("data") / "train.jsonl", 40), tiny_model)


def test_the_first_losses_are_those_of_a_plain_loop_over_transformers_own_model(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path
) -> None:
    """Vectors do not decay, as in transformers' Trainer; gradients are clipped to a norm of 1."""
    settings = FULL.model_copy(update={"schedule": "constant", "warmup": 0.0, "epochs": 1})
    ours = run(tiny_model, rows, (), tmp_path, settings)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).train()
    groups = [
        {"params": [each for each in model.parameters() if each.ndim == 2]},
        {"params": [each for each in model.parameters() if each.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, weight_decay=0.1)
    expected, norms = list[float](), list[float]()
    for step in epoch_batches([len(row.ids) for row in rows], 8, 0, 0):
        batch = padded([rows[place] for place in step])
        labels = torch.full_like(batch.ids, -100)
        for at, place in enumerate(step):
            trained = torch.tensor([*map(bool, rows[place].trained)])
            labels[at, : len(trained)][trained] = torch.tensor(rows[place].ids)[trained]
        loss = model(input_ids=batch.ids, attention_mask=batch.attention_mask, labels=labels).loss
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert len(expected) == 5
    assert expected == pytest.approx([*ours.losses.values()], rel=2e-6)
    assert norms == pytest.approx([data["grad_norm"] for data in ours.steps.values()], rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_training_has_the_same_losses(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path, dtype: str, optimizer: str
) -> None:
    changes = {"dtype": dtype, "optimizer": optimizer, "epochs": 2}
    settings = FULL.model_copy(update=changes)
    whole = run(tiny_model, rows, (), tmp_path / "whole", settings)
    first = run(tiny_model, rows, (), tmp_path / "parts", settings, stop_after=4)
    second = run(tiny_model, rows, (), tmp_path / "parts", settings)
    assert whole.losses == first.losses | second.losses
    assert [*second.losses][:2] == [5, 6]
    assert whole.losses[10] < 0.9 * whole.losses[1]
    weight = next(whole.model.parameters())
    assert torch.float32 == weight.dtype, "weights are trained in float32 whatever the computation"


@pytest.mark.parametrize("full", [False, True])
def test_float16_follows_float32_with_adapters_too(
    tiny_model: Path, rows: tuple[TrainingRow, ...], tmp_path: Path, *, full: bool
) -> None:
    settings = SETTINGS.model_copy(update={"full": full, "learning_rate": 2e-3, "epochs": 1})
    exact = run(tiny_model, rows, (), tmp_path / "a", settings)
    half = settings.model_copy(update={"dtype": "float16"})
    rounded = run(tiny_model, rows, (), tmp_path / "b", half)
    assert pytest.approx([*rounded.losses.values()], rel=1e-2) == [*exact.losses.values()]
    assert all("grad_norm" in data for data in rounded.steps.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def tuned(tiny_model: Path, folder: Path) -> TunedModel:
    return tune(job_for(tiny_model, write_rows(folder / "train.jsonl", 16), full=True), folder)


def test_it_leaves_a_whole_model_that_transformers_loads_and_the_run_answers_from(
    tiny_model: Path, folder: Path, tuned: TunedModel
) -> None:
    assert is_full(Path(tuned.name))
    model = AutoModelForCausalLM.from_pretrained(tuned.name)
    before = AutoModelForCausalLM.from_pretrained(tiny_model)
    pairs = zip(model.parameters(), before.parameters(), strict=True)
    assert not any(torch.equal(*pair) for pair in pairs), "every weight has changed"
    assert "largest difference of logits 0" in str(noted(folder, "text"))
    chat = LocalChatModel(str(tiny_model), Path(tuned.name), torch.float32)
    untuned = LocalChatModel(str(tiny_model), dtype=torch.float32)
    assert chat.fingerprint != untuned.fingerprint
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, cast("Any", chat.model)(ids).logits)


def test_a_training_goes_on_from_it(
    tiny_model: Path, folder: Path, tuned: TunedModel, tmp_path: Path
) -> None:
    """At a rate of zero it ends with the very weights that it began with."""
    job = job_for(tiny_model, folder / "train.jsonl", full=True, learning_rate=1e-30)
    again = tune(job, tmp_path, tuned.name)
    pairs = (
        AutoModelForCausalLM.from_pretrained(each.name).parameters() for each in (tuned, again)
    )
    for first, second in zip(*pairs, strict=True):
        assert torch.equal(first, second)


def test_an_adapter_and_a_whole_model_do_not_go_on_from_each_other(
    tiny_model: Path, folder: Path, tuned: TunedModel, tmp_path: Path
) -> None:
    adapter = tune(job_for(tiny_model, folder / "train.jsonl"), tmp_path)
    (refusal,) = read_start(Path(tuned.name), job_for(tiny_model, folder), tiny_model).findings
    assert refusal.fix == "Set tuning.full to true."
    full = job_for(tiny_model, folder, full=True)
    (refusal,) = read_start(Path(adapter.name), full, tiny_model).findings
    assert "--to merged" in refusal.fix
    assert not read_start(Path(tuned.name), full, tiny_model).findings


def test_its_exports_are_whole_models(tuned: TunedModel, tmp_path: Path) -> None:
    asked = (Request(messages=(Message(role="user", content="What colour has 1?"),), max_tokens=8),)
    made = export(tuned, Path(tuned.name), ExportSpec("merged", tmp_path / "merged", "m", asked))
    assert (made.rows, made.equal) == (1, 1)
    with pytest.raises(Unsupported, match=r"every weight .* writes an adapter.* --to merged, gguf"):
        export(tuned, Path(tuned.name), ExportSpec("vllm", tmp_path / "vllm", "m", asked))


def test_pairs_are_learnt_in_full_against_the_model_at_the_beginning(
    tiny_model: Path, tmp_path: Path
) -> None:
    job = job_for(tiny_model, write_pairs(tmp_path / "pairs.jsonl", 16), full=True, epochs=2)
    tune(job, tmp_path)
    losses = [cast("float", loss) for loss in noted(tmp_path, "loss")]
    assert pytest.approx(0.6931472, abs=1e-6) == losses[0]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_modules_to_save_are_trained_in_full_in_the_layers_that_are_named(
    tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    data = write_rows(tmp_path / "train.jsonl", 16)
    lora = {"targets": "all-linear", "layers": [1], "modules_to_save": ["embed_tokens"]}
    job = job_for(tiny_model, data, lora=lora)
    job.options["local"]["dtype"] = dtype
    made = tune(job, tmp_path)
    names = {*load_file(Path(made.name) / WEIGHTS)}
    assert "base_model.model.model.embed_tokens.weight" in names
    assert {name.split("layers.")[1][0] for name in names if ".lora_" in name} == {"1"}
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    plain = load_adapter(base, Path(made.name), rounds_once=False)
    chat = LocalChatModel(str(tiny_model), Path(made.name), torch.float32)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        expected = plain(input_ids=ids).logits
        torch.testing.assert_close(expected, cast("Any", chat.model)(ids).logits)
    shape = read_start(Path(made.name), job_for(tiny_model, data), tiny_model).shape
    assert shape is not None
    assert (shape.layers_to_transform, shape.modules_to_save) == ((1,), ("embed_tokens",))
    again = tune(job_for(tiny_model, data), tmp_path / "again", made.name)
    assert names == {*load_file(Path(again.name) / WEIGHTS)}, "a training goes on from it"
