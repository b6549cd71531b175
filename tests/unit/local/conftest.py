"""The tiny base model that tests of the local backend share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `local`")

from support.tiny_model import save_tiny_model  # noqa: E402 - needs the extra
from transformers import PreTrainedModel  # noqa: E402 - likewise

from unitune_local.models.model import load_model  # noqa: E402 - likewise


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other make tiny models a hundred times slower."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "OMP_NUM_THREADS", "1")
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny base model."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Event loop of asynchronous tests."""
    return "asyncio"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache of models, fingerprints and measured speeds."""
    monkeypatch.setenv("UNITUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> PreTrainedModel:
    """The tiny model in float32; a test leaves it as it was."""
    return load_model(tiny_model, torch.float32)
