"""Backends and offers are found by name; what is missing is said with the command that mends it."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from unitune import registry
from unitune.errors import MissingExtra, UnknownName


def offered(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    entry = EntryPoint(name="vendor", value=target, group="unitune.backends")

    def entries(group: str) -> dict[str, EntryPoint]:
        return {"vendor": entry} if group == "backends" else {}

    monkeypatch.setattr(registry, "_entries", entries)


def test_our_own_backends_come_through_the_same_door() -> None:
    assert {"fake", "local"} <= set(registry.backend_names())


def test_an_unknown_backend_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'local'"):
        registry.offer("locl")


def test_a_missing_sdk_becomes_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("vendor")
    (folder / "vendor_backend.py").write_text("import sdk_that_is_not_there\n")
    monkeypatch.syspath_prepend(folder)
    offered(monkeypatch, "vendor_backend:Backend")

    with pytest.raises(MissingExtra, match=r"pip install 'unitune\[vendor\]'") as caught:
        registry.backend("vendor")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_import_error_of_the_backends_own_is_not_disguised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered(monkeypatch, "unitune.no_such_module:Backend")

    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        registry.backend("vendor")
    assert not isinstance(caught.value, MissingExtra)
