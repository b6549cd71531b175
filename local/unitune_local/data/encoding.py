"""Tokenise texts that are cut into pieces, as the whole text would be tokenised.

A piece is tokenised after the end of the preceding text, since tokenizers treat the beginning of a
text, and blanks after some special tokens, differently. A piece is tokenised alone only where a
token would cross the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from unitune_local.data.chat_text import SPLIT

CONTEXT = 48  # characters before a piece; no role's header or token is longer


class _Part(NamedTuple):
    place: tuple[int, int]  # number of the text, and of the piece in it
    context: str
    text: str


def encode_pieces(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[str]]
) -> list[list[list[int]]]:
    """Return the ids of each piece of each text, in few calls of the tokenizer."""
    parts = list(chain(*(_parts(number, pieces) for number, pieces in enumerate(texts))))
    contexts = list(dict.fromkeys(part.context for part in parts))
    known = dict(zip(contexts, _encode(tokenizer, contexts), strict=True))
    behind = _encode(tokenizer, [part.context + part.text for part in parts])
    crossed = [
        part
        for part, ids in zip(parts, behind, strict=True)
        if ids[: len(known[part.context])] != known[part.context]
    ]
    alone = iter(_encode(tokenizer, [part.text for part in crossed]))
    made: list[list[list[int]]] = [[[] for _ in pieces] for pieces in texts]
    for part, ids in zip(parts, behind, strict=True):
        before = known[part.context]
        own = ids[len(before) :] if ids[: len(before)] == before else next(alone)
        made[part.place[0]][part.place[1]] += own
    return made


def _parts(number: int, pieces: Sequence[str]) -> list[_Part]:
    parts: list[_Part] = []
    context = ""
    for place, piece in enumerate(pieces):
        for text in filter(None, piece.split(SPLIT)):
            parts.append(_Part((number, place), context, text))
            context = (context + text)[-CONTEXT:]
            # Mostly a role's header, which is the same for all rows.
            context = context[max(context.rfind("<"), context.rfind("["), 0) :]
    return parts


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    encode = cast("Any", tokenizer)
    made = encode(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    return cast("list[list[int]]", made["input_ids"])
