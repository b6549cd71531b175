"""Several ranks train as one does."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from support.tiny_model import SETTINGS, write_rows
from support.trained_ranks import figures_of, in_ranks, rows_of, run, run_sharded

from unitune.errors import RunFailed
from unitune.scorers.interface import Setting
from unitune.scorers.text import Regex
from unitune_local.data.batches import shares
from unitune_local.data.rows import read_rows
from unitune_local.grading import Grader
from unitune_local.models.model import add_adapter, load_model, load_tokenizer
from unitune_local.parallel import ranks
from unitune_local.parallel.processes import RankLost
from unitune_local.parallel.ranks import Ranks, noticing_loss
from unitune_local.settings import Loss, PreferenceSettings, RewardSettings, Settings
from unitune_local.training.loop import TrainingContext, train
from unitune_local.training.selection import dev_score

BY_SFT = SETTINGS.model_copy(update={"epochs": 2, "weight_decay": 0.1})
BY_REWARD = SETTINGS.model_copy(
    update={
        "epochs": 1,
        "reward": RewardSettings(group_size=4, temperature=1.0, max_tokens=3, kl=0.1),
    }
)


def by_preference(loss: Loss) -> Settings:
    preference = PreferenceSettings(
        loss=loss, beta=0.1, label_smoothing=0.0, margin=0.0, nll_weight=0.0
    )
    return BY_SFT.model_copy(update={"preference": preference, "learning_rate": 5e-3})


def close(expected: Mapping[str, Mapping[str, float]]) -> Mapping[str, Any]:
    return {key: pytest.approx(figures, rel=1e-5, abs=1e-6) for key, figures in expected.items()}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(BY_SFT, id="sft"),
        pytest.param(by_preference("dpo"), id="dpo"),
        pytest.param(by_preference("kto"), id="kto"),
        pytest.param(BY_REWARD, id="rft"),
    ],
)
def test_two_ranks_train_as_one(tiny_model: Path, tmp_path: Path, settings: Settings) -> None:
    """Value for value but for the order of sums, which differs: 17 rows in steps of 8, 8 and 1."""
    (alone,) = run(tiny_model, tmp_path / "alone", 1, settings)
    first, second = run(tiny_model, tmp_path / "both", 2, settings)
    assert figures_of(first) == close(figures_of(alone))
    assert second.events == []
    own, other = dict(first.model.named_parameters()), second.model.named_parameters()
    for name, weight in other:
        assert torch.equal(weight, own[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(BY_SFT, id="sft"),
        pytest.param(BY_SFT.model_copy(update={"dora": True}), id="dora"),
        pytest.param(by_preference("dpo"), id="dpo"),
        pytest.param(by_preference("kto"), id="kto"),
        pytest.param(BY_REWARD, id="rft"),
        pytest.param(
            BY_SFT.model_copy(
                update={"gradient_checkpointing": True, "chunked_cross_entropy": True}
            ),
            id="computed again",
        ),
    ],
)
def test_ranks_that_share_a_base_train_as_one(
    tiny_model: Path, tmp_path: Path, settings: Settings
) -> None:
    """Though one of them has no row of the last step, and another number of micro-batches."""
    (alone,) = run(tiny_model, tmp_path / "alone", 1, settings)
    assert run_sharded(tiny_model, tmp_path / "both", settings) == close(figures_of(alone))


@pytest.mark.parametrize("settings", [BY_SFT.model_copy(update={"dropout": 0.0}), BY_REWARD])
def test_ranks_that_stopped_go_on_to_the_same_figures(
    tiny_model: Path, tmp_path: Path, settings: Settings
) -> None:
    (whole, _) = run(tiny_model, tmp_path / "whole", 2, settings)
    (first, other) = run(tiny_model, tmp_path / "parts", 2, settings, stop_after=2)
    (second, _) = run(tiny_model, tmp_path / "parts", 2, settings)
    assert [first.finished, other.finished, second.finished] == [False, False, True]
    assert "step 3" in figures_of(second)
    assert figures_of(whole) == figures_of(first) | figures_of(second)


def test_an_interrupted_reference_pass_of_two_ranks_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    settings = by_preference("dpo")
    run(tiny_model, tmp_path / "whole", 2, settings)
    first, _ = run(tiny_model, tmp_path / "parts", 2, settings, stop_after=0)
    assert (first.finished, figures_of(first)) == (False, {})
    whole, kept = (tmp_path / folder / "reference.jsonl" for folder in ("whole", "parts"))
    assert len(kept.read_text().splitlines()) == 1
    run(tiny_model, tmp_path / "parts", 2, settings)
    assert whole.read_text() == kept.read_text()


def test_ranks_that_see_different_checkpoints_do_not_train(
    tiny_model: Path, tmp_path: Path
) -> None:
    run(tiny_model, tmp_path / "one", 1, BY_SFT, stop_after=2)
    rows, _ = rows_of(tiny_model, tmp_path, BY_SFT)
    models = [add_adapter(load_model(tiny_model, torch.float32), BY_SFT) for _ in range(2)]

    def act(own: Ranks) -> None:
        folder = tmp_path / ("one" if own.is_first else "none")
        context = TrainingContext(folder, lambda *_: None, lambda: False, ranks=own)
        with pytest.raises(RunFailed, match=r"different checkpoints .* the steps \[2, 0\]"):
            train(models[own.rank], rows, (), BY_SFT, context)

    in_ranks(2, tmp_path / "group", act)


@pytest.mark.parametrize(
    ("lengths", "count", "expected"),
    [
        ([5, 4, 3, 2, 1, 1], 1, [[0, 1, 2, 3, 4, 5]]),
        ([5, 4, 3, 2, 1, 1], 2, [[0, 3, 4], [1, 2, 5]]),  # 8 tokens each
        ([7, 1, 1, 1, 1, 1], 2, [[0], [1, 2, 3, 4, 5]]),
        ([3], 2, [[0], []]),
    ],
)
def test_rows_are_shared_by_their_tokens(
    lengths: list[int], count: int, expected: list[list[int]]
) -> None:
    assert expected == shares(lengths, count)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"processes": 2}, []),
        ({"processes": 1, "device": "mps"}, []),
        ({"processes": 2, "device": "mps"}, [("error", "is 2, but mps is a single GPU")]),
        ({"processes": 2, "device": "cuda"}, []),
        ({"processes": 3, "device": "cuda"}, [("error", "is 3, but only 2 GPUs")]),
        ({"processes": 9}, [("warning", "is 9, but tuning.batch_size is 8")]),
        ({"processes": 5}, [("warning", "is 5, but only 4 cores")]),
    ],
)
def test_processes_that_are_too_many_are_findings(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], expected: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(ranks, "cores", lambda: 4)
    findings = [*ranks.process_findings(SETTINGS.model_copy(update=changes))]
    assert len(expected) == len(findings)
    for (severity, words), finding in zip(expected, findings, strict=True):
        assert severity == finding.severity
        assert re.search(words, finding.message)
        assert finding.fix


def test_ranks_know_what_each_of_them_has(tmp_path: Path) -> None:
    def act(own: Ranks) -> list[object]:
        values = own.gather("é" * own.rank)
        total = own.total({f"of {own.rank}": 1.5, "both": 0.1})
        spread = own.spread([1, 2, 3], lambda places: [own.rank + place / 10 for place in places])
        return [values, own.first(lambda: own.rank), total, spread]

    total = {"of 0": 1.5, "both": 0.1 + 0.1 + 0.1, "of 1": 1.5, "of 2": 1.5}
    expected = [["", "é", "éé"], 0, total, [2.0, 1.1, 0.2]]
    assert in_ranks(3, tmp_path, act) == [expected] * 3


def test_gradients_are_added_whoever_has_one(tmp_path: Path) -> None:
    def act(own: Ranks) -> list[list[float]]:
        weights = [torch.nn.Parameter(torch.ones(count)) for count in (2, 1)]
        weights[own.rank].grad = torch.full_like(weights[own.rank], 1.0 + own.rank)
        own.add_gradients(weights)
        return [cast("Any", weight.grad).tolist() for weight in weights]

    assert in_ranks(2, tmp_path, act) == [[[1.0, 1.0], [2.0]]] * 2


def test_a_rank_that_is_gone_is_noticed(tmp_path: Path) -> None:
    def act(own: Ranks) -> None:
        own.gather("here")
        if own.is_first:
            with pytest.raises(RankLost, match="was lost"):
                own.gather("still here")

    in_ranks(2, tmp_path, act)


def test_an_error_of_the_training_is_not_taken_for_a_lost_rank() -> None:
    with pytest.raises(RuntimeError, match="restore") as failed, noticing_loss():
        raise RuntimeError("cannot restore the optimizer")
    assert type(failed.value) is RuntimeError
    with pytest.raises(RankLost), noticing_loss():
        raise RuntimeError("wait timeout after 100ms in FileStore::wait")


def test_the_first_rank_scores_what_all_have_answered(tiny_model: Path, tmp_path: Path) -> None:
    validation = read_rows(write_rows(tmp_path / "rows.jsonl", 5))
    tokenizer = load_tokenizer(tiny_model)
    grader = Grader(tokenizer, Regex(pattern="[a-m]").ready(Setting(), ""))
    model = add_adapter(load_model(tiny_model, torch.float32), SETTINGS)
    models = [model, copy.deepcopy(model)]
    alone = dev_score(grader, 4, model, validation)

    def act(own: Ranks) -> float:
        return dev_score(grader, 4, models[own.rank], validation, own)

    assert in_ranks(2, tmp_path, act) == [alone, alone]
