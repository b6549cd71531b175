"""Answer requests with a model that only answers in a vendor's training session."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from unitune.errors import UnituneError
from unitune.models import ChatModel, Reply, Request
from unitune_local.data.chat_text import TemplateError, with_request
from unitune_local.data.rendering import render_prompt
from unitune_local.inference.answers import Answer, Ending, Sampling, reply_of
from unitune_local.models import store
from unitune_local.models.model import load_tokenizer
from unitune_local.steps.machine import ending_tokens
from unitune_local.steps.vendor import Contract, Prompt, Saved, StepVendor, connect


class Opened(NamedTuple):
    """A session, and how its tokens are written and read."""

    vendor: StepVendor
    tokenizer: PreTrainedTokenizerBase
    ending: Ending


class SessionChat(ChatModel):
    """Model that answers in a session, which the first request opens and `aclose` ends.

    Args:
        backend: Name of the backend.
        adapter: Adapter of the vendor, as ``module:Class``.
        base: Name of the base model.
        model: The vendor's name of the tuned model; None for the base.
    """

    def __init__(self, backend: str, adapter: str, base: str, model: str | None) -> None:
        self.fingerprint = f"{backend}:{model or base}"
        self._adapter, self._base, self._model = adapter, base, model
        self._lock = threading.Lock()
        self._kept: Opened | None = None

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is reported in the reply's `error`."""
        began = time.monotonic()
        try:
            return await asyncio.to_thread(self._reply, request)
        except TemplateError as error:
            return Reply(error=str(error))
        except UnituneError as error:
            return Reply.failed(error, time.monotonic() - began)

    async def aclose(self) -> None:
        """End the session; the next request opens another."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await asyncio.to_thread(kept.vendor.finish, "success")

    def _reply(self, request: Request) -> Reply:
        if request.response_schema is not None:
            return Reply(error="answers in a training session cannot be held to a JSON Schema")
        vendor, tokenizer, ending = self._opened()
        began = time.monotonic()
        own = with_request(tokenizer, request.chat_template, request.chat_template_kwargs)
        ids = render_prompt(own, request.messages, request.tools)
        prompt = Prompt(ids, 1, request.max_tokens, request.temperature, request.seed)
        ((sampled,),) = vendor.sample([prompt])
        sampling = Sampling(request.max_tokens, request.temperature, request.seed, request.stop)
        answer = Answer(0, ids, sampling, ending, opened=ending.has_opened_thought(ids))
        answer.ids, answer.seconds = sampled.ids, time.monotonic() - began
        return reply_of(answer.finished(), len(ids), request.tools or ())

    def _opened(self) -> Opened:
        with self._lock:
            if self._kept is None:
                tokenizer = load_tokenizer(store.without_weights(self._base))
                stops = ending_tokens(tokenizer)
                contract = Contract(key="chat", base=self._base, stops=tuple(sorted(stops)))
                vendor = connect(self._adapter, contract, None)
                vendor.begin(None if self._model is None else Saved(0, "", self._model))
                self._kept = Opened(vendor, tokenizer, Ending(stops, tokenizer))
            return self._kept
