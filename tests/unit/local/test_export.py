"""Exports, loaded by the programs that they are for: transformers, llama.cpp, mlx-lm."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from support.tiny_gguf import TOKENS, write_gguf
from support.tiny_model import SIZES, TEMPLATE
from support.tiny_training import peft_adapter, write_record
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from unitune.backends.local_capabilities import Exported, ExportForm, ExportSpec
from unitune.data.example import Message
from unitune.errors import Mismatch, Unsupported, UserError
from unitune.models import Request, TunedModel
from unitune_local import machine
from unitune_local.data.rendering import render_prompt
from unitune_local.export import forms, gguf_file, verify
from unitune_local.export.forms import export
from unitune_local.export.gguf_file import ModelTensors, rounding, write_model
from unitune_local.export.gguf_tokenizer import pre_tokenizer
from unitune_local.export.ollama import modelfile
from unitune_local.export.tuned import Tuned
from unitune_local.models.gguf_model import convert
from unitune_local.models.model import load_model, load_tokenizer
from unitune_local.options import ChatFormat

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
BASES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENS), **SIZES)),
    "llama3": lambda: LlamaForCausalLM(
        LlamaConfig(vocab_size=len(TOKENS), rope_parameters=LLAMA3, **SIZES)
    ),
    "untied": lambda: LlamaForCausalLM(
        LlamaConfig(vocab_size=len(TOKENS), **{**SIZES, "tie_word_embeddings": False})
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(vocab_size=len(TOKENS), **SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(vocab_size=len(TOKENS), head_dim=128, **SIZES)),
}
BLANK = "\N{LOWER ONE EIGHTH BLOCK}"
UNLIKELY = [0, *(place for place, token in enumerate(TOKENS) if not token.isascii())]
"""The end of a text, at which llama.cpp always stops, and parts of characters."""
REQUESTS = tuple(
    Request(messages=(Message(role="user", content=text),), max_tokens=8)
    for text in ("What is 12 plus 7?", "a  b\n\nc", "größer", "The quick brown fox", "x")
)


@pytest.fixture(scope="module", autouse=True)
def _in_float32(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """In bfloat16 the tokens of a model that knows nothing are nearly tied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(machine, "best_dtype", lambda _: torch.float32)
        yield


@pytest.fixture(scope="module")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny base models, made once, with a tokenizer that llama.cpp knows."""
    made: dict[str, Path] = {}

    def folder_of(kind: str) -> Path:
        if kind not in made:
            torch.manual_seed(0)
            folder = made[kind] = tmp_path_factory.mktemp(kind)
            llama = LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENS), **SIZES))
            convert(write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama), folder)
            model = BASES[kind]()
            model.config.bos_token_id, model.config.eos_token_id = 1, 2
            model.generation_config.eos_token_id = model.generation_config.pad_token_id = 2
            with torch.no_grad():
                for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
                    layer.weight[UNLIKELY] *= 0.1
            model.save_pretrained(folder)
        return made[kind]

    return folder_of


def tuned_on(base: Path, folder: Path, chat: ChatFormat | None = None, **lora: Any) -> Tuned:
    """Return a model with an adapter that changes answers, as a training leaves it."""
    peft_adapter(base, folder, **lora)
    load_tokenizer(base, chat).save_pretrained(folder)
    write_record(folder, base, chat)
    return Tuned(TunedModel(backend="local", name=str(folder), base=str(base)), folder)


@pytest.fixture
def tuned(base_of: Callable[[str], Path], tmp_path: Path) -> Tuned:
    """A tuned Llama."""
    return tuned_on(base_of("llama"), tmp_path / "adapter")


def exported(tuned: Tuned, folder: Path, form: ExportForm, **more: Any) -> Exported:
    spec = ExportSpec(form=form, folder=folder, name="tiny", requests=REQUESTS, **more)
    return export(tuned.model, tuned.adapter, spec)


@pytest.mark.parametrize("kind", ["llama", "untied", "qwen2", "qwen3"])
def test_transformers_reads_back_the_very_weights_of_the_merged_model(
    base_of: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    """Its own reader of GGUF undoes the order of rows, and knows every name."""
    tuned = tuned_on(base_of(kind), tmp_path / "adapter")
    merged: Any = tuned.merged()
    file = tmp_path / "model.gguf"
    tensors = ModelTensors(tuned.config, merged.state_dict())
    write_model(file, tensors, tuned.tokenizer, tuned.base, "F32")
    read = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, dtype=torch.float32
    ).state_dict()
    for name, weights in merged.state_dict().items():
        assert torch.equal(weights, read[name]), name
    names = {tensor.name for tensor in GGUFReader(file).tensors}
    assert (kind == "untied") == ("output.weight" in names)


@pytest.mark.parametrize("kind", BASES)
@pytest.mark.parametrize("form", ["gguf", "gguf-lora"])
def test_llama_cpp_answers_as_the_run_does(
    base_of: Callable[[str], Path], tmp_path: Path, kind: str, form: ExportForm
) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra `export`")
    tuned = tuned_on(base_of(kind), tmp_path / "adapter")
    done = exported(tuned, tmp_path / "out", form, quantization="F32")
    assert (len(REQUESTS), len(REQUESTS)) == (done.equal, done.rows)
    assert "llama.cpp" in done.program


@pytest.mark.parametrize("name", ["qwen2", "llama-bpe"])
def test_a_way_to_cut_texts_has_the_name_that_transformers_reads_it_by(
    base_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """And transformers, from the file alone, makes the same tokens of a text."""
    base = base_of("qwen2")
    tokenizer: Any = load_tokenizer(base)
    split = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), behavior="isolated")
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, cut])
    assert name == pre_tokenizer(tokenizer)

    tensors = tensors_of(base)
    write_model(tmp_path / "model.gguf", tensors, tokenizer, base, "F16")
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    text = "<|im_start|>user\nab  it's 1234 größer\n\n x<|im_end|>\n"
    assert tokenizer(text).input_ids == read(text).input_ids
    assert tokenizer.chat_template == read.chat_template
    assert tokenizer.eos_token == read.eos_token


def sentencepiece_tokenizer(*, begins_with_blank: bool) -> Any:
    """Return a tokenizer as those of Llama 2, Mistral and Phi-3 are, or, without blank, Gemma's."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = [BLANK, *(chr(code) for code in range(33, 127))]
    merges = [
        (BLANK, BLANK),
        (BLANK, "t"),
        ("h", "e"),
        (f"{BLANK}t", "he"),
        ("l", "l"),
        ("o", "l"),
        ("e", "ll"),
    ]
    pieces = ["<unk>", "<s>", "</s>", *bytes_, *letters, *map("".join, merges)]
    core = Tokenizer(
        models.BPE(
            vocab={piece: place for place, piece in enumerate(pieces)},
            merges=merges,
            unk_token=pieces[0],
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    as_blank = normalizers.Replace(" ", BLANK)
    core.normalizer = as_blank
    if begins_with_blank:
        core.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), as_blank])
    core.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    core.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    if not begins_with_blank:  # Gemma has such tokens, which its merges make, too
        core.add_tokens([AddedToken(BLANK * 2, normalized=False)])
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=pieces[1], eos_token=pieces[2], unk_token=pieces[0]
    )
    tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    return tokenizer


@pytest.mark.parametrize("begins_with_blank", [True, False])
def test_a_sentencepiece_tokenizer_cuts_texts_in_llama_cpp_as_here(
    tmp_path: Path, *, begins_with_blank: bool
) -> None:
    """A blank before each text (Llama 2, Mistral, Phi-3), or none (Gemma)."""
    package: Any = pytest.importorskip("xllamacpp", reason="needs the extra `export`")
    tokenizer = sentencepiece_tokenizer(begins_with_blank=begins_with_blank)
    torch.manual_seed(0)
    config = LlamaConfig(**{**SIZES, "vocab_size": len(tokenizer), "initializer_range": 0.5})
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        weights = model.get_input_embeddings().weight
        weights[:259] *= 0.1  # an answer begins with neither an end nor a part of a character
        weights[[*tokenizer.added_tokens_decoder]] *= 0.1
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    file = tmp_path / "model.gguf"
    write_model(file, ModelTensors(config, model.state_dict()), tokenizer, tmp_path, "F32")
    params = package.CommonParams()
    params.model.path = str(file)
    params.n_parallel, params.n_gpu_layers, params.verbosity, params.n_ctx = 1, 0, 0, 512
    params.api_keys = ["none"]
    server = package.Server(params)
    for text in ("tell the other", "the  the", "größer", " x\n\ty", "hell of the"):
        turn = {"role": "user", "content": text}
        ids = render_prompt(tokenizer, [Message(role="user", content=text)])
        asked = {"messages": [turn], "max_tokens": 1, "temperature": 0}
        reply = server.handle_chat_completions({**asked, "logprobs": True, "top_logprobs": 3})
        assert len(ids) == reply["usage"]["prompt_tokens"], text
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        for each in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            assert float(expected[each["id"]]) == pytest.approx(each["logprob"], abs=0.05), text


def test_a_way_to_cut_texts_that_llama_cpp_has_no_name_for_is_refused(
    base_of: Callable[[str], Path],
) -> None:
    tokenizer: Any = load_tokenizer(base_of("qwen2"))
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(Unsupported, match=r"are gpt-2, smollm, qwen2, llama-bpe.*--to merged"):
        pre_tokenizer(tokenizer)


def test_a_beginning_that_the_template_writes_stands_once_in_llama_cpp(
    base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """As of Llama 3, whose runtime adds it by itself; of ChatML's models it must not."""
    pytest.importorskip("xllamacpp", reason="needs the extra `export`")
    base = shutil.copytree(base_of("llama"), tmp_path / "base")
    config = json.loads((base / "tokenizer_config.json").read_text())
    config["bos_token"] = TOKENS[0]
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    template = base / "chat_template.jinja"
    template.write_text("{{ bos_token }}" + template.read_text())
    done = exported(tuned_on(base, tmp_path / "adapter"), tmp_path / "out", "gguf")
    assert done.equal == done.rows
    read = GGUFReader(tmp_path / "out" / "tiny.F16.gguf")
    assert read.fields["tokenizer.ggml.add_bos_token"].contents()


def test_rslora_scales_in_llama_cpp_as_in_training(
    base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    """llama.cpp multiplies by alpha over rank, rsLoRA by alpha over the rank's root."""
    pytest.importorskip("xllamacpp", reason="needs the extra `export`")
    tuned = tuned_on(base_of("llama"), tmp_path / "adapter", use_rslora=True)
    done = exported(tuned, tmp_path / "out", "gguf-lora", quantization="F32")
    assert done.equal == done.rows
    read = GGUFReader(tmp_path / "out" / "tiny.lora.gguf")
    assert read.fields["adapter.lora.alpha"].contents() == 16.0


def test_a_wrong_order_of_rows_is_found_and_nothing_is_kept(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra `export`")
    monkeypatch.setattr(gguf_file, "interleaved", lambda weights, _: weights)
    with pytest.raises(Mismatch, match=r"rows differently from the run.*was discarded"):
        exported(tuned, tmp_path / "out", "gguf", quantization="F32")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_export_that_is_interrupted_leaves_nothing(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "in_transformers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exported(tuned, tmp_path / "out", "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("quantization", "most"),
    [("F32", 0), ("F16", 3e-4), ("BF16", 3e-3), ("Q8_0", 6e-3), ("Q5_0", 0.05), ("Q4_1", 0.1)],
)
def test_stored_weights_differ_by_no_more_than_their_type_rounds(
    base_of: Callable[[str], Path], tmp_path: Path, quantization: str, most: float
) -> None:
    base = base_of("llama")
    tensors = tensors_of(base)
    write_model(tmp_path / "model.gguf", tensors, load_tokenizer(base), base, quantization)
    difference = rounding(tmp_path / "model.gguf", tensors)
    assert most / 10 <= difference <= most
    kinds = {
        tensor.name: tensor.tensor_type.name
        for tensor in GGUFReader(tmp_path / "model.gguf").tensors
    }
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert quantization == kinds["blk.0.ffn_up.weight"]
    finer = "Q8_0" if quantization in gguf_file.COARSE else quantization
    assert finer == kinds["token_embd.weight"]


def tensors_of(base: Path) -> ModelTensors:
    state = load_model(base, torch.float32).state_dict()
    return ModelTensors(Tuned(_model(base), base).config, state)


def _model(base: Path) -> TunedModel:
    return TunedModel(backend="local", name="", base=str(base))


def test_llama_3_rotary_factors_are_those_of_llama_cpp_s_converter(
    base_of: Callable[[str], Path],
) -> None:
    """Source: ggml-org/llama.cpp, conversion/llama.py, generate_extra_tensors, at 0274f0f."""
    base = base_of("llama3")
    tensors = dict(ModelTensors(Tuned(_model(base), base).config, {}))
    expected: list[float] = []
    for frequency in 10000.0 ** -(np.arange(0, 8, 2) / 8):
        wavelength = 2 * math.pi / frequency
        smooth = (64 / wavelength - 1.0) / (4.0 - 1.0)
        between = 1 / ((1 - smooth) / 8.0 + smooth)
        expected.append(1 if wavelength < 64 / 4 else 8.0 if wavelength > 64 else between)
    assert expected[0] == 1
    assert 1 < expected[1] < 8
    np.testing.assert_allclose(expected, tensors["rope_freqs.weight"], rtol=1e-5)


def test_mlx_lm_loads_the_adapter_and_answers_as_the_run_does(
    base_of: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("mlx_lm", reason="needs the extra `mlx`")
    tuned = tuned_on(base_of("llama"), tmp_path / "adapter", use_rslora=True)
    done = exported(tuned, tmp_path / "out", "mlx")
    assert (len(REQUESTS), len(REQUESTS)) == (done.equal, done.rows)
    assert "mlx-lm" in done.program


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_peft_and_transformers_answer_as_the_run_does(
    tuned: Tuned, tmp_path: Path, form: ExportForm
) -> None:
    done = exported(tuned, tmp_path / "out", form)
    assert (len(REQUESTS), len(REQUESTS)) == (done.equal, done.rows)


def test_a_merged_model_keeps_its_embeddings_tied_and_is_rounded_once(
    tuned: Tuned, tmp_path: Path
) -> None:
    exported(tuned, tmp_path / "out", "merged", quantization="BF16")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["tie_word_embeddings"], config["dtype"]) == (True, "bfloat16")
    stored = load_model(tmp_path / "out", torch.bfloat16).state_dict()
    for name, weights in tuned.merged().state_dict().items():
        assert torch.equal(weights.to(torch.bfloat16), stored[name]), name
    template = (tmp_path / "out" / "chat_template.jinja").read_bytes()
    assert (tuned.base / "chat_template.jinja").read_bytes() == template


def test_ollama_s_modelfile_says_how_the_evaluation_has_asked(tuned: Tuned, tmp_path: Path) -> None:
    """The template is ChatML's in Ollama's documentation (docs/template.mdx at fb30760)."""
    done = exported(tuned, tmp_path / "out", "ollama", quantization="F32", system="Be brief.")
    assert (tmp_path / "out" / "Modelfile").read_text() == (
        "FROM ./tiny.F32.gguf\n"
        'TEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}\n'
        "{{ .Content }}<|im_end|>\n"
        '{{ end }}<|im_start|>assistant\n"""\n'
        "PARAMETER temperature 0\n"
        "PARAMETER num_ctx 512\n"
        "PARAMETER num_predict 8\n"
        "PARAMETER repeat_penalty 1\n"
        'PARAMETER stop "<|im_end|>"\n'
        'SYSTEM """Be brief."""\n'
    )
    assert "tiny.F32.gguf" in done.files


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ '{{ .System }}' }}", "the template writes {{"),
        (
            "{% if messages[0].role != 'system' %}{{ '{{ .Model }}' }}{% endif %}",
            "the template writes {{",
        ),
        ('{{ \'"""\\nPARAMETER num_ctx 1\' }}', 'a text contains """'),
        (
            "{% if messages[0].content | length > 17 %}long {% endif %}",
            "it writes the rows differently",
        ),
    ],
)
def test_a_template_that_says_more_than_ollama_s_can_is_refused(
    base_of: Callable[[str], Path], template: str, reason: str
) -> None:
    tokenizer: Any = load_tokenizer(base_of("llama"))
    tokenizer.chat_template = template + tokenizer.chat_template
    spec = ExportSpec(form="ollama", folder=Path("x"), name="tiny", requests=REQUESTS)
    tuned = Tuned(_model(base_of("llama")), base_of("llama"))
    vars(tuned)["tokenizer"] = tokenizer
    with pytest.raises(Unsupported, match=reason):
        modelfile("tiny.gguf", tuned, spec)


def test_vllm_is_started_with_rank_adapter_and_template(tuned: Tuned, tmp_path: Path) -> None:
    exported(tuned, tmp_path / "out", "vllm")
    stub = tmp_path / "bin" / "vllm"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    stub.chmod(0o755)
    environment = {"PATH": f"{stub.parent}:/usr/bin:/bin", "BASE": "org/base"}
    script = [str(tmp_path / "out" / "start.sh"), "--port", "9000"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    adapter = tmp_path / "out" / "adapter"
    assert done.stdout.splitlines() == [
        *("serve", "org/base", "--host", "127.0.0.1", "--enable-lora", "--max-lora-rank", "8"),
        *("--lora-modules", f"tiny={adapter}"),
        *("--chat-template", f"{adapter}/chat_template.jinja", "--port", "9000"),
    ]
    assert (adapter / "chat_template.jinja").exists()


EVERY_FORM: tuple[ExportForm, ...] = ("adapter", "merged", "gguf", "gguf-lora", "ollama", "vllm")


@pytest.fixture
def bare_base(base_of: Callable[[str], Path], tmp_path: Path) -> Path:
    """Return a base model without a chat template."""
    bare = tmp_path / "bare"
    shutil.copytree(base_of("llama"), bare)
    (bare / "chat_template.jinja").unlink()
    return bare


@pytest.mark.parametrize("form", EVERY_FORM)
def test_a_model_without_a_chat_template_is_exported_to_complete_texts(
    bare_base: Path, tmp_path: Path, form: ExportForm
) -> None:
    if form.startswith(("gguf", "ollama")):
        pytest.importorskip("xllamacpp", reason="needs the extra `export`")
    tuned = tuned_on(bare_base, tmp_path / "adapter")
    done = exported(tuned, tmp_path / "out", form)
    assert done.rows == len(REQUESTS)
    assert done.equal >= len(REQUESTS) - 1
    assert "no chat template: it completes texts" in done.notes[-1]
    assert not [file for file in done.files if file.endswith(".jinja")]
    if form == "vllm":
        assert "--chat-template" not in (tmp_path / "out" / "start.sh").read_text()
    if form == "ollama":
        assert (
            'TEMPLATE """{{ range $at, $_ := .Messages }}{{ if $at }}\n\n{{ end }}'
            '{{ .Content }}{{ end }}"""\n'
        ) in (tmp_path / "out" / "Modelfile").read_text()


THINKS = "{% if mood is defined %}<|im_start|>system\n{{ mood }}<|im_end|>\n{% endif %}" + TEMPLATE


@pytest.mark.parametrize("form", EVERY_FORM)
def test_an_export_carries_the_variables_of_the_chat_template(
    base_of: Callable[[str], Path], tmp_path: Path, form: ExportForm
) -> None:
    if form.startswith(("gguf", "ollama")):
        pytest.importorskip("xllamacpp", reason="needs the extra `export`")
    chat = ChatFormat(template=THINKS, kwargs={"mood": 'It\'s a "fine" day\n'})
    tuned = tuned_on(base_of("llama"), tmp_path / "adapter", chat)
    done = exported(tuned, tmp_path / "out", form)
    assert done.rows == len(REQUESTS)
    assert done.equal >= len(REQUESTS) - 1
    assert "chat_template_kwargs" in done.notes[-1]
    expected = render_prompt(load_tokenizer(base_of("llama"), chat), REQUESTS[0].messages)
    if form in {"adapter", "merged"}:
        assert render_prompt(load_tokenizer(tmp_path / "out"), REQUESTS[0].messages) == expected
    elif form == "ollama":
        assert 'It\'s a "fine" day' in (tmp_path / "out" / "Modelfile").read_text()
    elif form == "vllm":
        assert "set mood" in (tmp_path / "out" / "adapter" / "chat_template.jinja").read_text()
    else:
        (file,) = (name for name in done.files if "lora" not in name and name.endswith("gguf"))
        assert b"set mood" in (tmp_path / "out" / file).read_bytes()


def test_without_llama_cpp_an_export_says_that_it_was_not_verified(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "find_spec", lambda _: None)
    done = exported(tuned, tmp_path / "out", "gguf", quantization="Q8_0")
    assert done.rows == 0
    assert "xllamacpp is not installed, so it was not verified: pip install" in done.notes[0]
    assert "differ from the trained ones by 0." in done.notes[1]


REFUSED: list[tuple[ExportForm, dict[str, Any], str]] = [
    ("gguf-lora", {"use_dora": True}, "llama.cpp does not read .* DoRA adapter"),
    ("vllm", {"use_dora": True}, "vLLM does not read .* DoRA adapter"),
    ("mlx", {"use_dora": True}, "DoRA adapter"),
    ("gguf-lora", {"target_modules": ["embed_tokens", "q_proj"]}, "changes embed_tokens, but"),
    ("merged", {"target_modules": ["embed_tokens"]}, "one matrix for both"),
    ("vllm", {"r": 513}, "ranks up to 512, not 513"),
]


@pytest.mark.parametrize(("form", "lora", "reason"), REFUSED)
def test_what_cannot_be_exported_right_is_refused_with_the_reason(
    base_of: Callable[[str], Path],
    tmp_path: Path,
    form: ExportForm,
    lora: dict[str, Any],
    reason: str,
) -> None:
    tuned = tuned_on(base_of("llama"), tmp_path / "adapter", **lora)
    with pytest.raises(Unsupported, match=reason):
        exported(tuned, tmp_path / "out", form)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_form_names_the_quantisations_that_it_takes(tuned: Tuned, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--to merged takes F32, F16, BF16"):
        exported(tuned, tmp_path / "out", "merged", quantization="Q8_0")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "gpt2"}, "qwen3_moe, smollm3 models; this one is gpt2"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}}, "not 'yarn'"),
        ({"sliding_window": 16, "use_sliding_window": True}, "slides over a window of 16 tokens"),
    ],
)
def test_gguf_refuses_what_llama_cpp_would_compute_otherwise(
    base_of: Callable[[str], Path], change: dict[str, Any], reason: str
) -> None:
    config: Any = Tuned(_model(base_of("qwen2")), base_of("qwen2")).config
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(Unsupported, match=reason):
        list(ModelTensors(config, {"model.norm.weight": torch.ones(2)}))
