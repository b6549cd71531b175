from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import job_on, write_rows

from unitune.data.check import read_job
from unitune.data.dataset import Dataset
from unitune.data.split import Inputs, Splits
from unitune.errors import DataError


def held_out(keys: list[str], rows: int, seed: int) -> frozenset[str] | None:
    """Return the inputs whose rows are held out, all of them."""
    inputs = Inputs(seed)
    for key in keys:
        inputs.add(key)
    assert (len(keys), len(set(keys))) == (len(inputs), inputs.different())
    held = inputs.held_out(rows)
    if held is None:
        return None
    marked = list(zip(keys, held.tolist(), strict=True))
    chosen = frozenset(key for key, out in marked if out)
    assert chosen.isdisjoint(key for key, out in marked if not out)
    return chosen


def asked(dataset: Dataset) -> list[str]:
    return [example.messages[0].text for example in dataset]


def split(
    folder: Path, inputs: list[str], validation: float | None = None, seed: int | str = "auto"
) -> Splits:
    rows = ({"prompt": text, "completion": f"answer {at}"} for at, text in enumerate(inputs))
    write_rows(folder / "train.jsonl", rows)
    data = {"train": "train.jsonl", "validation": validation}
    return read_job(job_on(folder, data, tuning={"seed": seed})).splits


@pytest.mark.parametrize(
    ("rows", "validation", "held"),
    [
        (31, None, 30),
        (300, None, 30),
        (301, None, 31),
        (1000, None, 100),
        (10, 0.25, 3),
        (4, 0.01, 1),
    ],
)
def test_validation_is_the_fraction_or_a_tenth_of_at_least_thirty_rows(
    tmp_path: Path, rows: int, validation: float | None, held: int
) -> None:
    splits = split(tmp_path, [f"q{index}" for index in range(rows)], validation=validation)
    assert (rows - held, held) == (len(splits.train), len(splits.validation))
    assert splits.test is None


def test_both_sides_keep_the_order_and_lines_of_the_file(tmp_path: Path) -> None:
    inputs = [f"q{index}" for index in range(90)]
    splits = split(tmp_path, inputs)
    for side in (splits.train, splits.validation):
        assert sorted(asked(side), key=inputs.index) == asked(side)
        assert [inputs.index(text) + 1 for text in asked(side)] == [row.line for row in side.rows]
    assert sorted(inputs) == sorted(asked(splits.train) + asked(splits.validation))


def test_the_cut_is_the_same_on_every_machine_and_python() -> None:
    keys = [f"{index:064x}" for index in range(20)]
    chosen = held_out(keys, 4, seed=0)
    assert chosen is not None
    # Worked out with `printf '0:%064x' N | sha256sum`: the four smallest hashes.
    assert sorted(int(key, 16) for key in chosen) == [6, 10, 11, 19]


def test_seed_auto_is_zero_and_another_seed_cuts_elsewhere(tmp_path: Path) -> None:
    inputs = [f"q{index}" for index in range(90)]
    auto, zero, one = (split(tmp_path, inputs, seed=seed) for seed in ("auto", 0, 1))
    assert asked(auto.train) == asked(zero.train)
    assert asked(auto.validation) == asked(zero.validation)
    assert asked(zero.validation) != asked(one.validation)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([f"q{index}" for index in range(30)], "30 rows with 30 different inputs"),
        (["same"] * 100, "100 rows with 1 different inputs"),
    ],
)
def test_train_too_small_for_both_sides_is_an_error_that_says_what_to_do(
    tmp_path: Path, inputs: list[str], says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        split(tmp_path, inputs)
    (found,) = caught.value.findings
    assert ("too-few-rows", str(tmp_path / "train.jsonl")) == (found.code, found.file)
    assert "data.validation" in found.fix


KEYS = st.lists(st.integers(0, 30).map(str), min_size=1, max_size=80)


@given(keys=KEYS, rows=st.integers(1, 40), seed=st.integers(0, 5))
def test_held_out_groups_reach_the_size_asked_for_and_leave_some_for_training(
    keys: list[str], rows: int, seed: int
) -> None:
    sizes = Counter(keys)
    chosen = held_out(keys, rows, seed)
    if chosen is None:
        # Even the last group would have been needed to reach the size.
        assert len(keys) < rows + max(sizes.values())
        return
    out = sum(sizes[key] for key in chosen)
    assert rows <= out < len(keys)
    assert out < rows + max(sizes.values())


@given(keys=KEYS, rows=st.integers(1, 40), seed=st.integers(0, 5))
def test_held_out_is_a_function_of_the_inputs_and_not_of_their_order(
    keys: list[str], rows: int, seed: int
) -> None:
    assert held_out(keys, rows, seed) == held_out(sorted(keys), rows, seed)
