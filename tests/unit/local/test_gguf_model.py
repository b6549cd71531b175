from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.tiny_gguf import TOKENS, write_gguf
from support.tiny_model import SIZES
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from unitune.errors import Unsupported
from unitune_local.models.gguf_model import convert
from unitune_local.models.model import load_model, load_tokenizer


@pytest.fixture(scope="module")
def original() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(TOKENS), **SIZES)).eval()


@pytest.fixture(scope="module")
def converted(original: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    source = write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", original)
    convert(source, folder)
    return folder


def test_the_converted_model_gives_the_same_logits(
    original: LlamaForCausalLM, converted: Path
) -> None:
    ids = torch.arange(3, 60)[None]
    with torch.inference_mode():
        expected = original(ids).logits
        actual = load_model(converted, torch.float32)(ids).logits
    assert torch.equal(expected, actual)


def test_the_same_file_gives_the_same_bytes(
    original: LlamaForCausalLM, converted: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    again.mkdir()
    convert(write_gguf(tmp_path / "tiny.gguf", original), again)
    names = sorted(path.name for path in converted.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        assert (converted / name).read_bytes() == (again / name).read_bytes(), name


def test_tokens_survive_a_round_trip(converted: Path) -> None:
    tokenizer = load_tokenizer(converted)
    text = "<|im_start|>user\nab  ab, größer\n\n 12  7<|im_end|>"
    assert text == tokenizer.decode(tokenizer(text).input_ids)


def test_digits_stand_alone_even_after_spaces(converted: Path) -> None:
    core = Tokenizer.from_file(str(converted / "tokenizer.json"))
    assert core.encode("ab  12").tokens == ["ab", "ĠĠ", "1", "2"]


def test_special_tokens_and_template_come_along(converted: Path) -> None:
    tokenizer = load_tokenizer(converted)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert load_model(converted, torch.float32).generation_config.eos_token_id == 2
    turn = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_an_unknown_tokenizer_is_refused_by_name(
    original: LlamaForCausalLM, tmp_path: Path
) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", original, pre_tokenizer="tekken")
    with pytest.raises(Unsupported, match=r"tokenizer\.ggml\.pre 'tekken'"):
        convert(source, tmp_path)
