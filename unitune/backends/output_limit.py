"""Choose the output limit of answers in tokens.

A limit must not decide a verdict. So without one in the job, it is the longest expected answer
(tool calls included) twice over or plus some room, which is larger on servers. A model that reasons
before it answers gets as much more as its vendor advises. Reasoning is detected in the answers
(`is_cut_by_thoughts`); tuned and untuned models get the same limit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from unitune.backends import registry
from unitune.backends.offer import Offer
from unitune.data.example import Example
from unitune.errors import NotFoundError
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server
from unitune.job.job import Job
from unitune.models import Reply, Request

# Room besides the longest expected answer on this machine, where each token takes time: sentences.
# Of an untuned SmolLM2's answers without shots 74 tokens cut off 55 to 76 %, 136 tokens 44 to 49 %
# and 271 tokens, in three times the time, 29 to 45 %.
LOCAL_ROOM = 128
SERVED_ROOM = 1024  # room on a server: an explanation of some 700 words
TRAINING_ROOM = 64  # room during a training, as the model then knows the length of answers
# Room for reasoning. OpenAI advises to reserve at least this (its guide on reasoning models,
# "Allocating space for reasoning")
THINKING_TOKENS = 25_000
# Factor of billed answers by hidden reasoning: low, expected, high. One team's bill was 17 % above
# its estimate for 682,820 hidden tokens (civitai/civitai, issue 3815).
REASONING = (Decimal(1), Decimal("1.3"), Decimal("1.6"))
CALL_TOKENS = 32  # overhead of a tool call: its id and delimiters
# Marks around reasoning in the text of servers that do not remove it
UNCLOSED = ("<think>", "</think>")


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """The limit of answers in one comparison."""

    fixed: int | None  # the job's own limit; None if it has none
    longest: int  # upper bound for the tokens of the longest expected answer
    backend: str  # backend of the job
    others: Mapping[str, str] = field(default_factory=dict[str, str])

    def of(self, spec: ContenderSpec) -> int:
        """Return the limit of a contender that is not known to reason."""
        if self.fixed is not None:
            return self.fixed
        backend = self.others.get(spec.name, self.backend)
        return automatic_tokens(self.longest, room(spec, backend))


def automatic_tokens(longest: int, room: int) -> int:
    """Return the output limit in tokens of a job without its own limit."""
    return longest + max(room, longest)


def room(spec: ContenderSpec, backend: str) -> int:
    """Return the minimum room besides the longest expected answer, in tokens."""
    return SERVED_ROOM if is_served(spec, backend) else LOCAL_ROOM


def is_served(spec: ContenderSpec, backend: str) -> bool:
    """Return whether a contender answers on a server instead of this machine."""
    match spec:
        case Server():
            return True
        case Recorded():
            return False
        case _:
            offer = _offer(spec.backend if isinstance(spec, Model) else backend)
            return offer is None or not offer.is_own


def is_known_to_think(spec: ContenderSpec, job: Job) -> bool:
    """Return whether a contender's model reasons according to its offer."""
    match spec:
        case Server() | Recorded():
            return False
        case Model():
            backend, model = spec.backend, spec.model
        case _:
            backend, model = job.backend, job.base_model
    offer = _offer(backend)
    serving = offer and offer.terms(model).serving
    return bool(serving and serving.reasons)


def _offer(backend: str) -> Offer | None:
    try:
        return registry.offer(backend)
    except NotFoundError:
        return None


def longest_expected(rows: Iterable[Example]) -> int:
    """Return an upper bound for the tokens of the longest expected answer.

    No tokenizer is needed. Tokenizers make less than one token of two ASCII characters other than
    digits, and at most one token of each digit and each byte of any other character.
    """
    return max((_answer_tokens(row) for row in rows), default=0)


def _answer_tokens(row: Example) -> int:
    last = row.messages[-1]
    calls = (last.tool_calls or ()) if last.role == "assistant" else ()
    written = sum(CALL_TOKENS + _most_tokens(json.dumps(call.get("function"))) for call in calls)
    return _most_tokens(row.answer or "") + _most_tokens(last.reasoning_content or "") + written


def _most_tokens(text: str) -> int:
    dense = sum(len(char.encode()) for char in text if char.isdigit() or not char.isascii())
    plain = sum(char.isascii() and not char.isdigit() for char in text)
    return dense + (plain + 1) // 2


def widened(request: Request) -> Request:
    """Return a request with room for reasoning, unless the job sets the limit."""
    if "max_tokens" in request.fixed or request.max_tokens >= THINKING_TOKENS:
        return request
    return request.model_copy(update={"max_tokens": request.max_tokens + THINKING_TOKENS})


def thinks(reply: Reply) -> bool:
    """Return whether the reply shows reasoning."""
    opened, closed = UNCLOSED
    silent = reply.finish_reason == "length" and not reply.text.strip() and not reply.tool_calls
    unfinished = reply.text.lstrip().startswith(opened) and closed not in reply.text
    return reply.error is None and (reply.thought or silent or unfinished)


def is_cut_by_thoughts(reply: Reply) -> bool:
    """Return whether reasoning left too little room for the answer."""
    return reply.finish_reason == "length" and thinks(reply)
