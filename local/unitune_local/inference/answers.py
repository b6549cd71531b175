"""Sample the tokens of growing answers, end them, and turn them into text.

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

from unitune.models import Reply
from unitune_local.data.chat_text import THINK, THOUGHT, has_template, knows_thought
from unitune_local.data.rendering import turn_ends
from unitune_local.inference.structured import Guides, Tools, read_calls

DRAWN_BLOCK = 256  # tokens whose probabilities are summed first
LAST_TOKENS = 8  # end of a prompt that is searched for the start of reasoning


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of one answer; as in `unitune.models.Request`."""

    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    # Draw only from the likeliest tokens that together have this probability
    top_p: float = 1.0
    # Grammar of the answer, from `unitune_local.inference.structured.grammar_of`
    grammar: str | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer."""

    ids: list[int]  # generated token ids, including the one that ended the answer
    text: str  # without special tokens and reasoning, cut before a stop string
    # stop: ended by the model or a stop string; length: by max_tokens
    finish_reason: Literal["stop", "length"]
    # Its share of the time of rows that were computed together
    seconds: float = field(compare=False)
    reasoning: str = ""  # reasoning before the answer


def reply_of(answer: Generated, prompt_tokens: int, tools: Tools) -> Reply:
    """Return an answer as the reply to a request, with the calls of tools in it."""
    parsed = read_calls(answer.text, tools)
    return Reply(
        text=parsed.text,
        finish_reason="tool_calls" if parsed.calls else answer.finish_reason,
        tool_calls=parsed.calls or None,
        prompt_tokens=prompt_tokens,
        completion_tokens=len(answer.ids),
        thought=bool(answer.reasoning),
        reasoning=answer.reasoning or None,
        seconds=answer.seconds,
    )


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end an answer, from the model, the tokenizer and the template."""
    own = cast("int | list[int] | None", getattr(model.generation_config, "eos_token_id", None))
    ids: list[int | None] = [*own] if isinstance(own, list) else [own]
    ids.append(cast("int | None", tokenizer.eos_token_id))
    if has_template(tokenizer):
        ids += turn_ends(tokenizer)
    return frozenset(index for index in ids if index is not None)


@dataclass(frozen=True)
class Ending:
    """Tokens that end an answer, and its conversion to text."""

    stops: frozenset[int]
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def guides(self) -> Guides:
        """Guides that hold answers to a grammar."""
        return Guides(self.tokenizer, self.stops)

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Return the ending of a model's answers."""
        return cls(stop_ids(model, tokenizer), tokenizer)

    def has_opened_thought(self, prompt: Sequence[int]) -> bool:
        """Return whether a prompt ends with the beginning of the model's reasoning."""
        end = cast("str", cast("Any", self.tokenizer).decode(prompt[-LAST_TOKENS:]))
        return end.rstrip().endswith(THINK)

    def visible(self, text: str, *, opened: bool) -> tuple[str, str]:
        """Split a text into reasoning and answer, if the chat template supports reasoning."""
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
    """A growing answer to a prompt, which is given without the prefix common to all prompts."""

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
        self._opened = opened and not sampling.grammar  # a grammar excludes it
        self._random = torch.Generator().manual_seed(sampling.seed)
        self.guide = ending.guides.guide(sampling.grammar) if sampling.grammar else None

    def draw(self) -> float:
        """Return the next of this answer's own random numbers, from 0 to 1."""
        return torch.rand(1, generator=self._random, dtype=torch.float64).item()

    def add(self, token: int) -> None:
        """Append a token, and check whether it ends the answer."""
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
        """Return the final text, without parts of a character, a stop string or reasoning."""
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
    """Return the next token of each answer, the likeliest or a sampled one."""
    tokens = chosen_tokens(logits, step)
    return cast("list[int]", cast("Any", tokens[[row for row, _ in step]]).tolist())


def chosen_tokens(logits: Tensor, step: Sequence[tuple[int, Answer]]) -> Tensor:
    """Return the next token of every row (B,), on the device of the logits."""
    if guided := [(row, answer.guide) for row, answer in step if answer.guide]:
        logits = logits.clone()  # a server reports probabilities without the grammar
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
    """Return the token (B,) at which the cumulative probability passes a draw from 0 to 1.

    Logits (B, V) are float32, temperatures (B,), draws (B,) float64. The block of the token is
    found first: summing all in float64 took a quarter of the time of a step of the embedded model.
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

    The fewest tokens that together have a row's share of the probability remain. Temperatures and
    shares are (B,); a share of 1 keeps all tokens.
    Source: Holtzman et al., The Curious Case of Neural Text Degeneration, 2020, section 3.1.
    """
    chances, order = (logits / temperatures[:, None]).softmax(1).sort(1, descending=True)
    left_out = (chances.cumsum(1) - chances >= shares[:, None]) & (shares < 1)[:, None]
    return logits.masked_fill(left_out.scatter(1, order, left_out), -torch.inf)
