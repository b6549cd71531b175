from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.tiny_model import sliding_model, tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from unitune.errors import Interrupted
from unitune_local import machine
from unitune_local.inference import answers, decoding, generate
from unitune_local.inference.answers import Generated, Sampling
from unitune_local.inference.prefix_cache import is_plain
from unitune_local.models.model import load_model

TOKENIZER = tiny_tokenizer()


def some_prompts(count: int, common: int = 12, seed: int = 0) -> list[list[int]]:
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    beginning = [chance.randrange(256) for _ in range(common)]
    return [
        beginning + [chance.randrange(256) for _ in range(chance.randrange(1, 20))]
        for _ in range(count)
    ]


def answer(
    model: PreTrainedModel, prompts: list[list[int]], sampling: Sampling, **options: Any
) -> list[Generated]:
    return generate.generate(model, TOKENIZER, prompts, [sampling] * len(prompts), **options)


def plain_greedy(model: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False
        )
    return out[0, len(prompt) :].tolist()


def greedy_after(model: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    """Return the ids of one prompt at a time, whole prefix each step, without any cache."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("common", [0, 12])
def test_batches_answer_as_transformers_does_one_by_one(
    model: PreTrainedModel, batch_size: int, common: int
) -> None:
    prompts = some_prompts(7, common)
    expected = [plain_greedy(model, prompt, 9) for prompt in prompts]
    actual = answer(model, prompts, Sampling(max_tokens=9), batch_size=batch_size)
    assert expected == [one.ids for one in actual]


@pytest.mark.parametrize(
    ("limit", "tokens", "prompts"),
    [("CHUNK_TOKENS", 7, some_prompts(3, common=40)), ("PROMPT_TOKENS", 25, some_prompts(9))],
)
def test_long_or_many_prompts_are_fed_in_parts_with_the_same_result(
    model: PreTrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    tokens: int,
    prompts: list[list[int]],
) -> None:
    expected = answer(model, prompts, Sampling(max_tokens=5))
    monkeypatch.setattr(decoding, limit, tokens)
    assert expected == answer(model, prompts, Sampling(max_tokens=5))


def test_rows_that_finish_early_leave_the_others_unchanged(model: PreTrainedModel) -> None:
    prompts = some_prompts(6)
    lengths = [1, 12, 2, 12, 3, 12]
    settings = [Sampling(max_tokens=length) for length in lengths]
    actual = generate.generate(model, TOKENIZER, prompts, settings)
    assert lengths == [len(one.ids) for one in actual]
    for prompt, one in zip(prompts, actual, strict=True):
        assert greedy_after(model, prompt, len(one.ids)) == one.ids
    assert {one.finish_reason for one in actual} == {"length"}


def test_a_sliding_window_model_answers_as_alone() -> None:
    model = sliding_model()
    assert not is_plain(model)
    prompts = some_prompts(5)
    actual = answer(model, prompts, Sampling(max_tokens=8))
    assert [greedy_after(model, prompt, 8) for prompt in prompts] == [one.ids for one in actual]


def test_the_models_own_attention_is_back_afterwards(model: PreTrainedModel) -> None:
    before = model.config._attn_implementation
    answer(model, some_prompts(2), Sampling(max_tokens=2))
    assert before == model.config._attn_implementation


def test_a_memory_budget_makes_smaller_batches(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = some_prompts(8)
    expected = answer(model, prompts, Sampling(max_tokens=4))
    sizes: list[int] = []
    rows = decoding.PrefixCachedRows

    class Counted(rows):
        def begin(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
            sizes.append(len(prompts))
            return super().begin(prompts)

    monkeypatch.setattr(generate, "PrefixCachedRows", Counted)
    # 2 (keys, values) * 2 layers * 2 heads * 8 wide * 4 bytes = 256 bytes a token.
    monkeypatch.setattr(generate, "MEMORY_BYTES", 256 * 24 * 3)
    assert expected == answer(model, prompts, Sampling(max_tokens=4))
    assert max(sizes[1:]) < 8, "the first is the common beginning"
    assert sum(sizes[1:]) == 8


@pytest.mark.parametrize(
    ("free", "cached", "expected"), [(60 << 30, 0, 16 << 30), (60 << 30, 5 << 30, 32 << 30)]
)
def test_batches_use_the_free_memory_of_a_gpu(
    free: int, cached: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 rows of an 8B model (131 kB a token) with 1,536 tokens each make one batch."""
    monkeypatch.setattr(machine, "available_bytes", lambda _: free)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: cached)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
    gpu = torch.device("cuda")
    assert expected == generate.batch_bytes(gpu)
    config: Any = SimpleNamespace(
        num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, head_dim=128
    )
    config.get_text_config = lambda: config
    large: Any = SimpleNamespace(device=gpu, dtype=torch.bfloat16, config=config)
    ending = answers.Ending(frozenset(), TOKENIZER)
    waiting = [answers.Answer(n, [0] * 1024, Sampling(512), ending) for n in range(64)]
    assert [len(batch) for batch in generate._batches(waiting, 256, large)] == [64]


def test_the_end_of_turn_token_ends_the_answer_and_is_no_text(tiny_model: Path) -> None:
    model = load_model(tiny_model, torch.float32)
    (prompt,) = some_prompts(1)
    ids = plain_greedy(model, prompt, 6)
    model.generation_config.eos_token_id = [ids[3], 999]
    (actual,) = answer(model, [prompt], Sampling(max_tokens=6))
    expected = ids[: ids.index(ids[3]) + 1]
    assert expected == actual.ids
    assert actual.finish_reason == "stop"
    assert TOKENIZER.decode(expected[:-1]) == actual.text


def test_a_stop_string_is_found_across_tokens_and_cut_away(model: PreTrainedModel) -> None:
    (prompt,) = some_prompts(1, seed=3)
    (free,) = answer(model, [prompt], Sampling(max_tokens=20))
    stop = free.text[4:7]
    assert len(stop) == 3
    (actual,) = answer(model, [prompt], Sampling(max_tokens=20, stop=("never", stop)))
    assert free.text[: free.text.index(stop)] == actual.text
    assert actual.finish_reason == "stop"
    assert len(actual.ids) < len(free.ids)


def test_sampling_depends_on_the_seed_and_not_on_the_batch(model: PreTrainedModel) -> None:
    prompts = [some_prompts(1)[0]] * 6
    settings = [Sampling(max_tokens=8, temperature=1.0, seed=seed) for seed in (1, 2, 3, 1, 2, 3)]
    together = generate.generate(model, TOKENIZER, prompts, settings)
    alone = [
        generate.generate(model, TOKENIZER, [prompt], [one])[0]
        for prompt, one in zip(prompts, settings, strict=True)
    ]
    assert alone == together
    assert together[:3] == together[3:]
    assert len({one.text for one in together}) == 3


def test_sampled_tokens_follow_the_models_distribution(model: PreTrainedModel) -> None:
    (prompt,) = some_prompts(1)
    count = 600
    settings = [Sampling(max_tokens=1, temperature=0.05, seed=seed) for seed in range(count)]
    drawn = generate.generate(model, TOKENIZER, [prompt] * count, settings)
    seen = Counter(one.ids[0] for one in drawn)
    with torch.inference_mode():
        expected = (model(torch.tensor([prompt])).logits[0, -1] / 0.05).softmax(-1)
    for token, share in enumerate(expected.tolist()):
        tolerance = 5 * (share * (1 - share) / count) ** 0.5 + 2 / count
        assert abs(seen[token] / count - share) < tolerance, token


@pytest.mark.parametrize("size", [3, 256, 1000])
def test_a_draw_is_where_the_chances_added_up_pass_it(size: int) -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(200, size)
    logits[:, size // 3] = -torch.inf
    temperatures = torch.linspace(0.3, 2.0, 200)
    draws = torch.rand(200, dtype=torch.float64)
    draws[:2] = torch.tensor([0.0, 1 - 2**-53])  # the latter may be rounded to the sum of all
    summed = (logits.double() / temperatures[:, None]).softmax(1).cumsum(1)
    expected = torch.searchsorted(summed, (draws * summed[:, -1])[:, None], right=True)[:, 0]
    drawn = answers.draw_tokens(logits, temperatures, draws)
    assert expected[2:].tolist() == drawn[2:].tolist()
    assert expected[0] == drawn[0]
    assert logits[1, drawn[1]].isfinite()


def test_sampling_moves_no_logits_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying from torch's `meta` device, which has shapes alone, is an error."""
    monkeypatch.setattr(answers.Answer, "draw", lambda _: 0.5)
    settings = [Sampling(temperature=1.0, top_p=0.9), Sampling(), Sampling(temperature=2.0)]
    ending = answers.Ending(frozenset(), TOKENIZER)
    step = [(row, answers.Answer(row, [1], each, ending)) for row, each in enumerate(settings)]
    chosen = answers.chosen_tokens(torch.empty(3, 50_000, device="meta"), step)
    assert (chosen.device.type, chosen.shape) == ("meta", (3,))


def test_greedy_and_sampled_rows_share_a_batch(model: PreTrainedModel) -> None:
    prompts = some_prompts(2)
    settings = [Sampling(max_tokens=6), Sampling(max_tokens=6, temperature=2.0, seed=4)]
    greedy, sampled = generate.generate(model, TOKENIZER, prompts, settings)
    assert plain_greedy(model, prompts[0], 6) == greedy.ids
    assert plain_greedy(model, prompts[1], 6) != sampled.ids


def test_an_interrupt_stops_before_the_next_token(model: PreTrainedModel) -> None:
    interrupt = threading.Event()
    interrupt.set()
    with pytest.raises(Interrupted):
        answer(model, some_prompts(2), Sampling(max_tokens=100), interrupt=interrupt)


def test_no_prompts_give_no_answers(model: PreTrainedModel) -> None:
    assert answer(model, [], Sampling()) == []


def test_answers_come_in_slices_which_are_the_same_on_every_run(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = some_prompts(100)
    expected = answer(model, prompts, Sampling(max_tokens=4))
    monkeypatch.setattr(generate, "SLICE_TOKENS", 600)
    begin, batches = generate.PrefixCachedRows.begin, list[int]()

    def counted(rows: generate.PrefixCachedRows, prompts: Sequence[Sequence[int]]) -> Tensor:
        batches.extend([len(prompts)] if len(prompts) > 1 else [])  # the common beginning is one
        return begin(rows, prompts)

    monkeypatch.setattr(generate.PrefixCachedRows, "begin", counted)
    runs: list[list[list[int]]] = []
    for _ in range(2):
        slices, told = list[list[int]](), dict[int, Generated]()

        def done(
            places: Sequence[int],
            answers: Sequence[Generated],
            slices: list[list[int]] = slices,
            told: dict[int, Generated] = told,
        ) -> None:
            slices.append(list(places))
            told.update(zip(places, answers, strict=True))

        actual = answer(model, prompts, Sampling(max_tokens=4), done=done)
        assert expected == actual == [told[place] for place in range(100)]
        runs.append(slices)
    assert runs[0] == runs[1]
    assert len(runs[0]) > 1
    assert batches[: len(batches) // 2] == batches[len(batches) // 2 :]
    assert all(size >= 32 for size in batches[: len(batches) // 2 - 1])


def test_an_answer_that_ends_early_does_not_wait_for_its_batch(model: PreTrainedModel) -> None:
    """Each answer is recorded as it ends, and has its share of the time."""
    slices = list[list[int]]()
    settings = [Sampling(max_tokens=length) for length in (5, 1, 3)]
    answers = generate.generate(
        model, TOKENIZER, some_prompts(3), settings, done=lambda places, _: slices.append([*places])
    )
    ends = [len(answers[place].ids) for slice_ in slices for place in slice_]
    assert ends == sorted(ends)
    assert len(slices) == len(set(ends)) > 1
    assert answers[1].seconds < answers[2].seconds


def test_text_so_far_holds_back_what_may_still_change(model: PreTrainedModel) -> None:
    """A stop string that has begun is no text yet, and the last text is the answer's beginning."""
    texts = list[str]()
    (prompt,) = some_prompts(1)
    (whole,) = answer(model, [prompt], Sampling(max_tokens=12))
    stop = whole.text[2:5]
    (cut,) = answer(model, [prompt], Sampling(max_tokens=12, stop=(stop,)), grew=texts.append)
    assert texts
    assert all(cut.text.startswith(text) for text in texts)


def test_an_interrupt_is_heard_while_prompts_are_read(model: PreTrainedModel) -> None:
    """Reading long prompts takes minutes on a small machine, before the first token."""
    interrupt, forwards = threading.Event(), list[int]()

    def count(*_: object) -> None:
        forwards.append(1)
        interrupt.set()

    hook = model.register_forward_hook(count)
    prompts = [list(range(200)) + [n] * 200 for n in range(8)]
    try:
        with pytest.raises(Interrupted):
            answer(model, prompts[:1] + prompts, Sampling(max_tokens=9), interrupt=interrupt)
    finally:
        hook.remove()
    assert len(forwards) <= 2


@pytest.mark.parametrize(
    ("share", "kept"),
    [(0.3, {0}), (0.5, {0}), (0.51, {0, 1}), (0.8, {0, 1}), (0.81, {0, 1, 2}), (1.0, {0, 1, 2, 3})],
)
def test_top_p_keeps_the_fewest_tokens_that_have_its_share(share: float, kept: set[int]) -> None:
    """Chances 0.5, 0.3, 0.15 and 0.05, in another order, at two temperatures."""
    order = [2, 0, 3, 1]
    chances = torch.tensor([[0.5, 0.3, 0.15, 0.05]])[:, [order.index(at) for at in range(4)]]
    for temperature in (1.0, 0.5):
        logits = chances.log() * temperature
        left = answers.nucleus(logits, torch.tensor([temperature]), torch.tensor([share]))
        finite = {place for place in range(4) if left[0, place].isfinite()}
        places = [order.index(at) for at in range(4)]
        assert {at for at in range(4) if places[at] in kept} == finite


def test_a_small_top_p_is_greedy(model: PreTrainedModel) -> None:
    prompts = some_prompts(3)
    expected = answer(model, prompts, Sampling(max_tokens=6))
    assert expected == answer(model, prompts, Sampling(6, 1.0, seed=3, top_p=1e-6))


def test_rows_that_join_later_answer_as_alone(model: PreTrainedModel) -> None:
    first, second, third, fourth = some_prompts(4, common=0)
    assert len(third) != len(fourth)
    with torch.inference_mode(), decoding.prefix_caching(model):
        running = decoding.PrefixCachedRows(model)
        grown = [[int(row.argmax())] for row in running.begin([first, second])]
        for step in range(4):
            if step == 2:
                shared = decoding.PrefixCachedRows(model)
                shared.begin([third[:1]])
                late = decoding.PrefixCachedRows(model, shared.cache)
                logits = late.begin([third[1:], [third[0], *fourth]])
                grown += [[int(row.argmax())] for row in logits]
                running.join([late.row(0), late.row(1)])
            logits = running.add(torch.tensor([ids[-1] for ids in grown]))
            for ids, row in zip(grown, logits, strict=True):
                ids.append(int(row.argmax()))
    assert [greedy_after(model, prompt, 5) for prompt in (first, second)] == grown[:2]
    late_prompts = [third, [third[0], third[0], *fourth]]
    assert [greedy_after(model, prompt, 3) for prompt in late_prompts] == grown[2:]


def test_padding_that_no_row_needs_any_more_is_dropped(model: PreTrainedModel) -> None:
    prompts = [list(range(100)), list(range(5))]
    with torch.inference_mode(), decoding.prefix_caching(model):
        rows = decoding.PrefixCachedRows(model)
        rows.begin(prompts)
        rows.keep(torch.tensor([1]))
        assert rows.cache.used == 5
        logits = rows.add(torch.tensor([7]))
    expected = model(torch.tensor([[*prompts[1], 7]])).logits[0, -1]
    assert torch.allclose(expected, logits[0], atol=1e-4)


def check_rows(model: PreTrainedModel, rows: list[list[int]], logits: Tensor) -> None:
    """Compare the logits of rows with those of each row alone."""
    with torch.inference_mode():
        for ids, row in zip(rows, logits, strict=True):
            alone = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-5)


def test_a_row_that_joins_in_place_of_an_ended_one_copies_no_others(
    model: PreTrainedModel,
) -> None:
    prompts = [[place, *range(20)] for place in range(6)]
    grown = list[tuple[list[list[int]], Tensor]]()
    with torch.inference_mode(), decoding.prefix_caching(model):
        running, late = decoding.PrefixCachedRows(model), decoding.PrefixCachedRows(model)
        running.begin(prompts)
        late.begin([[7, 8, 9]])
        running.keep(torch.tensor([0, 1, 5, 3, 4]))  # the last one fills the gap
        before = [places.keys.data_ptr() for places in running.cache.layers.values()]
        running.join([late.row(0)])
        assert before == [places.keys.data_ptr() for places in running.cache.layers.values()]
        rows = [*[prompts[place] for place in (0, 1, 5, 3, 4)], [7, 8, 9]]
        for token in range(40):  # beyond the room of a row
            rows = [[*ids, token] for ids in rows]
            grown.append((rows, running.add(torch.tensor([token] * 6))))
        running.join([late.row(0), late.row(0)])
        assert (running.cache.rows, running.cache.spare) == (8, 2)
    for rows, logits in grown[::13]:
        check_rows(model, rows, logits)


def test_rows_that_most_have_left_give_their_memory_back(model: PreTrainedModel) -> None:
    with torch.inference_mode(), decoding.prefix_caching(model):
        rows = decoding.PrefixCachedRows(model)
        rows.begin([[place, 1, 2] for place in range(8)])
        rows.keep(torch.tensor([1, 2, 3, 4, 5]))
        assert (rows.cache.rows, rows.cache.spare) == (5, 3)
        rows.keep(torch.tensor([0, 4]))
        assert (rows.cache.rows, rows.cache.spare) == (2, 0)
        logits = rows.add(torch.tensor([3, 3]))
    check_rows(model, [[1, 1, 2, 3], [5, 1, 2, 3]], logits)


@pytest.mark.parametrize(
    ("dtype", "count", "expected"),
    [(torch.bfloat16, 1, False), (torch.bfloat16, 2, True), (torch.float32, 1, True)],
)
def test_one_bfloat16_token_on_a_cpu_is_multiplied_without_onednn(
    tiny_model: Path, dtype: torch.dtype, count: int, *, expected: bool
) -> None:
    """oneDNN repacks all weights for each product: 1.6 times the time of a lone answer's token."""
    small = load_model(tiny_model, dtype)
    used = list[bool]()
    hook = small.register_forward_pre_hook(
        lambda *_: used.append(bool(torch.backends.mkldnn.enabled))
    )
    with torch.inference_mode(), decoding.prefix_caching(small):
        rows = decoding.PrefixCachedRows(small)
        rows.begin([[1, 2, 3 + n] for n in range(count)])
        rows.add(torch.tensor([5] * count))
    hook.remove()
    assert used == [True, expected]
    assert torch.backends.mkldnn.enabled
