"""Answer requests with a local model, with or without a tuned adapter.

An adapter is merged in float32, one layer at a time, so that a tuned model answers as fast as its
base; with quantised weights it stays separate.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from peft.tuners.lora import LoraLayer
from pydantic import ValidationError
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unitune.data.example import digest
from unitune.errors import Mismatch
from unitune.models import BatchedChatModel, Placed, Reply, Request, TextLoss
from unitune_local import machine
from unitune_local.data.chat_text import TemplateError, template_fingerprint, with_request
from unitune_local.data.rendering import render_prompt
from unitune_local.inference.answer_cost import measured
from unitune_local.inference.answers import Generated, Sampling, reply_of
from unitune_local.inference.generate import BATCH_SIZE, generate
from unitune_local.inference.structured import Tools, grammar_of
from unitune_local.models import store
from unitune_local.models.adapter import WEIGHTS, AdapterRecord, adapter_hash, is_full, read_record
from unitune_local.models.model import (
    load_adapter,
    load_model,
    load_tokenizer,
    round_weights,
    use_attention,
)
from unitune_local.models.model_folder import weight_files
from unitune_local.options import ChatFormat
from unitune_local.settings import Quantization

# Share of a GPU's free memory for weights; the rest is for keys, values and activations
WEIGHTS_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Prepared:
    """Request as tokens, with the tools that may be called."""

    ids: list[int]
    sampling: Sampling
    tools: Tools


class LocalChatModel(BatchedChatModel):
    """Model on this machine that answers many requests at once.

    Args:
        base: Name or folder of the base model.
        adapter: Folder of a tuned adapter in peft's format, with ``unitune.json``; None: untuned.
        dtype: Dtype of the weights; None: the faster one on this machine.

    Raises:
        NotFoundError, UserError, Unreachable: The base model does not exist or cannot be fetched.
        Mismatch: The adapter was trained on another base or chat template.
    """

    def __init__(
        self, base: str, adapter: Path | None = None, dtype: torch.dtype | None = None
    ) -> None:
        self._path = store.resolve(base)
        self._adapter = adapter
        self._device = machine.device()
        self._dtype = dtype or machine.best_dtype(self._device)
        self._busy = threading.Lock()
        self._quantization: Quantization | None = None
        self._form = ChatFormat()
        if adapter is not None:
            record = _record(adapter)
            self._quantization = record.settings.quantization
            # Requests use today's date, as they do wherever the model is used.
            self._form = record.settings.chat.model_copy(update={"day": None})
            _check_fits(record, adapter, base, store.fingerprint(self._path), self._template)

    @cached_property
    def fingerprint(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] - a value, computed late
        """Hash of all that determines the answers: base, adapter, dtype and chat template."""
        adapter = None if self._adapter is None else adapter_hash(self._adapter)
        base = store.fingerprint(self._path)
        return digest([base, adapter, str(self._dtype), self._quantization, self._template])

    batch_size = BATCH_SIZE

    async def reply(self, request: Request) -> Reply:
        """Answer one request; a failure is reported in the reply's `error`."""
        (reply,) = [reply async for some in self.stream([request]) for _, reply in some]
        return reply

    async def stream_reply(self, request: Request) -> AsyncGenerator[str | Reply]:
        """Yield the answer's text token by token, then the reply."""
        sent = 0
        async with aclosing(self._answers([request], texts=True)) as answers:
            async for some in answers:
                text = some if isinstance(some, str) else "".join(reply.text for _, reply in some)
                if text[sent:]:
                    yield text[sent:]
                    sent = len(text)
                if not isinstance(some, str):
                    for _, reply in some:
                        yield reply

    async def stream(self, requests: Sequence[Request]) -> AsyncGenerator[Placed]:
        """Answer all requests, some at a time; cancellation stops at the next token."""
        async with aclosing(self._answers(requests)) as answers:
            async for some in answers:
                if not isinstance(some, str):
                    yield some

    async def _answers(
        self, requests: Sequence[Request], *, texts: bool = False
    ) -> AsyncGenerator[Placed | str]:
        """Yield finished replies and, with `texts`, the growing text of a single answer."""
        interrupt, loop = threading.Event(), asyncio.get_running_loop()
        queue: asyncio.Queue[Placed | str | None] = asyncio.Queue()

        def tell(some: Placed | str | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, some)

        grew = tell if texts else None
        work = asyncio.create_task(
            asyncio.to_thread(self._replies, requests, interrupt, tell, grew)
        )
        try:
            while (some := await queue.get()) is not None:
                yield some
            await work
        finally:
            interrupt.set()
            work.cancel()

    async def aclose(self) -> None:
        """Free the weights; the next request loads them again."""
        self.__dict__.pop("model", None)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Tokenizer of the base model, with the chat template of the training."""
        return load_tokenizer(self._path, self._form)

    @cached_property
    def _template(self) -> str:
        return template_fingerprint(self.tokenizer)

    @cached_property
    def model(self) -> PreTrainedModel:
        """Model with its weights, loaded when it is first used."""
        place = "auto" if self._is_spread() else self._device
        if self._adapter is None or is_full(self._adapter):
            return load_model(self._adapter or self._path, self._dtype, device=place)
        base = load_model(self._path, self._dtype, device=place, quantization=self._quantization)
        if self._quantization is not None:
            # The adapter stays separate, as in training; merged weights would be quantised again.
            load_adapter(base, self._adapter, rounds_once=False)
            return base
        model = merged(base, self._adapter)
        round_weights(model, self._dtype)  # weights that the adapter replaced, such as embeddings
        return model

    def _is_spread(self) -> bool:
        if self._device.type != "cuda" or torch.cuda.device_count() == 1:
            return False
        size = sum(file.stat().st_size for file in weight_files(self._path))
        return size > WEIGHTS_SHARE * machine.available_bytes("cuda")

    @property
    def context(self) -> int | None:
        """Maximum tokens of a prompt and its answer together, if the model states it."""
        return cast("int | None", getattr(self.model.config, "max_position_embeddings", None))

    def text_losses(self, texts: Sequence[str]) -> list[TextLoss]:
        """Return the loss on each text without a chat template, cut at the model's context."""
        with self._busy, torch.inference_mode():
            use_attention(self.model, None)
            return [self._text_loss(text) for text in texts]

    def _text_loss(self, text: str) -> TextLoss:
        ids = cast("Any", self.tokenizer)(text)["input_ids"][: self.context]
        tokens = torch.tensor([ids], device=self.model.device)  # (1, N)
        logits = cast("Any", self.model)(input_ids=tokens).logits[0, :-1].float()  # (N - 1, V)
        nats = functional.cross_entropy(logits, tokens[0, 1:].to(logits.device), reduction="sum")
        return TextLoss(nats.item(), len(ids) - 1)

    def _replies(
        self,
        requests: Sequence[Request],
        interrupt: threading.Event,
        tell: Callable[[Placed | None], None],
        grew: Callable[[str], None] | None,
    ) -> None:
        """Pass on finished answers, and None at the end, also after an error."""
        try:
            with self._busy:  # generation switches the model's attention
                prepared = [self._prepare(request) for request in requests]
                refused = {at: each for at, each in enumerate(prepared) if isinstance(each, str)}
                tell([(at, Reply(error=why)) for at, why in refused.items()])
                valid = {at: each for at, each in enumerate(prepared) if not isinstance(each, str)}
                answered: list[tuple[Sequence[int], int]] = []

                def note(some: Placed) -> None:
                    answered.extend(
                        (valid[at].ids, reply.completion_tokens or 0) for at, reply in some
                    )
                    tell(some)

                _ = self.model  # loaded before the clock starts
                with measured(self._path, self._device, self._dtype, answered):
                    self._answer(valid, interrupt, note, grew)
        finally:
            tell(None)

    def _prepare(self, request: Request) -> Prepared | str:
        """Return a request as tokens, or the reason why it cannot be answered."""
        try:
            kwargs = request.chat_template_kwargs
            tokenizer = with_request(self.tokenizer, request.chat_template, kwargs)
            ids = render_prompt(tokenizer, request.messages, request.tools)
        except TemplateError as error:
            return str(error)
        context = self.context
        room = request.max_tokens if context is None else context - len(ids)
        if room < 1:
            return (
                f"the prompt has {len(ids)} tokens and leaves no room for an answer in the model's "
                f"context of {context}. Shorten it, or show fewer examples."
            )
        schema = request.response_schema
        sampling = Sampling(
            min(request.max_tokens, room),
            request.temperature,
            request.seed,
            request.stop,
            grammar=None if schema is None else grammar_of(schema),
        )
        return Prepared(ids, sampling, request.tools or ())

    def _answer(
        self,
        prepared: Mapping[int, Prepared],
        interrupt: threading.Event,
        tell: Callable[[Placed], None],
        grew: Callable[[str], None] | None,
    ) -> None:
        """Answer all requests; if memory runs out, answer each half of the rest separately."""
        left, places = dict(prepared), list(prepared)

        def take(done: Sequence[int], answers: Sequence[Generated]) -> None:
            some = [places[at] for at in done]
            prompts = [left.pop(place) for place in some]
            tell(
                [
                    (place, reply_of(answer, len(prompt.ids), prompt.tools))
                    for place, prompt, answer in zip(some, prompts, answers, strict=True)
                ]
            )

        prompts = [prompt.ids for prompt in prepared.values()]
        settings = [prompt.sampling for prompt in prepared.values()]
        model, tokenizer = self.model, self.tokenizer
        try:
            if prompts:
                generate(
                    model, tokenizer, prompts, settings, interrupt=interrupt, done=take, grew=grew
                )
        except (MemoryError, RuntimeError) as error:  # torch raises the latter
            if len(left) == 1:
                why = f"the model failed on this prompt: {error}"
                tell([(place, Reply(error=why)) for place in left])
                return
            halves = list(left.items())
            for half in (halves[: len(left) // 2], halves[len(left) // 2 :]):
                self._answer(dict(half), interrupt, tell, grew)


def merged(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Return a model with an adapter's update added in float32, one layer at a time."""
    tuned = cast("Any", load_adapter(model, adapter, rounds_once=False))
    for layer in tuned.modules():
        if isinstance(layer, LoraLayer):
            own = [(weights, weights.data) for weights in layer.get_base_layer().parameters()]
            for weights, stored in own:
                weights.data = stored.float()
            cast("Any", layer).merge()
            for weights, stored in own:
                weights.data = stored.copy_(weights.data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All adapters are already merged")
        return cast("PreTrainedModel", tuned.merge_and_unload())


def _record(adapter: Path) -> AdapterRecord:
    if not ((adapter / WEIGHTS).is_file() or is_full(adapter)):
        raise Mismatch(f"{adapter} does not contain {WEIGHTS}. Train again to create it.")
    try:
        return read_record(adapter)
    except (OSError, ValidationError) as error:
        raise Mismatch(
            f"{adapter} has no readable unitune.json, so the base model of the adapter is unknown. "
            "Only adapters that unitune trained can be used."
        ) from error


def _check_fits(
    record: AdapterRecord, adapter: Path, base: str, fingerprint: str, template: str
) -> None:
    for what, trained_on, current in (
        ("weights and tokenizer", record.base_fingerprint, fingerprint),
        ("chat template", record.template_fingerprint, template),
    ):
        if trained_on != current:
            raise Mismatch(
                f"the adapter in {adapter} was trained on {what} {trained_on[:16]}, but base model "
                f"{base!r} has {current[:16]}. Restore the base of the training, or train again."
            )
