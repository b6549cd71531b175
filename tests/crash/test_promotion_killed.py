"""An alias is where it was or where it was to go: killed at any line, or moved by two at once."""

from __future__ import annotations

from itertools import count, pairwise
from pathlib import Path

import pytest
from crash.forks import Fork, Gate
from crash.killing import RECORDING, killed
from support.trained_runs import trained, triage_job

from unitune.errors import UserError
from unitune.ledger import Ledger, model_versions, postgres
from unitune.ledger.model_versions import ALIAS_MOVES, MODEL_VERSIONS
from unitune.registry import versions
from unitune.registry.versions import find_registered_model, promote, rollback
from unitune.run.run import Run, find_run
from unitune.workspace.home import home

OURS = {str(module.__file__) for module in (*RECORDING, model_versions, postgres, versions)}
STRIDE = 37
"""Lines between two kills, so that the test takes seconds; 1 kills before every line."""


@pytest.fixture
def pair(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Run]:
    """Two runs, neither of them registered."""
    monkeypatch.chdir(place)
    return trained(triage_job(40)), trained(triage_job(41))


def promote_for_a_test(run: Run) -> int:
    return promote(run, "production", without_gate="a test").number


def forget() -> None:
    with Ledger(home())._database.writing() as connection:
        for table in (MODEL_VERSIONS, ALIAS_MOVES):
            connection.execute(table.delete())


@pytest.mark.parametrize("act", ["promote", pytest.param("rollback", marks=pytest.mark.slow)])
def test_killed_at_any_line_the_alias_is_old_or_new(act: str, pair: tuple[Run, Run]) -> None:
    old, new = pair
    seen: list[str] = []
    for at in count(1, STRIDE):
        forget()
        promote_for_a_test(old)
        if act == "rollback":
            promote_for_a_test(new)
        before, after = (old, new) if act == "promote" else (new, old)

        def change() -> object:
            return promote_for_a_test(new) if act == "promote" else rollback("triage@production")

        place = killed(at, OURS, change)
        seen.append(find_run("triage@production").id)
        assert seen[-1] in (before.id, after.id), place
        if place is None:
            break
        if seen[-1] == before.id:
            change()
        assert find_run("triage@production").id == after.id, f"not recovered from {place}"
        assert [each.number for each in find_registered_model("triage").versions] == [1, 2], place
    assert set(seen) == {before.id, after.id}, f"{len(seen)} kills"


def test_promotions_at_once_come_one_after_another(pair: tuple[Run, Run]) -> None:
    runs = [*pair, *(trained(triage_job(right)) for right in (42, 43))]
    gate = Gate()

    def once_open(run: Run) -> int:
        gate.wait()
        return promote_for_a_test(run)

    forks = [Fork(lambda run=run: once_open(run)) for run in runs for _ in range(2)]
    gate.open(len(forks))
    assert all(fork.result().isdigit() for fork in forks)
    model = find_registered_model("triage")
    assert [each.number for each in model.versions] == [1, 2, 3, 4]
    assert {run.id for run in runs} == {each.run_id for each in model.versions}
    assert [None, *(each.number for each in model.moves)][:-1] == [
        each.previous for each in model.moves
    ], "each has seen what the one before it did"
    assert len(forks) == len(model.moves)
    assert all(earlier.time <= later.time for earlier, later in pairwise(model.moves))


def test_a_run_is_deleted_or_promoted_and_never_both(pair: tuple[Run, Run]) -> None:
    run, gate = pair[0], Gate()

    def once_open(act: str) -> str:
        gate.wait()
        try:
            promote_for_a_test(run) if act == "promote" else run.delete(force=True)
        except UserError as error:
            return type(error).__name__
        return act

    forks = [Fork(lambda act=act: once_open(act)) for act in ("promote", "delete")]
    gate.open(len(forks))
    said = tuple(fork.result() for fork in forks)
    assert said in (("promote", "UserError"), ("NotFoundError", "delete"))
