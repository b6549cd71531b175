"""Processes that torchrun or srun started know which of them they are."""

from __future__ import annotations

import os

import pytest

from unitune.backends import registry
from unitune.backends.launched import join_if_other_rank, rank_and_size
from unitune.errors import Unsupported

VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST"),
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is absent again afterwards
        monkeypatch.delenv(name)


def in_slurm(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    given = {
        "SLURM_JOB_ID": "4000123",
        "SLURM_JOB_NODELIST": "gpu[07-08,11]",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        **changes,
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, (1, 2)),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a"}, None),
        ({"RANK": "first", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, None),
    ],
)
def test_torchrun_names_the_rank(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[int, int] | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank_and_size() == expected


def test_the_variables_of_srun_become_those_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    in_slurm(monkeypatch, SLURM_STEP_NUM_TASKS="4")
    assert rank_and_size() == (3, 4)
    names = ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    assert [os.environ[name] for name in names] == ["1", "gpu07", "25123"]


def test_a_batch_script_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    in_slurm(monkeypatch)
    assert rank_and_size() is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("n[1,3]", "n1"),
        ("rack2-n[009-012]", "rack2-n009"),
        ("n[1-2]-ib,n7", "n1-ib"),
    ],
)
def test_ranks_of_slurm_meet_on_the_first_node(
    monkeypatch: pytest.MonkeyPatch, nodes: str, first: str
) -> None:
    in_slurm(monkeypatch, SLURM_STEP_NUM_TASKS="4", SLURM_STEP_NODELIST=nodes)
    rank_and_size()
    assert os.environ["MASTER_ADDR"] == first


def test_an_address_in_the_script_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    in_slurm(monkeypatch, SLURM_STEP_NUM_TASKS="4", MASTER_ADDR="10.0.0.7", MASTER_PORT="29500")
    rank_and_size()
    assert [os.environ[name] for name in VARIABLES[3:5]] == ["10.0.0.7", "29500"]


@pytest.mark.parametrize(("rank", "joins"), [("0", 0), ("1", 1)])
def test_only_other_ranks_join(monkeypatch: pytest.MonkeyPatch, rank: str, joins: int) -> None:
    class Joined:
        times = 0

        def join(self) -> None:
            self.times += 1

    backend = Joined()
    monkeypatch.setattr(registry, "backend", lambda _: backend)
    in_slurm(monkeypatch, SLURM_STEP_NUM_TASKS="2", SLURM_PROCID=rank)
    join_if_other_rank("local")
    assert backend.times == joins


def test_other_backends_are_not_launched_by_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    in_slurm(monkeypatch, SLURM_STEP_NUM_TASKS="4")
    with pytest.raises(
        Unsupported, match="'fake' needs a single process, but torchrun or srun started several"
    ):
        join_if_other_rank("fake")
