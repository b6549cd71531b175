from __future__ import annotations

import asyncio
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import dispatch_model
from peft import PeftModel
from peft.tuners.lora import Linear
from support.tiny_model import TEMPLATE
from support.tiny_training import peft_adapter, write_record
from transformers import AutoModelForCausalLM

from unitune.data.example import Message, digest
from unitune.data.general_questions import general_text
from unitune.errors import Mismatch
from unitune.models import Reply, Request, ScoresText, TextLoss
from unitune.workspace.user_settings import today
from unitune_local import machine
from unitune_local.data.rendering import render_prompt
from unitune_local.inference import chat
from unitune_local.inference.chat import LocalChatModel
from unitune_local.models.model import load_model, load_tokenizer
from unitune_local.models.model_folder import weight_files
from unitune_local.options import ChatFormat


def ask(text: str, **options: Any) -> Request:
    return Request(messages=(Message(role="user", content=text),), max_tokens=6, **options)


def quietly(make: Callable[..., PeftModel], *arguments: Any) -> PeftModel:
    """Call peft, which reads an attribute that transformers will rename."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return make(*arguments)


def replies(model: LocalChatModel, *requests: Request) -> list[Reply]:
    async def gathered() -> dict[int, Reply]:
        return {at: reply async for some in model.stream(requests) for at, reply in some}

    found = asyncio.run(gathered())
    return [found[at] for at in range(len(requests))]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNITUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes answers, as training would leave it."""
    modules = ["q_proj", "v_proj", "down_proj"]
    folder = tmp_path_factory.mktemp("adapter")
    peft_adapter(tiny_model, folder, spread=0.5, target_modules=modules)
    write_record(folder, tiny_model)
    return folder


def merged_by_peft(model: Any, adapter: Path) -> Any:
    return quietly(PeftModel.from_pretrained, model, adapter).merge_and_unload()


@pytest.fixture
def base(tiny_model: Path) -> LocalChatModel:
    return LocalChatModel(str(tiny_model), dtype=torch.float32)


def test_many_requests_are_answered_as_one_by_one(base: LocalChatModel) -> None:
    requests = [ask("a"), ask("bb b"), ask("c", temperature=1.0, seed=3), ask("a")]
    together = replies(base, *requests)
    alone = [asyncio.run(base.reply(request)) for request in requests]
    assert [one.text for one in alone] == [one.text for one in together]
    assert together[0].text == together[3].text


def test_a_reply_counts_tokens_and_shares_the_time(base: LocalChatModel, tiny_model: Path) -> None:
    request = ask("hello")
    first, longer = replies(base, request, ask("hello " * 20))
    prompt = render_prompt(load_tokenizer(tiny_model), request.messages)
    assert len(prompt) == first.prompt_tokens
    assert first.completion_tokens is not None
    assert 0 < first.completion_tokens <= 6
    assert first.seconds is not None
    assert longer.seconds is not None
    assert 0 < first.seconds < longer.seconds


def test_a_request_that_fails_is_a_reply_and_the_others_are_answered(base: LocalChatModel) -> None:
    tools = ({"type": "function", "function": {"name": "f"}},)
    too_long, with_tools, fine = replies(base, ask("x" * 600), ask("q", tools=tools), ask("q"))
    assert "context of 512" in str(too_long.error)
    assert "ignores tools" in str(with_tools.error)
    assert fine.error is None
    assert fine.text


def test_an_answer_ends_at_the_models_context(base: LocalChatModel, tiny_model: Path) -> None:
    empty = len(render_prompt(load_tokenizer(tiny_model), ask("").messages))
    (reply,) = replies(base, ask("x" * (512 - empty - 2)))
    assert reply.completion_tokens is not None
    assert reply.completion_tokens <= 2
    assert reply.finish_reason == "length"


def test_memory_that_runs_out_is_met_with_smaller_batches(
    base: LocalChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = chat.generate
    expected = [one.text for one in replies(base, *map(ask, "abcd"))]

    def small(model: Any, tokenizer: Any, prompts: list[list[int]], *rest: Any, **more: Any) -> Any:
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, tokenizer, prompts, *rest, **more)

    monkeypatch.setattr(chat, "generate", small)
    assert expected == [one.text for one in replies(base, *map(ask, "abcd"))]


def test_an_adapter_answers_as_peft_does(tiny_model: Path, adapter: Path) -> None:
    request = ask("hello")
    tokenizer = load_tokenizer(tiny_model)
    ids = render_prompt(tokenizer, request.messages)
    tuned = quietly(PeftModel.from_pretrained, load_model(tiny_model, torch.float32), adapter)
    for _ in range(request.max_tokens):
        with torch.inference_mode():
            ids.append(int(tuned(torch.tensor([ids])).logits[0, -1].argmax()))
    expected = tokenizer.decode(ids[-request.max_tokens :], skip_special_tokens=True)
    (reply,) = replies(LocalChatModel(str(tiny_model), adapter, torch.float32), request)
    assert expected == reply.text
    (untuned,) = replies(LocalChatModel(str(tiny_model), dtype=torch.float32), request)
    assert untuned.text != reply.text


def test_rounding_a_tuned_model_leaves_its_rotary_frequencies_as_in_training(
    tiny_model: Path, adapter: Path
) -> None:
    """transformers keeps them in float32; bfloat16 moves position 100 by a third of a radian."""
    tuned: Any = LocalChatModel(str(tiny_model), adapter, dtype=torch.bfloat16).model
    untuned: Any = load_model(tiny_model, torch.bfloat16)
    assert torch.equal(untuned.model.rotary_emb.inv_freq, tuned.model.rotary_emb.inv_freq)
    assert {weights.dtype for weights in tuned.parameters()} == {torch.bfloat16}
    assert tuned.lm_head.weight is tuned.model.embed_tokens.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_merged_one_layer_at_a_time(
    tiny_model: Path, adapter: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each weight is the base's in its dtype, plus the update in float32, rounded once."""
    wide: Any = merged_by_peft(load_model(tiny_model, dtype).float(), adapter)
    given, merge = list[tuple[Any, ...]](), Linear.merge
    seen, together = list[Any](), list[int]()

    def counted(layer: Linear, *args: Any, **more: Any) -> None:
        seen.append(layer.get_base_layer().weight)
        together.append(sum(weight.dtype is torch.float32 for weight in seen))
        merge(layer, *args, **more)

    def noted(path: Path, dtype: torch.dtype, **more: Any) -> Any:
        given.append((dtype, more["device"].type))
        return load_model(path, dtype, **more)

    monkeypatch.setattr(Linear, "merge", counted)
    monkeypatch.setattr(chat, "load_model", noted)
    actual: Any = LocalChatModel(str(tiny_model), adapter, dtype).model
    for name, weight in wide.state_dict().items():
        assert torch.equal(weight.to(dtype), actual.state_dict()[name]), name
    assert given == [(dtype, "cpu")]
    assert dtype is torch.float32 or max(together) == 1


def test_a_model_is_loaded_straight_to_its_gpu(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host never holds all weights; torch's `meta` device stands for the GPU."""
    real, given = AutoModelForCausalLM.from_pretrained, list[Any]()

    def noted(*args: Any, **options: Any) -> Any:
        given.append(options.get("device_map"))
        return real(*args, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", noted)
    model: Any = load_model(tiny_model, torch.bfloat16, device="meta")
    assert given == [{"": torch.device("meta")}]
    assert {(w.device.type, w.dtype) for w in model.parameters()} == {("meta", torch.bfloat16)}
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    with suppress(Exception):  # there is no fourth GPU
        load_model(tiny_model, torch.bfloat16, device="cuda")
    load_model(tiny_model, torch.bfloat16)
    assert given[1:] == [{"": torch.device("cuda", 3)}, None]


@pytest.mark.parametrize(
    ("gpus", "room", "spread"), [(2, 0.5, True), (2, 2, False), (1, 0.5, False)]
)
def test_a_model_that_one_gpu_cannot_hold_is_spread_over_all(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, room: float, *, spread: bool
) -> None:
    size = sum(file.stat().st_size for file in weight_files(tiny_model))
    given = list[Any]()
    monkeypatch.setattr(machine, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(machine, "available_bytes", lambda _: int(size * room))
    monkeypatch.setattr(chat, "load_model", lambda *_, device, **__: given.append(device))
    _ = LocalChatModel(str(tiny_model), dtype=torch.float32).model
    assert given == ["auto" if spread else torch.device("cuda")]


def test_a_model_in_parts_answers_as_a_whole_one(
    tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    """accelerate moves what layers need between devices; here one layer waits on the disk."""
    whole: Any = LocalChatModel(str(tiny_model), adapter, torch.float32)
    parts = LocalChatModel(str(tiny_model), adapter, torch.float32)
    requests = [ask("a"), ask("bb b"), ask("c", temperature=1.0, seed=3)]
    expected = [reply.text for reply in replies(whole, *requests)]
    places = dict.fromkeys(["", "model.layers.0"], "cpu") | {"model.layers.1": "disk"}
    dispatched: Any = dispatch_model(
        whole.model, places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True
    )
    vars(parts)["model"] = dispatched
    assert dispatched.model.layers[1].mlp.up_proj.weight.is_meta
    assert expected == [reply.text for reply in replies(parts, *requests)]


def test_the_fingerprint_tells_base_adapter_and_dtype_apart(
    base: LocalChatModel, tiny_model: Path, adapter: Path
) -> None:
    others = [
        LocalChatModel(str(tiny_model), dtype=torch.bfloat16),
        LocalChatModel(str(tiny_model), adapter, torch.float32),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 3
    again = LocalChatModel(str(tiny_model), dtype=torch.float32)
    assert base.fingerprint == again.fingerprint


@pytest.mark.parametrize("key", ["base_fingerprint", "template_fingerprint"])
def test_another_base_or_template_than_the_trainings_is_refused_with_both_values(
    tiny_model: Path, adapter: Path, tmp_path: Path, key: str
) -> None:
    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    record = json.loads((copy / "unitune.json").read_text(encoding="utf-8"))
    found, record[key] = record[key], "f" * 64
    (copy / "unitune.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(Mismatch) as refused:
        LocalChatModel(str(tiny_model), copy)
    assert "f" * 16 in str(refused.value)
    assert found[:16] in str(refused.value)
    assert refused.value.exit_code == 5


def test_a_tuned_model_answers_with_the_template_of_its_training(
    tiny_model: Path, adapter: Path, tmp_path: Path
) -> None:
    """And not with the date of that training; a request may bring other variables."""
    template = "{{ strftime_now('%Y') }} {{ thinks }}" + TEMPLATE
    form = ChatFormat(template=template, kwargs={"thinks": "no"}, day="1999-01-01")
    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    record = json.loads((copy / "unitune.json").read_text(encoding="utf-8"))
    record["template_fingerprint"] = digest(template)
    record["settings"] = {"chat": form.model_dump(mode="json")}
    (copy / "unitune.json").write_text(json.dumps(record), encoding="utf-8")
    chat, asked = LocalChatModel(str(tiny_model), copy, torch.float32), ask("hello")
    ids = render_prompt(chat.tokenizer, asked.messages)
    assert cast("Any", chat.tokenizer).decode(ids).startswith(f"{today():%Y} no")
    other = asked.model_copy(update={"chat_template_kwargs": {"thinks": "yes, at length"}})
    short, long = replies(chat, asked, other)
    assert len(ids) == short.prompt_tokens
    assert len(ids) + len("yes, at length") - len("no") == long.prompt_tokens  # a token is a byte


@pytest.mark.parametrize("name", ["unitune.json", "adapter_model.safetensors"])
def test_an_adapter_that_lacks_a_part_is_refused(
    tiny_model: Path, adapter: Path, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "adapter"
    shutil.copytree(adapter, copy)
    (copy / name).unlink()
    with pytest.raises(Mismatch, match=name):
        LocalChatModel(str(tiny_model), copy)


def test_no_weights_are_loaded_before_the_first_request(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "load_model", lambda *_: pytest.fail("loaded"))
    model = LocalChatModel(str(tiny_model), dtype=torch.float32)
    assert model.fingerprint
    assert model.batch_size > 1


def test_a_closed_model_frees_its_weights_and_can_be_asked_again(base: LocalChatModel) -> None:
    (before,) = replies(base, ask("a"))
    asyncio.run(base.aclose())
    assert "model" not in vars(base)
    (after,) = replies(base, ask("a"))
    assert before.text == after.text


def test_a_cancelled_call_stops_early(
    base: LocalChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    replies(base, ask("warm"))
    seen: list[bool] = []
    real = chat.generate

    def watched(*arguments: Any, **options: Any) -> Any:
        try:
            return real(*arguments, **options)
        finally:
            seen.append(options["interrupt"].is_set())

    monkeypatch.setattr(chat, "generate", watched)

    async def cancel() -> None:
        endless = Request(messages=(Message(role="user", content="q"),), max_tokens=10**6)
        task = asyncio.create_task(base.reply(endless))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert seen == [True]


@pytest.mark.parametrize("tuned", [False, True])
def test_the_loss_on_a_text_is_that_of_transformers(
    tiny_model: Path, adapter: Path, *, tuned: bool
) -> None:
    """It is computed with peft and transformers alone, before and after answers."""
    texts = [passage.text for passage in general_text()[:3]]
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    if tuned:
        plain = quietly(PeftModel.from_pretrained, plain, str(adapter))
    tokenizer = load_tokenizer(tiny_model)
    expected: list[TextLoss] = []
    for text in texts:
        ids = torch.tensor([cast("Any", tokenizer)(text)["input_ids"][:512]])
        with torch.inference_mode():
            loss = cast("Any", plain)(input_ids=ids, labels=ids).loss.item()
        expected.append(TextLoss(loss * (ids.shape[1] - 1), ids.shape[1] - 1))
    model = LocalChatModel(str(tiny_model), adapter if tuned else None, torch.float32)

    before = model.text_losses(texts)
    replies(model, ask("What?"), ask("And why is that so?"))
    after = model.text_losses(texts)

    assert isinstance(model, ScoresText)
    assert [each.tokens for each in before] == [each.tokens for each in expected]
    nats = [each.nats for each in expected]
    assert [each.nats for each in before] == pytest.approx(nats, rel=1e-4)
    assert [each.nats for each in after] == pytest.approx(nats, rel=1e-4)
