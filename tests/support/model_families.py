"""Tiny random models of many families, and what unitune can do with each.

``python tests/support/model_families.py`` measures them all and writes the table that the
documentation shows (docs/reference/model-families.json). A test measures them again and compares.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers as hf
from peft import PeftModel
from unit.local.serving import served

from support.tiny_gguf import TOKENS, write_gguf
from support.tiny_model import SIZES, write_rows
from support.tiny_training import save
from support.tuned_here import local_job
from unitune.backends.local_capabilities import ExportForm, ExportSpec
from unitune.data.dataset import Dataset
from unitune.data.example import Message
from unitune.errors import Unsupported, UserError
from unitune.models import Request, TunedModel
from unitune_local import machine
from unitune_local.data.rendering import render_prompt
from unitune_local.data.rows import read_rows, render_rows
from unitune_local.export.forms import export
from unitune_local.forecasting.forecast import forecast
from unitune_local.inference.answers import Sampling
from unitune_local.models.adapter import check_adapter, checked_prompts
from unitune_local.models.gguf_model import convert
from unitune_local.models.model import (
    config_of,
    load_model,
    load_tokenizer,
    model_class,
    use_attention,
)
from unitune_local.settings import Settings
from unitune_local.training.loop import TrainingContext, train
from unitune_local.training.run import trainable_model

TABLE = Path(__file__).parents[2] / "docs" / "reference" / "model-families.json"
COLUMNS = ("plan", "train", "resume", "peft", "merge", "serve", "gguf")
BASE: dict[str, Any] = {**SIZES, "vocab_size": len(TOKENS), "bos_token_id": 1, "eos_token_id": 2}
BASE |= {"pad_token_id": 2, "tie_word_embeddings": False, "hidden_size": 64}
HEADS: dict[str, Any] = {**BASE, "head_dim": 16}
TIED: dict[str, Any] = {**HEADS, "tie_word_embeddings": True}
OLD = {"vocab_size": len(TOKENS), "bos_token_id": 1, "eos_token_id": 2}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
LONG |= {"original_max_position_embeddings": 256, "factor": 2.0}
LONG |= {"long_factor": [2.0, 3.0, 4.0, 5.0], "short_factor": [1.0, 1.1, 1.2, 1.3]}
WINDOWS = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
SHARED = {"moe_intermediate_size": 32, "n_routed_experts": 4, "n_shared_experts": 1}
SHARED |= {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
VISION |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}


class Family(NamedTuple):
    """A model family, and how to make a tiny model of it."""

    models: str
    """Published models, for the table."""
    config: Callable[[], Any]


def _gemma3_text() -> Any:
    more = {"num_hidden_layers": 7, "sliding_window": 16, "query_pre_attn_scalar": 16}
    return hf.Gemma3TextConfig(**{**TIED, **more}, rope_parameters=WINDOWS)


FAMILIES: dict[str, Family] = {
    "bloom": Family("BLOOM", lambda: hf.BloomConfig(**OLD, hidden_size=64, n_layer=2, n_head=4)),
    "cohere2": Family("Command A, R7B", lambda: hf.Cohere2Config(**BASE, sliding_window=64)),
    "deepseek_v3": Family(
        "DeepSeek V3, R1",
        lambda: hf.DeepseekV3Config(
            **{**BASE, "num_key_value_heads": 4, **SHARED, **LATENT}, v_head_dim=16
        ),
    ),
    "exaone4": Family(
        "EXAONE 4",
        lambda: hf.Exaone4Config(**BASE, sliding_window=None, layer_types=["full_attention"] * 2),
    ),
    "falcon": Family(
        "Falcon 40B",
        lambda: hf.FalconConfig(
            **OLD,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            new_decoder_architecture=True,
            num_kv_heads=2,
        ),
    ),
    "falcon (ALiBi)": Family(
        "Falcon 1B",
        lambda: hf.FalconConfig(
            **OLD, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, alibi=True
        ),
    ),
    "gemma": Family("Gemma", lambda: hf.GemmaConfig(**TIED)),
    "gemma2": Family(
        "Gemma 2",
        lambda: hf.Gemma2Config(**TIED, sliding_window=16, query_pre_attn_scalar=16),
    ),
    "gemma3": Family(
        "Gemma 3 4B to 27B",
        lambda: hf.Gemma3Config(
            text_config=_gemma3_text().to_dict(),
            vision_config=hf.SiglipVisionConfig(**VISION).to_dict(),
            mm_tokens_per_image=4,
            image_token_index=5,
            boi_token_index=6,
            eoi_token_index=7,
            bos_token_id=1,
            eos_token_id=2,
        ),
    ),
    "gemma3_text": Family("Gemma 3 1B", _gemma3_text),
    "glm4": Family("GLM-4 9B, 32B", lambda: hf.Glm4Config(**HEADS)),
    "glm4_moe": Family("GLM-4.5, 4.6", lambda: hf.Glm4MoeConfig(**HEADS, **SHARED)),
    "gpt2": Family(
        "GPT-2", lambda: hf.GPT2Config(**OLD, n_embd=64, n_layer=2, n_head=4, n_positions=512)
    ),
    "gpt_neox": Family(
        "Pythia",
        lambda: hf.GPTNeoXConfig(
            **{**OLD, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
            num_attention_heads=4,
            max_position_embeddings=512,
        ),
    ),
    "gpt_oss": Family(
        "gpt-oss",
        lambda: hf.GptOssConfig(
            **HEADS,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=16,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
        ),
    ),
    "granite": Family(
        "Granite 3",
        lambda: hf.GraniteConfig(
            **BASE,
            logits_scaling=8.0,
            embedding_multiplier=12.0,
            residual_multiplier=0.22,
            attention_multiplier=0.0625,
        ),
    ),
    "granitemoe": Family(
        "Granite 3 MoE",
        lambda: hf.GraniteMoeConfig(**BASE, num_local_experts=4, num_experts_per_tok=2),
    ),
    "lfm2": Family(
        "LFM2",
        lambda: hf.Lfm2Config(
            **{**BASE, "num_hidden_layers": 4},
            layer_types=["conv", "full_attention", "conv", "full_attention"],
        ),
    ),
    "llama": Family(
        "Llama 2, 3, SmolLM2, DeepSeek R1 distillations",
        lambda: hf.LlamaConfig(**BASE, rope_parameters=LLAMA3),
    ),
    "mamba2": Family(
        "Mamba 2",
        lambda: hf.Mamba2Config(
            **OLD,
            pad_token_id=2,
            hidden_size=64,
            num_hidden_layers=2,
            num_heads=8,
            head_dim=16,
            state_size=16,
            n_groups=1,
        ),
    ),
    "mistral": Family(
        "Mistral 7B v0.2 and later, Nemo", lambda: hf.MistralConfig(**HEADS, sliding_window=None)
    ),
    "mistral (window)": Family(
        "Mistral 7B v0.1", lambda: hf.MistralConfig(**BASE, sliding_window=16)
    ),
    "mistral3": Family(
        "Mistral Small 3",
        lambda: hf.Mistral3Config(
            text_config=hf.MistralConfig(**HEADS, sliding_window=None).to_dict(),
            vision_config=hf.PixtralVisionConfig(**VISION).to_dict(),
            image_token_index=5,
        ),
    ),
    "mixtral": Family(
        "Mixtral", lambda: hf.MixtralConfig(**BASE, num_local_experts=4, num_experts_per_tok=2)
    ),
    "mpt": Family(
        "MPT", lambda: hf.MptConfig(**OLD, d_model=64, n_layers=2, n_heads=4, max_seq_len=512)
    ),
    "nemotron": Family("Nemotron 4, Minitron", lambda: hf.NemotronConfig(**BASE)),
    "olmo2": Family("OLMo 2", lambda: hf.Olmo2Config(**BASE)),
    "olmo3": Family("OLMo 3", lambda: hf.Olmo3Config(**BASE, sliding_window=16)),
    "olmoe": Family("OLMoE", lambda: hf.OlmoeConfig(**BASE, num_experts=4, num_experts_per_tok=2)),
    "opt": Family(
        "OPT",
        lambda: hf.OPTConfig(
            **{**OLD, "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2, "pad_token_id": 2},
            num_attention_heads=4,
            max_position_embeddings=512,
            word_embed_proj_dim=64,
        ),
    ),
    "phi": Family("Phi-1.5, Phi-2", lambda: hf.PhiConfig(**BASE)),
    "phi3": Family("Phi-3, Phi-3.5, Phi-4", lambda: hf.Phi3Config(**BASE, rope_parameters=LONG)),
    "qwen2": Family("Qwen2, Qwen2.5", lambda: hf.Qwen2Config(**BASE)),
    "qwen2_5_vl": Family(
        "Qwen2.5-VL",
        lambda: hf.Qwen2_5_VLConfig(
            text_config={
                **BASE,
                "rope_parameters": {
                    "rope_type": "default",
                    "mrope_section": [2, 3, 3],
                    "rope_theta": 1e4,
                },
            },
            vision_config={"depth": 2, "num_heads": 2, "out_hidden_size": 64, **VISION},
            bos_token_id=1,
            eos_token_id=2,
        ),
    ),
    "qwen2_moe": Family(
        "Qwen1.5-MoE, Qwen2-57B",
        lambda: hf.Qwen2MoeConfig(**BASE, **EXPERTS, shared_expert_intermediate_size=32),
    ),
    "qwen3": Family("Qwen3", lambda: hf.Qwen3Config(**HEADS)),
    "qwen3_moe": Family(
        "Qwen3-30B-A3B, 235B-A22B",
        lambda: hf.Qwen3MoeConfig(**HEADS, **EXPERTS, norm_topk_prob=True),
    ),
    "qwen3_next": Family(
        "Qwen3-Next",
        lambda: hf.Qwen3NextConfig(
            **{**HEADS, **EXPERTS, "shared_expert_intermediate_size": 32},
            layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
        ),
    ),
    "smollm3": Family("SmolLM3", lambda: hf.SmolLM3Config(**{**BASE, "num_hidden_layers": 4})),
    "stablelm": Family("StableLM 2", lambda: hf.StableLmConfig(**BASE)),
    "starcoder2": Family("StarCoder2", lambda: hf.Starcoder2Config(**BASE)),
    "t5": Family(
        "T5 and other encoder-decoders",
        lambda: hf.T5Config(**OLD, d_model=64, d_ff=128, num_layers=2, num_heads=4),
    ),
}
UNLIKELY = [0, *(place for place, token in enumerate(TOKENS) if not token.isascii())]
"""The end of a text, at which llama.cpp always stops, and parts of characters."""
REQUESTS = tuple(
    Request(messages=(Message(role="user", content=text),), max_tokens=8)
    for text in ("What is 12 plus 7?", "a  b\n\nc", "größer", "The quick brown fox", "x" * 40)
)
LONG_REQUEST = Request(
    messages=(Message(role="user", content="one two three " * 12),), max_tokens=1
)
LOGIT_DIFFERENCE = 0.05
"""Of log-probabilities; llama.cpp keeps keys and values in 16 bits."""


def make(name: str, folder: Path) -> Path:
    """Write a tiny model of a family with a tokenizer that llama.cpp knows."""
    torch.manual_seed(0)
    llama = hf.LlamaForCausalLM(hf.LlamaConfig(**{**BASE, "tie_word_embeddings": True}))
    folder.mkdir(parents=True)
    convert(write_gguf(folder / "tiny.gguf", llama), folder)
    for file in ("tiny.gguf", "model.safetensors", "config.json", "generation_config.json"):
        (folder / file).unlink()
    config = FAMILIES[name].config()
    auto = hf.AutoModelForSeq2SeqLM if name == "t5" else model_class(config)
    model = auto.from_config(config, dtype=torch.float32)
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = 2
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1 and weights.std() < 0.1:
                weights.mul_(5.0)  # frozen embeddings must tell tokens apart
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[UNLIKELY] *= 0.1
    model.save_pretrained(folder)
    return folder


def measure(name: str, work: Path) -> dict[str, str]:
    """Return what unitune can do with a family: yes, or why not; blank after a refusal."""
    base = make(name, work / "base")
    rows, held_out = (read_rows(write_rows(work / f"{n}.jsonl", n)) for n in (16, 4))
    tuning = {"epochs": 1, "batch_size": 4, "sequence_length": 256, "lora": {"rank": 4}}
    job = local_job(base, tuning={**tuning, "learning_rate": 2e-2})
    try:
        plan = forecast(job, base, rows, held_out)
    except (Unsupported, UserError) as refusal:
        return {"plan": _short(refusal)}
    assert not [each for each in plan.summary.findings if each.severity == "error"]
    settings = plan.batching.settings.model_copy(
        update={"checkpoint_seconds": 0.0, "checkpoint_every_steps": 1}
    )
    done = {"plan": "yes"}

    adapter = work / "adapter"
    _train(base, settings, rows, held_out, adapter)
    done |= {"train": "yes", "resume": "yes", "peft": "yes"}
    model = TunedModel(backend="local", name=str(adapter), base=str(base))
    done["merge"] = _exported(model, adapter, "merged", work / "merged")
    asyncio.run(_serve(base, adapter))
    done["serve"] = "yes"
    done["gguf"] = _exported(model, adapter, "gguf", work / "gguf")
    if done["gguf"] == "yes":
        _compare_logits(work / "gguf" / "tiny.F32.gguf", work / "merged")
    return done


def _train(base: Path, settings: Settings, rows: Dataset, held_out: Dataset, adapter: Path) -> None:
    """Train, stop and resume; the saved adapter gives plain peft the logits of the training."""
    tokenizer = load_tokenizer(base)
    learnt, validation = (list(render_rows(tokenizer, each, 256).rows) for each in (rows, held_out))
    losses: list[float] = []

    def trained(folder: Path, steps: int) -> Any:
        def note(kind: str, data: dict[str, Any]) -> None:
            if kind == "step":
                losses.append(data["loss"])

        losses.clear()
        model = trainable_model(base, settings)
        stop = TrainingContext(folder, note, lambda: len(losses) >= steps)
        train(model, learnt, validation, settings, stop)
        return model

    trained(adapter.with_name("whole"), 9)
    whole = [*losses]
    assert len(whole) == 4
    assert whole[-1] < whole[0]
    trained(adapter.with_name("stopped"), 2)
    first = [*losses]
    live = trained(adapter.with_name("stopped"), 9)
    assert whole == first + losses

    spec = save(live, base, adapter, settings)
    prompts = [torch.tensor([render_prompt(tokenizer, each.messages)]) for each in REQUESTS]
    use_attention(live, None)
    with torch.no_grad():
        expected = [live.eval()(prompt).logits for prompt in prompts]
        check_adapter(live, spec, adapter, checked_prompts(learnt, validation))
        fresh = model_class(config_of(base)).from_pretrained(base, dtype=torch.float32)
        plain = PeftModel.from_pretrained(fresh, adapter).eval()
        for prompt, logits in zip(prompts, expected, strict=True):
            torch.testing.assert_close(plain(prompt).logits, logits, rtol=1e-3, atol=1e-3)


def _exported(model: TunedModel, adapter: Path, form: ExportForm, folder: Path) -> str:
    quantization = "F32" if form == "gguf" else None
    spec = ExportSpec(
        form=form, folder=folder, name="tiny", requests=REQUESTS, quantization=quantization
    )
    try:
        written = export(model, adapter, spec)
    except Unsupported as refusal:
        return _short(refusal)
    # A late token may be a near tie, so GGUF files are also held against the logits.
    assert written.rows == len(REQUESTS)
    assert written.equal >= len(REQUESTS) - (form == "gguf"), (form, written.equal)
    return "yes"


def _compare_logits(file: Path, merged: Path) -> None:
    """Compare the probabilities of the likeliest first tokens in llama.cpp and transformers."""
    package: Any = import_module("xllamacpp")
    params = package.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.verbosity = 512, 1, 0, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.api_keys = ["none"]
    server = package.Server(params)
    tokenizer = load_tokenizer(merged)
    model: Any = load_model(merged, torch.float32)
    for request in (*REQUESTS, LONG_REQUEST):
        prompt = torch.tensor([render_prompt(tokenizer, request.messages)])
        with torch.no_grad():
            expected = model(prompt).logits[0, -1].log_softmax(-1)
        reply = server.handle_chat_completions(
            {
                "messages": [message.wire for message in request.messages],
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": 5,
            }
        )
        likely = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        assert reply["usage"]["prompt_tokens"] == prompt.shape[1]
        for each in likely:
            off = abs(each["logprob"] - float(expected[each["id"]]))
            assert off < LOGIT_DIFFERENCE, (off, likely)


async def _serve(base: Path, adapter: Path) -> None:
    """Serve a tuned model; two requests at once get what each gets alone."""
    async with served(base, adapter=adapter) as place:
        texts = ("What is 12 plus 7?", "x")
        replies = await asyncio.gather(*(place.create(text, temperature=0) for text in texts))
        for text, reply in zip(texts, replies, strict=True):
            alone = place.alone(text, Sampling(6))
            assert alone.text == reply.choices[0].message.content


def _short(refusal: Exception) -> str:
    """Return the first sentence of a refusal, without the names of all families."""
    text = str(refusal).partition(". ")[0].replace(f" {hf.__version__}", "")
    return "no" if text.startswith("GGUF exports support") else f"no: {text}"


def main(names: list[str]) -> None:
    """Measure families, all or those named, and write the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    machine.best_dtype = lambda _: torch.float32
    table = json.loads(TABLE.read_text(encoding="utf-8")) if names and TABLE.exists() else {}
    for name in names or FAMILIES:
        work = Path(tempfile.mkdtemp())
        table[name] = {"models": FAMILIES[name].models, **measure(name, work)}
        print(name, table[name], flush=True)  # noqa: T201
        shutil.rmtree(work)
    ordered = {name: table[name] for name in FAMILIES if name in table}
    TABLE.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(sys.argv[1:])
