"""Where processes meet at one ledger and one vendor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.postgres import STORES, a_store

from unitune.backends import registry
from unitune.backends.protocol import Guarantee
from unitune.testing import FakeBackend


@pytest.fixture(params=STORES)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A ledger, and a vendor that makes a job of every create call."""
    monkeypatch.setenv("UNITUNE_DIR", str(tmp_path / "ledger"))
    monkeypatch.setenv("UNITUNE_FAKE_DIR", str(tmp_path / "vendor"))
    monkeypatch.setattr(FakeBackend, "guarantee", Guarantee.FINDABLE)
    offer = registry.offer("fake").model_copy(update={"settle_seconds": 0})
    monkeypatch.setattr(registry, "offer", lambda _: offer)
    with a_store(request.param) as url:
        monkeypatch.setenv("UNITUNE_LEDGER", url)
        yield tmp_path
