"""Model families go the whole way: the table of the documentation, and what adapters change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import torch as safetensors
from support.model_families import COLUMNS, FAMILIES, TABLE, make, measure
from support.tiny_model import SETTINGS, save_model
from support.tiny_training import peft_adapter
from support.tuned_here import local_job

from unitune.errors import Unsupported, UserError
from unitune.models import OTHER_BASE, TunedModel
from unitune_local import machine
from unitune_local.export.forms import FORMS
from unitune_local.export.tuned import Tuned
from unitune_local.inference.generate import bytes_per_token
from unitune_local.inference.prefix_cache import is_plain
from unitune_local.models.adapter import read_shape
from unitune_local.models.model import (
    add_adapter,
    config_of,
    empty_model,
    load_adapter,
    load_model,
    use_attention,
)
from unitune_local.models.start import load_start, read_start
from unitune_local.models.targets import reach_findings
from unitune_local.settings import Settings

SAMPLE = ("gemma2", "granitemoe", "mistral3", "phi3", "t5")
"""No SDPA, experts, multimodal, LongRoPE, and one that is refused."""


@pytest.fixture(scope="module", autouse=True)
def _in_float32(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(machine, "best_dtype", lambda _: torch.float32)
        yield


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models of the families, made once."""
    made: dict[str, Path] = {}

    def folder_of(name: str) -> Path:
        if name not in made:
            made[name] = make(name, tmp_path_factory.mktemp("families") / name)
        return made[name]

    return folder_of


@pytest.mark.filterwarnings("ignore")  # of transformers and peft, one for each family
@pytest.mark.parametrize(
    "name",
    [name if name in SAMPLE else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_a_family_goes_as_far_as_the_documentation_says(name: str, tmp_path: Path) -> None:
    """``python tests/support/model_families.py NAME`` writes the row anew."""
    pytest.importorskip("xllamacpp", reason="needs the extra `export`")
    row = json.loads(TABLE.read_text(encoding="utf-8"))[name]
    assert row == {"models": FAMILIES[name].models, **measure(name, tmp_path)}


def test_the_table_has_each_family_once() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert [*table] == [*FAMILIES]
    assert {column for row in table.values() for column in row} == {"models", *COLUMNS}


def adapted(base: Path, **settings: Any) -> Any:
    return add_adapter(empty_model(base), SETTINGS.model_copy(update=settings))


def names_of(model: Any) -> set[str]:
    return {
        name.partition(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name
    }


def test_a_multimodal_model_is_adapted_in_its_language_model_alone(
    base_of: Callable[[str], Path],
) -> None:
    for base in (base_of("gemma3"), base_of("mistral3"), base_of("qwen2_5_vl")):
        for targets in ("all", ("q_proj",)):
            names = names_of(adapted(base, targets=targets))
            assert names
            assert all(".language_model." in name for name in names)


def test_routers_get_no_adapter_and_experts_and_shared_layers_do(
    base_of: Callable[[str], Path],
) -> None:
    model = adapted(base_of("deepseek_v3"))
    names = {".".join(name.split(".")[-2:]) for name in names_of(model)}
    assert not [name for name in names if name.endswith("gate")]
    assert {"shared_experts.gate_proj", "shared_experts.down_proj", "mlp.up_proj"} <= names
    assert list(reach_findings(model, SETTINGS)) == []
    (config,) = model.peft_config.values()
    assert {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"} <= {*config.target_parameters}
    assert config.rank_pattern == {}


def test_experts_can_be_named_by_their_layers(base_of: Callable[[str], Path]) -> None:
    (config,) = adapted(base_of("mixtral"), targets=("q_proj", "w1", "w3")).peft_config.values()
    assert config.target_modules == {"q_proj"}
    assert {"mlp.experts.gate_up_proj"} == {*config.target_parameters}


def test_a_plan_names_the_share_of_the_weights_that_adapters_reach(
    base_of: Callable[[str], Path],
) -> None:
    dropout = SETTINGS.model_copy(update={"dropout": 0.1})
    model = adapted(base_of("granitemoe"), dropout=0.1)
    (finding,) = reach_findings(model, dropout)
    assert finding.code == "adapter-reach"
    assert "the adapters reach 2" in finding.message
    assert "block_sparse_moe.router, experts.down_proj, experts.gate_up_proj" in finding.message
    named = dropout.model_copy(update={"targets": ("q_proj",)})
    assert list(reach_findings(model, named)) == []


def test_targets_that_a_model_lacks_are_named_with_those_that_it_has(
    base_of: Callable[[str], Path],
) -> None:
    with pytest.raises(UserError, match=r"q_proj.*c_attn, c_fc, c_proj"):
        adapted(base_of("gpt2"), targets=("q_proj",))


def test_a_model_whose_layers_cannot_be_adapted_is_refused(base_of: Callable[[str], Path]) -> None:
    with pytest.raises(Unsupported, match="no layer of this granitemoe model"):
        adapted(base_of("granitemoe"), targets=("gate_proj", "up_proj"), dropout=0.1)


def test_attention_is_what_the_architecture_supports(base_of: Callable[[str], Path]) -> None:
    for name, expected in (("gemma2", "eager"), ("gpt_oss", "eager"), ("llama", "sdpa")):
        model = empty_model(base_of(name))
        assert expected == model.config._attn_implementation
        use_attention(model, "unitune_packed")
        use_attention(model, None)
        assert expected == model.config._attn_implementation


def test_a_model_that_hands_no_keywords_on_shares_no_prefix(base_of: Callable[[str], Path]) -> None:
    """Nemotron supports other attention, and yet gives it no `PrefixCache`."""
    assert is_plain(load_model(base_of("llama"), torch.float32))
    assert not is_plain(load_model(base_of("nemotron"), torch.float32))


def test_a_state_space_model_has_no_keys_to_count(base_of: Callable[[str], Path]) -> None:
    assert bytes_per_token(empty_model(base_of("mamba2"))) == 1


def test_a_type_that_transformers_lacks_is_refused_by_name(
    base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(base_of("llama"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "brand_new"}))
    with pytest.raises(Unsupported, match=r"of type 'brand_new'\. The ch"):
        config_of(folder)
    with pytest.raises(Unsupported, match="of type 't5'"):
        config_of(base_of("t5"))


@pytest.mark.filterwarnings("ignore")
def test_a_training_starts_from_peft_s_own_adapter_of_a_mixture(
    base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """Such an adapter has experts, a router, and ranks of its own for fused experts."""
    base = base_of("mixtral")
    folder = peft_adapter(base, tmp_path / "adapter")
    shape = read_shape(folder)
    assert {"down_proj", "gate.weight", "gate_up_proj"} == {*(shape.target_parameters or ())}
    assert shape.rank_pattern == {r".*\.gate_up_proj": 8}
    job = local_job(base, start=str(folder))
    read = read_start(folder, job, base)
    assert shape == read.shape
    assert [each for each in read.findings if each.severity == "error"] == []
    same = {"target_parameters": shape.target_parameters, "targets": shape.target_modules}
    patterns = {"rank_pattern": shape.rank_pattern, "alpha_pattern": shape.alpha_pattern}
    settings: Settings = SETTINGS.model_copy(update={**same, **patterns})
    model = add_adapter(load_model(base, torch.float32), settings).eval()
    load_start(model, folder)
    plain = load_adapter(load_model(base, torch.float32), folder, rounds_once=False)
    ids: Any = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)

    tuned = Tuned(TunedModel(backend="local", name=str(folder), base=str(base)), folder)
    assert tuned.shape.largest_rank == 8
    for form in ("mlx", "gguf-lora"):
        with pytest.raises(Unsupported, match="changes experts or has several ranks"):
            FORMS[form].write(tuned, tmp_path, None)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_whose_named_base_is_here_is_held_against_it(tmp_path: Path) -> None:
    """An adapter from elsewhere has no unitune.json, and names the folder of its base."""
    own, other = save_model(tmp_path / "own"), save_model(tmp_path / "other")
    weights = safetensors.load_file(other / "model.safetensors")
    changed = {name: values + 0.1 for name, values in weights.items()}
    safetensors.save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
    folder = peft_adapter(own, tmp_path / "adapter", target_modules=["q_proj"])

    def findings(base: Path) -> list[str]:
        read = read_start(folder, local_job(base, start=str(folder)), base)
        return [each.code for each in read.findings]

    assert findings(own) == ["start-base-unknown"]
    assert findings(other) == [OTHER_BASE]
