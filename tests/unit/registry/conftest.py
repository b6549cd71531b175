from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.postgres import STORES, a_store


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with no ledger yet, and the fake vendor's beside it."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / ".unitune"))
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.setenv("UNITUNE_USER", "ana")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=STORES)
def store(
    request: pytest.FixtureRequest, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Each of the databases that a ledger can live in, without a run."""
    assert workplace.is_dir()
    with a_store(request.param) as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        yield request.param
