"""The tokenizer of a GGUF file: tokens, merges, how texts are cut before merging, chat template.

llama.cpp has names of its own for pre-tokenizers, so a byte-level tokenizer can be written if its
way of cutting has such a name. Tokenizers made from SentencePiece's BPE, which has no
pre-tokenizer, can all be written. Others are refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

from gguf import GGUFWriter, SpecialVocab, TokenType
from pydantic import JsonValue
from transformers import PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from unitune.errors import Unsupported
from unitune_local.data.chat_text import has_template
from unitune_local.data.rendering import text_ids, turn_end
from unitune_local.models.gguf_model import BYTE_LEVEL, PRE_TOKENIZERS


def _split(pattern: str) -> JsonValue:
    """Return a pre-tokenizer as tokenizer.json has it: by a pattern, and then into bytes."""
    split: dict[str, JsonValue] = {"pattern": {"Regex": pattern}, "behavior": "Isolated"}
    return {
        "type": "Sequence",
        "pretokenizers": [{"type": "Split", **split}, {**BYTE_LEVEL, "use_regex": False}],
    }


SPLITS = ("qwen2", "llama-bpe", "tekken", "gpt-4o", "qwen35")
# By llama.cpp's names; of several with the same pattern the best known
KNOWN_PRE_TOKENIZERS: dict[str, JsonValue] = {
    **PRE_TOKENIZERS,
    **{name: _split(GGUF_PRE_TOKENIZER_SPLITS[name]) for name in SPLITS},
}
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def add_tokenizer(
    writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, folder: Path, size: int
) -> None:
    """Write a tokenizer and its chat template.

    Args:
        writer: Of the file.
        tokenizer: The model's.
        folder: Where its files stand.
        size: Of the model's vocabulary, which may have more ids than the tokenizer has tokens.

    Raises:
        Unsupported: llama.cpp would cut texts into other tokens.
    """
    tokens, types = _tokens(tokenizer, size)
    core = json.loads(cast("Any", tokenizer).backend_tokenizer.to_str())
    if of_sentencepiece := core["model"].get("byte_fallback") is True:
        _add_sentencepiece(writer, core, tokens, types)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if has_template(tokenizer):
        writer.add_eot_token_id(turn_end(tokenizer))
    special = SpecialVocab(folder, load_merges=not of_sentencepiece, n_vocab=size)
    special.chat_template = cast("str | None", cast("Any", tokenizer).chat_template)
    # Nothing stood before the template's own text in training.
    special.add_special_token = {"bos": _writes_bos(tokenizer), "eos": False}
    special.add_to_gguf(writer, quiet=True)


def _add_sentencepiece(
    writer: GGUFWriter, core: dict[str, Any], tokens: list[str], types: list[TokenType]
) -> None:
    """Write what llama.cpp needs for a tokenizer that was made from SentencePiece's BPE.

    It merges the two neighbours whose whole has the highest score, and not by a list of merges; so
    a token's score is the place of the merge that makes it. Tokens and types are changed to those
    that llama.cpp expects: bytes have a type, and added tokens have blanks as blanks.
    """
    merges = cast("list[list[str] | str]", core["model"]["merges"])
    places: dict[str, int] = {}
    for place, merge in enumerate(merges):
        whole = merge.replace(" ", "") if isinstance(merge, str) else "".join(merge)
        places.setdefault(whole, place)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([-float(places.get(token, len(merges))) for token in tokens])
    writer.add_add_space_prefix(_begins_with_blank(core))
    for index, token in enumerate(tokens):
        if BYTE_TOKEN.fullmatch(token):
            types[index] = TokenType.BYTE
        elif token == core["model"]["unk_token"]:
            types[index] = TokenType.UNKNOWN
        elif types[index] is TokenType.USER_DEFINED:
            tokens[index] = token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ")


def _begins_with_blank(core: dict[str, Any]) -> bool:
    """Whether a blank is put before a text, and after each control token."""
    steps: list[dict[str, Any]] = [core["normalizer"] or {}, core["pre_tokenizer"] or {}]
    for step in steps:
        steps.extend(step.get("normalizers", []) + step.get("pretokenizers", []))
    return any(
        step.get("type") == "Prepend" or step.get("prepend_scheme") == "always" for step in steps
    )


def _writes_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template, or else the tokenizer, writes the token of the beginning once."""
    if not has_template(tokenizer):
        return text_ids(tokenizer, "x")[0] == tokenizer.bos_token_id
    bos = cast("str | None", tokenizer.bos_token)
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
    text = cast("str", cast("Any", tokenizer).apply_chat_template(turns, tokenize=False))
    return bos is not None and text.startswith(bos) and text.count(bos) == 1


def _tokens(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[list[str], list[TokenType]]:
    """Return the token of each id with its type; ids without one are filled up."""
    vocabulary = {index: token for token, index in tokenizer.get_vocab().items()}
    added = cast("dict[int, Any]", tokenizer.added_tokens_decoder)
    tokens = [vocabulary.get(index, f"[PAD{index}]") for index in range(size)]
    types = [
        TokenType.UNUSED
        if index not in vocabulary
        else TokenType.NORMAL
        if index not in added
        else TokenType.CONTROL
        if added[index].special
        else TokenType.USER_DEFINED
        for index in range(size)
    ]
    return tokens, types


def pre_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return llama.cpp's name of how a tokenizer cuts a text before it merges bytes.

    Raises:
        Unsupported: It is not a byte-level tokenizer, or cuts in a way that is not known here.
    """
    core = json.loads(cast("Any", tokenizer).backend_tokenizer.to_str())
    given = _essence(core["pre_tokenizer"])
    if core["model"]["type"] == "BPE":
        for name, known in KNOWN_PRE_TOKENIZERS.items():
            if _essence(known) == given:
                return name
    raise Unsupported(
        "llama.cpp would cut texts into other tokens than this tokenizer, whose pre-tokenizer is "
        f"none of {', '.join(KNOWN_PRE_TOKENIZERS)}. Export it with --to merged, and convert that "
        "with llama.cpp's convert_hf_to_gguf.py."
    )


def _essence(pre: JsonValue) -> list[tuple[object, ...]]:
    """Return of a pre-tokenizer what decides where a text is cut."""
    if not isinstance(pre, dict):
        return []
    if pre["type"] == "Sequence":
        parts = cast("list[JsonValue]", pre["pretokenizers"])
        return [item for part in parts for item in _essence(part)]
    names = ("individual_digits", "pattern", "behavior", "add_prefix_space", "use_regex")
    return [(pre["type"], *(json.dumps(pre.get(name)) for name in names))]
