from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from support.tiny_model import SETTINGS, sliding_model
from support.tiny_training import tuned
from torch import Tensor

from unitune_local import machine
from unitune_local.data import attention
from unitune_local.data.attention import Layout, lay_out, not_plain
from unitune_local.data.batches import (
    Batches,
    Fork,
    TrainingRow,
    epoch_batches,
    micro_batches,
    packed,
    padded,
    shared_prefix,
)
from unitune_local.models.model import use_attention
from unitune_local.objectives.loss import Form, choose_form, loss_sum

CPU = torch.device("cpu")


def row(ids: list[int], trained: list[int], weight: float = 1.0) -> TrainingRow:
    marks = tuple(place in trained for place in range(len(ids)))
    return TrainingRow(tuple(ids), marks, weight, 1)


def random_rows(seed: int, count: int = 5, prefix: int = 7) -> list[TrainingRow]:
    draw = torch.Generator().manual_seed(seed)

    def tokens(many: int) -> list[int]:
        return torch.randint(0, 256, (many,), generator=draw).tolist()

    opening = tokens(prefix)
    rows = []
    for _ in range(count):
        size = int(torch.randint(3, 20, (1,), generator=draw))
        ids = [*opening, *tokens(size)]
        trained = list(range(prefix + size // 2, prefix + size))
        rows.append(row(ids, trained, weight=0.5 + size / 10))
    return rows


def loss_and_gradient(
    model: PeftModel, rows: list[TrainingRow], form: Form
) -> tuple[float, Tensor]:
    use_attention(model, "unitune_packed" if form.kind == "packed" else "sdpa")
    model.zero_grad()
    loss = loss_sum(model, form.batch(rows, CPU))
    loss.backward()
    gradients = [w.grad.flatten() for w in model.parameters() if w.grad is not None]
    return loss.item(), torch.cat(gradients)


@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=200),
    st.integers(1, 20),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_every_row_stands_in_exactly_one_batch_of_an_epoch(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert list(range(len(lengths))) == sorted(index for batch in batches for index in batch)
    assert -(-len(lengths) // batch_size) == len(batches)
    assert batch_size >= max(len(batch) for batch in batches)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = [10 + number % 13 for number in range(100)]
    assert epoch_batches(lengths, 8, 0, 1) == epoch_batches(lengths, 8, 0, 1)
    assert epoch_batches(lengths, 8, 0, 1) != epoch_batches(lengths, 8, 0, 2)
    assert epoch_batches(lengths, 8, 0, 1) != epoch_batches(lengths, 8, 1, 1)


def test_rows_of_like_length_come_together() -> None:
    lengths = [(number * 37) % 100 + 1 for number in range(128)]
    spread = [
        max(lengths[index] for index in batch) - min(lengths[index] for index in batch)
        for batch in epoch_batches(lengths, 16, 0, 0)
    ]
    assert max(spread) < 25


def test_micro_batches_keep_to_the_token_limit_and_lose_no_row() -> None:
    rows = random_rows(0, count=20)
    parts = micro_batches(rows, 60, share=True)
    assert rows == [one for part in parts for one in part]
    assert len(parts) > 1
    assert max(packed(part, share=True).computed_tokens for part in parts) <= 60


def test_prefix_holds_no_trained_token_and_leaves_every_row_one() -> None:
    one, other = row([1, 2, 3, 4], [2, 3]), row([1, 2, 3, 5], [3])
    assert shared_prefix([one, other]) == 2
    assert shared_prefix([row([1, 2], []), row([1, 2, 3], [])]) == 1
    assert shared_prefix([one]) == 0
    assert shared_prefix([one, row([9, 2], [1])]) == 0


def test_shared_tokens_are_computed_once() -> None:
    rows = random_rows(0, count=4, prefix=7)
    own = sum(len(one.ids) - 7 for one in rows)
    assert packed(rows, share=True).computed_tokens == 7 + own
    assert packed(rows, share=False).computed_tokens == 4 * 7 + own


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "form",
    [
        Form("packed", share=True),
        Form("packed", share=False),
        Form("packed", share=True, multiple=32),
        Form("packed", share=False, multiple=32),
        Form("padded", share=False, multiple=32),
    ],
)
def test_every_form_has_the_loss_and_gradient_of_padded_rows(
    tiny_model: Path, seed: int, form: Form
) -> None:
    model, rows = tuned(tiny_model), random_rows(seed)
    expected, expected_gradient = loss_and_gradient(model, rows, Form("padded", share=False))
    loss, gradient = loss_and_gradient(model, rows, form)
    assert expected == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(expected_gradient, gradient, rtol=1e-4, atol=1e-5)


def flash_on_a_cpu(  # noqa: PLR0917 - torch's signature
    query: Tensor,  # (T, H, D)
    key: Tensor,  # (K, G, D)
    value: Tensor,  # (K, G, D)
    query_ends: Tensor,
    key_ends: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """Flash attention of variable length by its definition (Dao 2023, arXiv 2307.08691).

    Causality counts from the end of queries and keys (flash-attention 2.1, its change log).
    """
    assert window_size == (-1, 0)
    assert enable_gqa
    assert (longest_query, longest_key) == (
        query_ends.diff().max().item(),
        key_ends.diff().max().item(),
    )
    parts = []
    for at in range(len(query_ends) - 1):
        q = query[query_ends[at] : query_ends[at + 1]]
        k, v = (each[key_ends[at] : key_ends[at + 1]] for each in (key, value))
        repeats = q.shape[1] // k.shape[1]
        k, v = (each.repeat_interleave(repeats, dim=1) for each in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * (scale or q.shape[-1] ** -0.5)
        late = len(k) - len(q)
        unseen = torch.arange(len(k))[None] > torch.arange(len(q))[:, None] + late
        weights = scores.masked_fill(unseen, float("-inf")).softmax(-1)
        parts.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(parts)


def pairs(seed: int) -> list[TrainingRow]:
    """Preference rows of different length, whose prompts begin alike."""
    made = []
    for better, worse in zip(random_rows(seed, 3), random_rows(seed + 10, 3), strict=True):
        start = 9
        ids = (*better.ids, *worse.ids[start:])
        trained = tuple(place >= start for place in range(len(ids)))
        made.append(TrainingRow(ids, trained, 1.0, 1, Fork(start, len(better.ids))))
    return made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("made", [random_rows, pairs, lambda seed: random_rows(seed, 1)])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("way", ["spans", "spans without any mask", "flash"])
def test_each_way_to_attend_gives_the_loss_and_gradient_of_padded_rows(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    made: Callable[[int], list[TrainingRow]],
    way: str,
    *,
    share: bool,
) -> None:
    """What a GPU computes is put into the place of torch's function."""
    model, rows = tuned(tiny_model), made(seed)
    expected, expected_gradient = loss_and_gradient(model, rows, Form("padded", share=False))
    form = Form("packed", share=share, multiple=8)
    plain, plain_gradient = loss_and_gradient(model, rows, form)
    if way == "spans":

        def unmasked(*given: Any) -> Layout:
            return replace(lay_out(*given), mask=None)

        monkeypatch.setattr("unitune_local.data.batches.lay_out", unmasked)
    else:
        monkeypatch.setattr(attention, "LARGEST_MASK", 0)
    if way == "flash":
        monkeypatch.setattr(machine, "has_flash_attention", lambda _: True)
        monkeypatch.setattr(attention, "variable_length", flash_on_a_cpu)
    loss, gradient = loss_and_gradient(model, rows, form)
    assert expected == pytest.approx(plain, rel=1e-6)
    assert expected == pytest.approx(loss, rel=1e-6)
    torch.testing.assert_close(expected_gradient, plain_gradient, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(expected_gradient, gradient, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("kind", ["one row", "a shared prefix", "a pair"])
def test_what_a_long_row_keeps_grows_with_its_length(tiny_model: Path, kind: str) -> None:
    """A mask of its length squared would make that grow by four."""

    def kept(length: int) -> int:
        ids, other = [7] * length, [9] * length
        marks = tuple(place > length - 9 for place in range(length))
        rows = [TrainingRow(tuple(ids), marks, 1.0, 1)]
        if kind == "a shared prefix":
            rows = [replace(rows[0], ids=(*ids[:40], *more[40:])) for more in (ids, other)]
        if kind == "a pair":
            fork = Fork(length, 2 * length)
            both = TrainingRow((*ids, *ids, *other), (False,) * length + marks * 2, 1.0, 1, fork)
            rows = [both]
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss_sum(model, packed(rows, share=True))
        return sum(sizes.values())

    model = tuned(tiny_model)
    use_attention(model, "unitune_packed")
    assert kept(2048) < 2.2 * kept(1024)


def test_rows_take_five_bytes_a_token() -> None:
    """100,000 rows of 400 tokens are then 200 MB, where tuples took 1.4 GB."""
    made = row(list(range(1000, 1400)), [399])
    assert sum(map(sys.getsizeof, (made, made.ids, made.trained))) < 5 * 400 + 300
    assert made == row(list(range(1000, 1400)), [399])
    assert hash(made) == hash(row(list(range(1000, 1400)), [399]))
    assert made != row(list(range(1000, 1400)), [398])


def test_the_order_of_an_epoch_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, orders = random_rows(0, 20), list[int]()

    def counted(lengths: list[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        orders.append(epoch)
        return epoch_batches(lengths, batch_size, seed, epoch)

    monkeypatch.setattr("unitune_local.data.batches.epoch_batches", counted)
    batches = Batches(rows, 8, 5)
    lengths = [len(one.ids) for one in rows]
    steps = [batches.of(step) for step in range(1, 7)]
    expected = [step for epoch in (0, 1) for step in epoch_batches(lengths, 8, 5, epoch)]
    assert [[rows[place] for place in step] for step in expected] == steps
    assert orders == [0, 1]


def test_first_own_token_is_predicted_from_the_end_of_the_prefix(tiny_model: Path) -> None:
    model = tuned(tiny_model)
    rows = [row([5, 6, 7, 8], [3]), row([5, 6, 7, 9, 4], [3, 4])]
    assert shared_prefix(rows) == 3
    expected, _ = loss_and_gradient(model, rows, Form("padded", share=False))
    actual, _ = loss_and_gradient(model, rows, Form("packed", share=True))
    assert expected == pytest.approx(actual, rel=1e-6)


def test_loss_is_that_of_the_model_itself(tiny_model: Path) -> None:
    """The reference is transformers' own loss on one row at a time."""
    model, rows = tuned(tiny_model), random_rows(3)
    expected = 0.0
    for one in rows:
        labels = [t if on else -100 for t, on in zip(one.ids, one.trained, strict=True)]
        output = model(input_ids=torch.tensor([one.ids]), labels=torch.tensor([labels]))
        expected += output.loss.item() * one.trained_tokens * one.weight
    actual, _ = loss_and_gradient(model, rows, Form("packed", share=True))
    assert expected == pytest.approx(actual, rel=1e-5)


def test_parts_of_a_step_add_up_to_the_whole(tiny_model: Path) -> None:
    model, rows = tuned(tiny_model), random_rows(1, count=8)
    form = Form("packed", share=True)
    use_attention(model, "unitune_packed")
    whole = loss_sum(model, form.batch(rows, CPU)).item()
    parts = [
        loss_sum(model, form.batch(part, CPU)).item()
        for part in micro_batches(rows, 60, share=True)
    ]
    assert len(parts) > 1
    assert whole == pytest.approx(sum(parts), rel=1e-6)


def test_one_rounding_computes_what_peft_computes(tiny_model: Path) -> None:
    model, rows = tuned(tiny_model), random_rows(2)
    ours, _ = loss_and_gradient(model, rows, Form("padded", share=False))
    for layer in model.modules():
        vars(layer).pop("forward", None)
    pefts, _ = loss_and_gradient(model, rows, Form("padded", share=False))
    assert pefts == pytest.approx(ours, rel=1e-6)


def test_one_rounding_keeps_changes_that_bfloat16_would_lose(tiny_model: Path) -> None:
    """An adapter's first update is smaller than half a unit in the last place of the base."""
    model = tuned(tiny_model, SETTINGS.model_copy(update={"dtype": "bfloat16"}))
    layer = model.get_submodule("base_model.model.model.layers.0.mlp.up_proj")
    torch.nn.init.constant_(layer.lora_B["default"].weight, 2e-4)
    inputs = torch.randn(512, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    base = inputs.float() @ layer.base_layer.weight.float().t()
    change = (
        2
        * inputs.float()
        @ layer.lora_A["default"].weight.t()
        @ (layer.lora_B["default"].weight.t())
    )

    def arrived() -> float:
        """Share of the adapter's change that is in the output."""
        seen = layer(inputs).float() - base
        return ((seen * change).sum() / (change * change).sum()).item()

    ours = arrived()
    vars(layer).pop("forward")
    assert abs(ours - 1) < 0.1
    assert arrived() < 0.5


def test_a_plain_causal_model_takes_packed_rows(tiny_model: Path) -> None:
    form = choose_form(tuned(tiny_model), random_rows(0), SETTINGS)
    assert Form("packed", share=True) == form


def test_a_model_that_sees_a_window_gets_padded_rows() -> None:
    assert "sliding" in not_plain(sliding_model().config)


def test_a_model_that_packs_wrongly_gets_padded_rows(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration is not believed: the losses of two rows decide."""
    model = tuned(tiny_model)

    def nothing(rows: torch.Tensor, layout: Layout) -> torch.Tensor:
        return torch.zeros_like(rows.transpose(1, 2).flatten(0, 1).index_select(0, layout.places))

    monkeypatch.setattr("unitune_local.data.attention._flat_of", nothing)
    form = choose_form(model, random_rows(0), SETTINGS)
    assert form.kind == "padded"
    assert "a different loss" in form.reason
    assert model.get_base_model().config._attn_implementation == "sdpa"


def test_padded_rows_ask_for_logits_only_where_there_is_loss() -> None:
    rows = [row([1, 2, 3, 4], [3]), row([1, 2, 3], [2])]
    assert padded(rows).keep.tolist() == [1, 2]
    assert padded(rows).targets.tolist() == [4, 3]
