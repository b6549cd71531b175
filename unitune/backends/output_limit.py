"""The output limit of answers: the longest one that a model may give, in tokens.

A limit must not decide a verdict, and costs nothing where it is not used. So what the job does not
set is ample: for every model the longest expected answer (calls of tools included) twice over, or
with room for an explanation besides, more of it on servers, which work on many requests at once;
and for a model that thinks before it answers as much as its vendor advises.
Which models think shows in their answers (`is_cut_by_thoughts`); the tuned and the untuned get the
same.
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

# Beside the longest expected answer, on this machine, where each token takes time: some sentences.
# Of an untuned SmolLM2's answers without shots 74 tokens cut off 55 to 76 %, 136 tokens 44 to 49 %
# and 271 tokens, in three times the time, 29 to 45 %.
LOCAL_ROOM = 128
SERVED_ROOM = 1024  # likewise on a server: an explanation of some 700 words
TRAINING_ROOM = 64  # likewise while a model is trained, which by then knows how short answers are
# For a model that thinks: OpenAI advises to reserve at least as much (its guide on reasoning
# models, "Allocating space for reasoning")
THINKING_TOKENS = 25_000
# By how much hidden reasoning lengthens the billed answers of models that reason: from not at all
# to three fifths, and the middle. One team's bill was 17 % above its estimate for 682,820 hidden
# tokens (civitai/civitai, issue 3815).
REASONING = (Decimal(1), Decimal("1.3"), Decimal("1.6"))
CALL_TOKENS = 32  # around a call of a tool: its id, and the marks that it is written between
# How thoughts stand in the text of servers that do not take them out
UNCLOSED = ("<think>", "</think>")


@dataclass(frozen=True, slots=True)
class OutputLimit:
    """The limit of answers in one comparison.

    Args:
        fixed: What the job says; None: it says nothing.
        longest: Of an expected answer, in tokens, counted high.
        backend: Of the job.
        others: Backends of contenders that answer elsewhere, by contender.
    """

    fixed: int | None
    longest: int
    backend: str
    others: Mapping[str, str] = field(default_factory=dict[str, str])

    def of(self, spec: ContenderSpec) -> int:
        """Return the longest answer that a contender may give, before it is known to think."""
        if self.fixed is not None:
            return self.fixed
        backend = self.others.get(spec.name, self.backend)
        return automatic_tokens(self.longest, room(spec, backend))


def automatic_tokens(longest: int, room: int) -> int:
    """Return the longest answer that a model may give, in tokens, where the job says nothing."""
    return longest + max(room, longest)


def room(spec: ContenderSpec, backend: str) -> int:
    """Return the least room beside the longest expected answer of a contender, in tokens."""
    return SERVED_ROOM if is_served(spec, backend) else LOCAL_ROOM


def is_served(spec: ContenderSpec, backend: str) -> bool:
    """Whether a contender's answers are made on a server, and not on this machine."""
    match spec:
        case Server():
            return True
        case Recorded():
            return False
        case _:
            offer = _offer(spec.backend if isinstance(spec, Model) else backend)
            return offer is None or not offer.is_own


def is_known_to_think(spec: ContenderSpec, job: Job) -> bool:
    """Whether an offer says that a contender's model thinks before it answers."""
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
    """Return the most tokens that an expected answer of rows can have.

    Without a tokenizer, which hosted models do not hand out. Tokenizers make less than one token of
    two ASCII characters of text, digits aside, which many split one by one, and may make one token
    of each byte of anything else.
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
    """Return a request with room for thoughts, unless the job has set its limit."""
    if "max_tokens" in request.fixed or request.max_tokens >= THINKING_TOKENS:
        return request
    return request.model_copy(update={"max_tokens": request.max_tokens + THINKING_TOKENS})


def thinks(reply: Reply) -> bool:
    """Whether a model has thought before this answer, as far as it shows."""
    opened, closed = UNCLOSED
    silent = reply.finish_reason == "length" and not reply.text.strip() and not reply.tool_calls
    unfinished = reply.text.lstrip().startswith(opened) and closed not in reply.text
    return reply.error is None and (reply.thought or silent or unfinished)


def is_cut_by_thoughts(reply: Reply) -> bool:
    """Whether thoughts have left too little room for the answer."""
    return reply.finish_reason == "length" and thinks(reply)
