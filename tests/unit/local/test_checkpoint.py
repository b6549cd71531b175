from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from unitune_local.training import checkpoint
from unitune_local.training.checkpoint import Position
from unitune_local.training.optimizers import Optimizers


def trained_layer() -> tuple[dict[str, nn.Parameter], Optimizers]:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    weights = dict(layer.named_parameters())
    optimizer = Optimizers([torch.optim.AdamW(weights.values(), lr=0.1)])
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return weights, optimizer


@pytest.mark.parametrize(("kept", "oldest"), [(1, 11), (2, 10), (3, 2)])
def test_as_many_are_kept_as_the_job_says(tmp_path: Path, kept: int, oldest: int) -> None:
    for step in (1, 2, 10, 11):
        checkpoint.save(tmp_path, Position(step=step), *trained_layer(), kept=kept)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"step-{step}" for step in (1, 2, 10, 11) if step >= oldest}


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, name: str) -> None:
    checkpoint.save(tmp_path, Position(step=1), *trained_layer())
    damaged = checkpoint.save(tmp_path, Position(step=2), *trained_layer()) / name
    damaged.write_bytes(damaged.read_bytes()[:-3])
    saved = checkpoint.latest(tmp_path)
    assert saved is not None
    assert saved.position.step == 1


def test_a_half_written_checkpoint_is_not_seen_and_not_in_the_way(tmp_path: Path) -> None:
    half = tmp_path / ".step-3.part"
    half.mkdir()
    (half / "tensors.safetensors").write_bytes(b"torn")
    assert checkpoint.latest(tmp_path) is None
    checkpoint.save(tmp_path, Position(step=3), *trained_layer())
    assert [path.name for path in tmp_path.iterdir()] == ["step-3"]


def test_without_checkpoints_there_is_no_latest(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "absent") is None


def test_a_written_checkpoint_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="unitune")
    saver = checkpoint.Saver(tmp_path, *trained_layer())
    saver.move(Position(step=7))
    saver.save()
    saver.save()
    assert caplog.messages == [f"wrote the checkpoint {tmp_path / 'step-7'}"]
