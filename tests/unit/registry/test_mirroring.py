"""MLflow's registry mirrors ours, read back by MLflow's own client from its own SQLite store."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from crash.forks import Fork, Gate
from support.trained_runs import trained, triage_job

from unitune.ledger import Ledger, RunRecord
from unitune.registry import versions
from unitune.registry.versions import promote, register, remove_alias, rollback
from unitune.report.tracking import track
from unitune.run import handle
from unitune.run.run import Run
from unitune.tracking.feed import follow
from unitune.tracking.interface import Outcome
from unitune.workspace.home import home

pytestmark = [
    # Importing it takes seconds in each worker.
    pytest.mark.skipif(find_spec("mlflow") is None, reason="needs the extra `mlflow`"),
    pytest.mark.usefixtures("workplace"),
    # SQLAlchemy 2.1 has deprecated what MLflow 3.17 still says of its tables.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]
RUN_TAG = "unitune.run"


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its tables, which take seconds to create."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        mlflow_client(f"sqlite:///{file}").search_registered_models()
    return file


@pytest.fixture(autouse=True)
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return uri


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feed trackers here: their own process takes seconds to begin."""

    @contextmanager
    def feeding(
        ledger: Ledger, record: RunRecord, names: Sequence[str]
    ) -> Generator[list[Outcome]]:
        yield []
        with Path(os.devnull).open(encoding="utf-8") as ended:
            outcomes = [follow(ledger, record.id, name, ended.fileno()) for name in names]
        assert all(not outcome.problem for outcome in outcomes), outcomes

    for module in (versions, handle):
        monkeypatch.setattr(module, "feeding", feeding)


def tracked(right: int, *trackers: str) -> Run:
    return trained(triage_job(right).model_copy(update={"track": trackers}))


def mlflow_client(uri: str) -> Any:
    from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

    return MlflowClient(uri, uri)


def aliases_at(uri: str) -> dict[str, int]:
    aliases: dict[str, int] = mlflow_client(uri).get_registered_model("triage").aliases
    return aliases


def runs_at(uri: str) -> list[tuple[int, str]]:
    """The versions in MLflow, by number, with the runs that they are."""
    found = mlflow_client(uri).search_model_versions("name = 'triage'")
    return sorted((int(each.version), each.tags[RUN_TAG]) for each in found)


@pytest.mark.usefixtures("in_this_process")
def test_versions_and_aliases_are_those_of_the_ledger(store: str) -> None:
    """The first run has no tracker: its version is there, so that numbers are the same."""
    old = tracked(40)
    promote(old, "production", without_gate="a test")
    assert runs_at(store) == []
    new = tracked(50, "mlflow")
    promote(new, "production", without_gate="a test")
    assert aliases_at(store) == {"production": 2}
    assert runs_at(store) == [(1, old.id), (2, new.id)]
    client = mlflow_client(store)
    untracked, version = (client.get_model_version("triage", number) for number in ("1", "2"))
    assert (None, f"unitune://runs/{old.id}") == (untracked.run_id, untracked.source)
    assert new.id == client.get_run(version.run_id).data.tags[RUN_TAG]
    assert new.tuned_model is not None
    assert {
        "unitune.version": "triage:2",
        "unitune.backend": "fake",
        "unitune.model": new.tuned_model.name,
    }.items() <= version.tags.items()

    rollback("triage@production")
    assert aliases_at(store) == {"production": 1}
    remove_alias("triage@production")
    assert aliases_at(store) == {}
    assert runs_at(store) == [(1, old.id), (2, new.id)]


@pytest.mark.usefixtures("in_this_process")
def test_what_others_have_in_the_registry_stays(store: str) -> None:
    client = mlflow_client(store)
    client.create_registered_model("triage")
    client.create_model_version("triage", "s3://bucket/theirs", tags={"stage": "theirs"})
    client.set_registered_model_alias("triage", "champion", "1")
    run = tracked(40, "mlflow")
    promote(run, "production", without_gate="a test")
    assert aliases_at(store) == {"champion": 1, "production": 2}
    assert client.get_model_version("triage", "2").tags["unitune.version"] == "triage:1"


@pytest.mark.slow
def test_a_mirror_that_fails_is_told_with_the_command_that_repeats_it(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = tracked(40, "mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://server")
    with caplog.at_level(logging.WARNING, "unitune"):
        assert promote(run, "production", without_gate="a test").number == 1
    assert f"Update it later: unitune runs track {run.id} --to mlflow" in caplog.text
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    (outcome,) = track(run, ["mlflow"])
    assert outcome.problem == ""
    assert aliases_at(store) == {"production": 1}


@pytest.mark.usefixtures("in_this_process")
def test_a_process_killed_between_both_is_made_good_by_the_next_move(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = tracked(40, "mlflow"), tracked(50)
    with monkeypatch.context() as patch:

        def killed(_ledger: Ledger, _model: str) -> None:
            os._exit(9)

        patch.setattr(versions, "mirror", killed)
        Fork(lambda: promote(run, "production", without_gate="a test")).result()
    assert [move.number for move in Ledger(home()).alias_moves("triage")] == [1]
    register(other)
    assert aliases_at(store) == {"production": 1}
    assert runs_at(store) == [(1, run.id), (2, other.id)]


@pytest.mark.usefixtures("in_this_process")
def test_of_two_at_once_the_last_move_is_what_the_mirror_shows(store: str) -> None:
    runs, gate = [tracked(right, "mlflow") for right in (40, 41)], Gate()

    def once_open(run: Run) -> int:
        gate.wait()
        return promote(run, "production", without_gate="a test").number

    forks = [Fork(lambda run=run: once_open(run)) for run in runs]
    gate.open(len(forks))
    assert {fork.result() for fork in forks} == {"1", "2"}
    last = Ledger(home()).alias_moves("triage")[-1]
    assert aliases_at(store) == {"production": last.number}
    assert [number for number, _ in runs_at(store)] == [1, 2]
