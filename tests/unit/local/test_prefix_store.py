"""What is kept of prompts' beginnings, and what goes first."""

from __future__ import annotations

import pytest
import torch

from unitune_local.inference.prefix_cache import KeysValues, PrefixCache
from unitune_local.serving.scheduler import BLOCK_TOKENS, PrefixStore

LAYERS, GROUPS, WIDTH = 3, 2, 4
BLOCK_BYTES = LAYERS * 2 * GROUPS * BLOCK_TOKENS * WIDTH * 4


def seen(ids: list[int]) -> PrefixCache:
    """Return keys and values that say whose they are: the sum of all tokens up to theirs."""
    marks = torch.tensor(ids, dtype=torch.float32).cumsum(0)
    part = marks[None, None, :, None].expand(1, GROUPS, -1, WIDTH)
    layers = {layer: KeysValues(part + layer, -part - layer) for layer in range(LAYERS)}
    return PrefixCache(used=len(ids), layers=layers)


def prompt(own: int, count: int = 3 * BLOCK_TOKENS, common: int = 2 * BLOCK_TOKENS) -> list[int]:
    return [1] * common + [own] * (count - common)


def test_a_beginning_comes_back_as_it_was_kept() -> None:
    store = PrefixStore(10 * BLOCK_BYTES)
    first = prompt(7)
    store.add(first, seen(first))
    kept = store.longest(prompt(8))
    assert kept is not None
    assert kept.used == store.length(prompt(8)) == 2 * BLOCK_TOKENS
    expected = seen(first[: kept.used])
    for layer in range(LAYERS):
        assert torch.equal(expected.layers[layer].keys, kept.layers[layer].keys)
        assert torch.equal(expected.layers[layer].values, kept.layers[layer].values)


def test_at_least_one_token_is_left_to_read() -> None:
    """The logits after the last one are not kept."""
    store = PrefixStore(10 * BLOCK_BYTES)
    whole = prompt(7)
    store.add(whole, seen(whole))
    assert store.length(whole) == 2 * BLOCK_TOKENS
    assert store.length([*whole, 5]) == 3 * BLOCK_TOKENS


def test_the_same_tokens_after_others_are_not_the_same() -> None:
    store = PrefixStore(10 * BLOCK_BYTES)
    whole = prompt(7)
    store.add(whole, seen(whole))
    assert store.longest([2, *whole]) is None
    assert store.longest([2, *whole[1:], 5]) is None
    assert store.longest(whole[: BLOCK_TOKENS - 1]) is None


def test_what_many_begin_with_is_kept_once() -> None:
    store = PrefixStore(10 * BLOCK_BYTES)
    for own in range(3):
        store.add(prompt(own), seen(prompt(own)))
    assert store.bytes == (2 + 3) * BLOCK_BYTES


@pytest.mark.parametrize("used", ["first", "second"])
def test_what_was_used_least_lately_goes_and_ends_before_beginnings(used: str) -> None:
    store = PrefixStore(5 * BLOCK_BYTES)
    prompts = {name: prompt(own, common=0) for name, own in (("first", 3), ("second", 4))}
    store.add(prompts["first"], seen(prompts["first"]))
    store.add(prompts["second"][:64], seen(prompts["second"][:64]))
    assert store.bytes == 5 * BLOCK_BYTES
    assert store.longest([*prompts[used], 9])
    store.add(prompt(5, 32, 0), seen(prompt(5, 32, 0)))
    assert store.bytes == 5 * BLOCK_BYTES
    lengths = {name: store.length([*ids, 9]) for name, ids in prompts.items()}
    expected = {"first": {"first": 96, "second": 32}, "second": {"first": 64, "second": 64}}
    assert expected[used] == lengths


def test_kept_blocks_hold_no_larger_tensors() -> None:
    store = PrefixStore(10 * BLOCK_BYTES)
    store.add(prompt(7), seen(prompt(7)))
    held = {
        places.keys.untyped_storage().nbytes()
        for block in store._blocks.values()
        for places in block.values()
    }
    assert held == {BLOCK_BYTES // LAYERS // 2}
