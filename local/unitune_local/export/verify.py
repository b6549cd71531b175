"""What an export answers to a run's requests, in the program that it was made for.

Each function loads what was written, answers greedily, and returns the texts. What they are held
against is what the run's own model answers, through the very code that an evaluation uses.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from transformers import PreTrainedTokenizerBase

from unitune.backends import event_loop
from unitune.errors import BackendError, Mismatch
from unitune.models import Reply, Request
from unitune.workspace.progress import counted
from unitune_local import machine
from unitune_local.data.chat_text import has_template, with_request
from unitune_local.data.rendering import completed_text, render_prompt
from unitune_local.inference.answers import Sampling
from unitune_local.inference.chat import LocalChatModel
from unitune_local.inference.generate import generate
from unitune_local.models.model import load_adapter, load_model, load_tokenizer
from unitune_local.settings import Quantization

# So far two answers are alike that may part later: other arithmetic turns a near tie of two tokens,
# and each answer of many tokens has some. A wrong weight shows in the first token.
ALIKE_CHARACTERS = 12
# Share of answers that must begin alike; of a model with a wrong tensor order none does
LEAST_ALIKE = 0.5


class Answered(NamedTuple):
    """A request with the run's own answer to it."""

    request: Request
    text: str
    tokens: int  # of prompt and answer
    completes: str | None  # Text that a model without a chat template completes


def own_answers(model: LocalChatModel, requests: Sequence[Request]) -> list[Answered]:
    """Return what a run's model answers; requests that it cannot answer are left out.

    Raises:
        BackendError: It can answer none.
    """
    replies = event_loop.run(_collect(model, requests))
    is_chat = has_template(model.tokenizer)
    answered = [
        Answered(request, reply.text, (reply.prompt_tokens or 0) + request.max_tokens, completes)
        for request, reply in zip(requests, replies, strict=True)
        if reply.error is None
        for completes in [None if is_chat else completed_text(request.messages)]
    ]
    if requests and not answered:
        raise BackendError(f"the run's own model answers none of its rows: {replies[0].error}")
    return answered


async def _collect(model: LocalChatModel, requests: Sequence[Request]) -> list[Reply]:
    replies = dict[int, Reply]()
    async with model:
        async for some in model.stream(requests):
            replies |= dict(some)
    return [replies[place] for place in range(len(requests))]


def in_transformers(folder: Path, answered: Sequence[Answered]) -> list[str]:
    """Return what a whole model in a folder answers."""
    requests = [each.request for each in answered]
    return [reply.text for reply in event_loop.run(_collect(LocalChatModel(str(folder)), requests))]


def in_peft(
    base: Path, adapter: Path, quantization: Quantization | None, answered: Sequence[Answered]
) -> list[str]:
    """Return what an adapter answers beside its base, computed as peft does."""
    device = machine.device()
    dtype = machine.best_dtype(device)
    model = load_model(base, dtype, device=device, quantization=quantization)
    load_adapter(model, adapter, rounds_once=False)
    tokenizer = load_tokenizer(adapter)
    requests = [each.request for each in answered]
    prompts = [_prompt(tokenizer, each) for each in requests]
    settings = [Sampling(each.max_tokens, stop=each.stop) for each in requests]
    return [answer.text for answer in generate(model, tokenizer, prompts, settings)]


def _prompt(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    own = with_request(tokenizer, None, request.chat_template_kwargs)
    return render_prompt(own, request.messages, request.tools)


def in_llama_cpp(file: Path, adapter: Path | None, answered: Sequence[Answered]) -> list[str]:
    """Return what a GGUF file answers in llama.cpp, through the chat template that it holds.

    Raises:
        Mismatch: llama.cpp cannot load it.
    """
    package = cast("Any", import_module("xllamacpp"))  # an extra, without types
    params = package.CommonParams()
    params.model.path = str(file)
    if adapter is not None:
        params.lora_adapters = [package.CommonAdapterLoraInfo(str(adapter), 1.0)]
    params.n_ctx = max(each.tokens for each in answered) + 1
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
    params.n_gpu_layers = 0
    params.force_pure_content_parser = True  # calls of tools stay in the text
    params.api_keys = [secrets.token_hex()]  # it listens on this machine, which may be shared
    params.verbosity = 0
    try:
        server = package.Server(params)
    except RuntimeError as error:
        raise Mismatch(f"llama.cpp cannot load {file.name}: {error}") from error
    return [
        _llama_cpp_answer(server, each)
        for each in counted(answered, "answering in llama.cpp", len(answered))
    ]


def _llama_cpp_answer(server: Any, answered: Answered) -> str:
    request = answered.request
    if answered.completes is not None:
        asked = {"prompt": answered.completes, "max_tokens": request.max_tokens, "temperature": 0}
        return str(server.handle_completions(asked)["choices"][0]["text"])
    body: dict[str, Any] = {
        "messages": [message.wire for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": 0,
        "chat_template_kwargs": request.chat_template_kwargs,
    }
    reply = server.handle_chat_completions(
        body | ({"tools": list(request.tools)} if request.tools else {})
    )
    if "choices" not in reply:
        raise Mismatch(f"llama.cpp does not answer: {reply}")
    return str(reply["choices"][0]["message"]["content"] or "")


def in_mlx(base: Path, adapter: Path, answered: Sequence[Answered]) -> list[str]:
    """Return what an adapter in mlx-lm's form answers over its base."""
    package = cast("Any", import_module("mlx_lm"))  # an extra
    model, mlx_tokenizer = package.load(str(base), adapter_path=str(adapter))
    tokenizer = load_tokenizer(base)
    return [
        package.generate(
            model,
            mlx_tokenizer,
            _prompt(tokenizer, each.request),
            max_tokens=each.request.max_tokens,
        )
        for each in counted(answered, "answering in mlx-lm", len(answered))
    ]
