"""Rows leave a prefix cache and join it in place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from unitune_local.inference import decoding
from unitune_local.models.model import load_model


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> PreTrainedModel:
    return load_model(tiny_model, torch.float32)


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
