"""Answers as they grow: how each is to be sampled, its next token, what ends it, its text.

Greedy or sampled; what an answer samples depends on its own seed, never on its neighbours.

Not here: where logits come from (`unitune_local.inference.decoding`), and which answers are
computed together (`unitune_local.inference.generate`, `unitune_local.serving.scheduler`).

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unitune_local.data.chat_text import THINK, THOUGHT, has_template, knows_thought
from unitune_local.data.rendering import turn_ends
from unitune_local.inference.structured import Guides

DRAWN_BLOCK = 256  # tokens whose chances are added up first
LAST_TOKENS = 8  # of a prompt, in which it shows whether reasoning has begun


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one prompt is answered; as in `unitune.models.Request`."""

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    # Only the likeliest tokens that together have this share of the chances are drawn
    top_p: float = 1.0
    # What the answer must follow, as of `unitune_local.inference.structured.grammar_of`
    grammar: str | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer."""

    ids: list[int]  # generated token ids, the one that ended the answer included
    text: str  # without special tokens and reasoning, and cut before a stop string
    # Stop: the model or a stop string ended it; length: max_tokens did
    finish_reason: Literal["stop", "length"]
    # Its share of the time, by the rows that were computed together
    seconds: float = field(compare=False)
    reasoning: str = ""  # what the model thought before it answered


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end an answer: the model's, the tokenizer's and the template's."""
    own = cast("int | list[int] | None", getattr(model.generation_config, "eos_token_id", None))
    ids: list[int | None] = [*own] if isinstance(own, list) else [own]
    ids.append(cast("int | None", tokenizer.eos_token_id))
    if has_template(tokenizer):
        ids += turn_ends(tokenizer)
    return frozenset(index for index in ids if index is not None)


@dataclass(frozen=True)
class Ending:
    """What ends an answer, and turns it into text."""

    stops: frozenset[int]
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def guides(self) -> Guides:
        """What holds answers to a grammar."""
        return Guides(self.tokenizer, self.stops)

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Return what ends the answers of a model."""
        return cls(stop_ids(model, tokenizer), tokenizer)

    def has_opened_thought(self, prompt: Sequence[int]) -> bool:
        """Return whether a prompt ends with the beginning of the model's reasoning."""
        end = cast("str", cast("Any", self.tokenizer).decode(prompt[-LAST_TOKENS:]))
        return end.rstrip().endswith(THINK)

    def visible(self, text: str, *, opened: bool) -> tuple[str, str]:
        """Return reasoning and answer of a text, where the chat template knows reasoning."""
        begins = text.lstrip().startswith(THINK) and knows_thought(self.tokenizer)
        if not opened and not begins:
            return "", text
        reasoning, _, answer = text.partition(THOUGHT)
        return reasoning.replace(THINK, "", 1).strip(), answer.lstrip()

    def text(self, ids: list[int]) -> str:
        """Return the text of ids without special tokens."""
        decode = cast("Any", self.tokenizer).decode
        return decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class Answer:
    """One answer as it grows.

    Args:
        place: Of its prompt among all.
        prompt: Token ids, those common to all prompts apart.
        sampling: How it is answered.
        ending: What ends it.
        opened: Whether its prompt ends with the beginning of reasoning.
    """

    def __init__(
        self,
        place: int,
        prompt: list[int],
        sampling: Sampling,
        ending: Ending,
        *,
        opened: bool = False,
    ) -> None:
        self.place = place
        self.prompt = prompt
        self.sampling = sampling
        self.ids: list[int] = []
        self.done = False
        self.seconds = 0.0
        self._ending = ending
        self._opened = opened and not sampling.grammar  # which allows no reasoning
        self._random = torch.Generator().manual_seed(sampling.seed)
        self.guide = ending.guides.guide(sampling.grammar) if sampling.grammar else None

    def draw(self) -> float:
        """Return the next of this answer's own stream of random numbers, from 0 to 1."""
        return torch.rand(1, generator=self._random, dtype=torch.float64).item()

    def add(self, token: int) -> None:
        """Take one more token, and see whether it ends the answer."""
        self.ids.append(token)
        full = len(self.ids) >= self.sampling.max_tokens
        self.done = full or token in self._ending.stops
        if self.guide is not None and not self.done:
            self.guide.take(token)
            self.done = self.guide.ended
        if self.sampling.stop and not self.done:
            self.done = self._stop_at(self._ending.text(self.ids)) is not None

    def finished(self) -> Generated:
        """Return the answer as text."""
        ended = self.ids[-1] in self._ending.stops
        text = self._ending.text(self.ids[:-1] if ended else self.ids)
        cut = self._stop_at(text)
        ended = ended or (self.guide is not None and self.guide.ended)
        reason = "stop" if ended or cut is not None else "length"
        reasoning, answer = self._ending.visible(text[:cut], opened=self._opened)
        return Generated(self.ids, answer, reason, self.seconds, reasoning)

    def text_so_far(self) -> str:
        """Return the text that stays: no part of a character, of a stop string or of reasoning."""
        text = self._ending.text(self.ids).rstrip("\N{REPLACEMENT CHARACTER}")
        text = self._ending.visible(text, opened=self._opened)[1]
        begun = (
            length
            for stop in self.sampling.stop
            for length in range(1, min(len(stop), len(text) + 1))
            if text.endswith(stop[:length])
        )
        return text[: len(text) - max(begun, default=0)]

    def _stop_at(self, text: str) -> int | None:
        places = [place for stop in self.sampling.stop if (place := text.find(stop)) >= 0]
        return min(places, default=None)


def next_tokens(logits: Tensor, step: Sequence[tuple[int, Answer]]) -> list[int]:
    """Return the next token of each answer from the logits of its row: the likeliest, or a draw.

    Logits stay on their device; only the tokens are moved to the host.
    """
    tokens = chosen_tokens(logits, step)
    return cast("list[int]", cast("Any", tokens[[row for row, _ in step]]).tolist())


def chosen_tokens(logits: Tensor, step: Sequence[tuple[int, Answer]]) -> Tensor:
    """Return the next token of every row (B,), on the device of the logits."""
    if guided := [(row, answer.guide) for row, answer in step if answer.guide]:
        logits = logits.clone()  # a server tells chances before the grammar
        for row, guide in guided:
            allowed = guide.allowed(logits.shape[1]).to(logits.device)
            logits[row].masked_fill_(~allowed, -torch.inf)
    tokens = logits.argmax(-1)  # (B,)
    if sampled := [(row, answer) for row, answer in step if answer.sampling.temperature > 0]:
        rows = torch.tensor([row for row, _ in sampled], device=logits.device)
        settings = [answer.sampling for _, answer in sampled]
        # Apple's GPUs have no float64.
        device = torch.device("cpu") if logits.device.type == "mps" else logits.device
        own = logits.index_select(0, rows).float().to(device)
        temperatures = torch.tensor([each.temperature for each in settings], device=device)
        chances = [answer.draw() for _, answer in sampled]
        draws = torch.tensor(chances, dtype=torch.float64, device=device)
        if any(each.top_p < 1 for each in settings):
            shares = torch.tensor([each.top_p for each in settings], device=device)
            own = nucleus(own, temperatures, shares)
        drawn = draw_tokens(own, temperatures, draws)
        tokens.index_copy_(0, rows, drawn.to(tokens.device))
    return tokens


def draw_tokens(logits: Tensor, temperatures: Tensor, draws: Tensor) -> Tensor:
    """Return the token (B,) at which the chances, added up, pass a draw from 0 to 1.

    First the block of tokens in which they do, and then the token in it: adding up all in float64
    took a quarter of the time of a step of the embedded model.

    Args:
        logits: In float32 (B, V).
        temperatures: Of each row (B,).
        draws: In float64 (B,).
    """
    count, size = logits.shape
    chances = (logits - logits.amax(1, keepdim=True)).div_(temperatures[:, None]).exp_()
    blocks = functional.pad(chances, (0, -size % DRAWN_BLOCK)).view(count, -1, DRAWN_BLOCK)
    sums = blocks.sum(2, dtype=torch.float64).cumsum(1)  # (B, blocks)
    places = (draws * sums[:, -1])[:, None]  # (B, 1)
    block = torch.searchsorted(sums, places, right=True).clamp(max=sums.shape[1] - 1)
    before = functional.pad(sums, (1, 0)).gather(1, block)
    inner = blocks[torch.arange(count, device=logits.device), block[:, 0]].double().cumsum(1)
    within = torch.searchsorted(inner, places - before, right=True).clamp(max=DRAWN_BLOCK - 1)
    return (block * DRAWN_BLOCK + within)[:, 0].clamp(max=size - 1)


def nucleus(logits: Tensor, temperatures: Tensor, shares: Tensor) -> Tensor:
    """Return logits (B, V) with minus infinity for all but the likeliest tokens.

    Those that stay are the fewest that together have a share of the chances; at least one does.

    Args:
        logits: In float32 (B, V).
        temperatures: Of each row (B,).
        shares: Of each row (B,); 1 keeps all tokens.

    Source: Holtzman et al., The Curious Case of Neural Text Degeneration, 2020, section 3.1.
    """
    chances, order = (logits / temperatures[:, None]).softmax(1).sort(1, descending=True)
    left_out = (chances.cumsum(1) - chances >= shares[:, None]) & (shares < 1)[:, None]
    return logits.masked_fill(left_out.scatter(1, order, left_out), -torch.inf)
