"""Frozen weights in 4 and 8 bits: trained, saved, loaded by plain peft, answering as trained."""

from __future__ import annotations

import asyncio
import copy
import shutil
from pathlib import Path

import pytest
import torch
from support.tiny_model import SETTINGS, write_rows
from support.tiny_training import Trained, rows_in, save
from support.tuned_here import local_job
from transformers import AutoModelForCausalLM

from unitune.data.example import Message
from unitune.errors import Unsupported
from unitune.models import Reply, Request
from unitune_local.backend import LocalBackend
from unitune_local.data.rendering import render_prompt
from unitune_local.data.rows import read_rows
from unitune_local.forecasting import forecast as local_forecast
from unitune_local.inference.answers import Sampling
from unitune_local.inference.chat import LocalChatModel
from unitune_local.inference.generate import generate
from unitune_local.models import model as local_model
from unitune_local.models.adapter import check_adapter
from unitune_local.models.model import load_adapter, load_model, load_tokenizer
from unitune_local.settings import Quantization
from unitune_local.training.loop import TrainingContext, train
from unitune_local.training.run import trainable_model

pytest.importorskip("bitsandbytes", reason="needs the extra `4bit`")
QUESTION = Message(role="user", content="Where is my card?")


@pytest.mark.parametrize(
    ("quantization", "dora"), [("4bit", False), ("8bit", False), ("4bit", True)]
)
def test_a_training_on_quantized_weights_answers_as_trained_everywhere(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantization: Quantization,
    *,
    dora: bool,
) -> None:
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    changes = {"quantization": quantization, "epochs": 2, "dora": dora}
    settings = SETTINGS.model_copy(update=changes)
    rows = rows_in(write_rows(tmp_path / "train.jsonl", 24), tiny_model)
    model = trainable_model(tiny_model, settings)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    done = Trained(model)
    context = TrainingContext(tmp_path, done.note, lambda: False)
    assert train(model, rows[4:], rows[:4], settings, context)
    assert done.losses[max(done.losses)] < done.losses[1] - 0.5
    frozen = {name: weight for name, weight in model.state_dict().items() if "lora" not in name}
    assert all(torch.equal(before[name], weight) for name, weight in frozen.items())

    spec = save(model, tiny_model, tmp_path / "a", settings)
    assert check_adapter(copy.deepcopy(model), spec, tmp_path / "a", [rows[0].ids[:20]]) < 1e-3

    base = load_model(tiny_model, torch.float32, quantization=quantization)
    load_adapter(base, tmp_path / "a", rounds_once=False)  # which is peft's own
    tokenizer = load_tokenizer(tiny_model)
    prompt = render_prompt(tokenizer, (QUESTION,), ())
    (expected,) = generate(base, tokenizer, [prompt], [Sampling(max_tokens=8)])
    assert expected.text == reply(LocalChatModel(str(tiny_model), tmp_path / "a", torch.float32))


def reply(model: LocalChatModel) -> str:
    async def requested() -> Reply:
        async with model:
            return await model.reply(Request(messages=(QUESTION,), max_tokens=8))

    return asyncio.run(requested()).text


def test_quantized_weights_are_forecast_smaller_and_nothing_else(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(local_forecast.machine, "products_per_second", lambda *_: 1e11)
    rows = read_rows(write_rows(tmp_path / "train.jsonl", 10))
    held = {}
    for quantization in (None, "8bit", "4bit"):
        options = {"quantization": quantization, "device": "cpu"}
        made = LocalBackend().forecast(local_job(tiny_model, options), rows, rows)
        assert not made.findings
        assert quantization == made.settings["quantization"]
        held[quantization] = made.memory_bytes
    linear = 2 * (32 * (32 + 16 + 16 + 32) + 3 * 32 * 64)  # of both layers: q, k, v, o; MLP
    assert pytest.approx(3 * linear, abs=1) == held[None] - held["8bit"]
    assert pytest.approx((4 - 0.516) * linear, abs=1) == held[None] - held["4bit"]


@pytest.mark.parametrize(
    ("device", "said"), [("mps", "4bit weights on mps"), ("cpu", "is not installed")]
)
def test_what_cannot_be_quantized_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, device: str, said: str
) -> None:
    monkeypatch.setattr(local_forecast, "find_spec", lambda _: None)
    settings = SETTINGS.model_copy(update={"quantization": "4bit", "device": device})
    (finding,) = local_forecast.quantization_findings(settings)
    assert finding.severity == "error"
    assert said in finding.message


def test_the_files_of_quantized_weights_are_not_kept_in_memory(
    tiny_model: Path, tmp_path: Path
) -> None:
    """And the model is the one that transformers makes of the same files."""
    folder = tmp_path / "own"
    shutil.copytree(tiny_model, folder)
    loaded = load_model(folder, torch.float32, quantization="4bit")
    if (maps := Path("/proc/self/maps")).exists():
        assert str(folder) not in maps.read_text()
    expected = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=loaded.config.quantization_config,
        device_map={"": "cpu"},
    )
    ids = torch.arange(8)[None]
    assert torch.equal(expected(ids).logits, loaded(ids).logits)
    assert expected.name_or_path == loaded.name_or_path == str(folder)
    assert expected.generation_config.to_dict() == loaded.generation_config.to_dict()


def test_dora_on_8_bits_is_refused_with_the_way_out() -> None:
    """peft 0.21.2 stops in bitsandbytes' dequantisation, whose statistics are not there yet."""
    settings = SETTINGS.model_copy(update={"quantization": "8bit", "dora": True})
    (finding,) = local_forecast.quantization_findings(settings)
    assert "Use quantization: 4bit" in finding.fix
    four = settings.model_copy(update={"quantization": "4bit"})
    assert not list(local_forecast.quantization_findings(four))


def test_where_bitsandbytes_is_missing_a_model_says_how_to_get_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its adapter may have been trained on another machine."""
    monkeypatch.setattr(local_model, "find_spec", lambda _: None)
    with pytest.raises(Unsupported, match=r"bitsandbytes.* pip install .*4bit"):
        load_model(tiny_model, torch.float32, quantization="4bit")
