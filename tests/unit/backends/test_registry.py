"""Backends and offers are found by name; what is missing is said with the command that mends it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from unitune.backends import registry
from unitune.backends.kit.hosted import HostedBackend
from unitune.errors import MissingExtra, NotFoundError, UserError
from unitune.testing.fake import FakeBackend
from unitune.workspace import user_settings


def offered(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    entry = EntryPoint(name="vendor", value=target, group="unitune.backends")

    def entries(group: str) -> dict[str, list[EntryPoint]]:
        return {"vendor": [entry]} if group == "backends" else {}

    monkeypatch.setattr(registry, "_entries", entries)


def test_our_own_backends_come_through_the_same_door() -> None:
    assert {"fake", "local"} <= set(registry.backend_names())


def test_an_unknown_backend_suggests_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'local'"):
        registry.offer("locl")


def test_a_missing_sdk_becomes_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("vendor")
    (folder / "vendor_backend.py").write_text("import sdk_that_is_not_there\n")
    monkeypatch.syspath_prepend(folder)
    offered(monkeypatch, "vendor_backend:Backend")

    with pytest.raises(MissingExtra, match=r"pip install .*\[vendor\]") as caught:
        registry.backend("vendor")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_import_error_of_the_backends_own_is_not_disguised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered(monkeypatch, "unitune.no_such_module:Backend")

    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        registry.backend("vendor")
    assert not isinstance(caught.value, MissingExtra)


def installed(folder: Path, package: str, entries: Mapping[str, str]) -> None:
    """Install a package with entry points ``GROUP: MODULE`` for the name `cohere`."""
    place = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    text = "".join(f"[unitune.{group}]\ncohere = {at}\n" for group, at in entries.items())
    (place / "entry_points.txt").write_text(text)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    for found in (registry._entries, registry.offer):
        found.cache_clear()
    monkeypatch.setattr(registry, "_entries", registry._entries.__wrapped__)
    return tmp_path


def test_the_offer_that_comes_with_the_backend_wins(site: Path) -> None:
    """Unitune itself ships an offer of this name, and no backend."""
    entries = {"backends": "strangers_cohere:Backend", "offers": "strangers_cohere"}
    installed(site, "strangers-cohere", entries)
    assert registry.entry("offers", "cohere").value == "strangers_cohere"


def test_two_backends_of_one_name_are_told_with_their_packages(site: Path) -> None:
    for package in ("one", "another"):
        installed(site, package, {"backends": f"{package}:Backend"})
    with pytest.raises(UserError, match="backend 'cohere' is provided by another and one"):
        registry.backend("cohere")


def test_two_offers_without_a_backend_are_told_too(site: Path) -> None:
    installed(site, "strangers-offers", {"offers": "strangers_offers"})
    with pytest.raises(UserError, match="offer 'cohere' is provided by strangers-offers and"):
        registry.offer("cohere")


def hosted(**attributes: object) -> type:
    """Create a hosted backend as its author would, with some attributes more or less."""
    usual = {
        "name": "vendor",
        "address": "https://api.example.com",
        "address_variable": "VENDOR_URL",
        "key_variable": "VENDOR_API_KEY",
    }
    given = {key: value for key, value in {**usual, **attributes}.items() if value is not None}
    return type("VendorBackend", (HostedBackend,), given)


def no_op(*_: object) -> None:
    """Stand in for any method."""


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"capabilities": ("Deletes",), "delete_file": no_op, "delete_modle": no_op},
            "VendorBackend declares Deletes without delete_model",
        ),
        ({"delete_file": no_op, "delete_model": no_op}, "does not declare Deletes"),
        ({"delete_file": no_op}, "has delete_file of Deletes, but does not declare Deletes"),
        (
            {"capabilities": ("Delets",)},
            "declares Delets, which is not a capability",
        ),
        ({"key_variable": None}, "VendorBackend does not set key_variable"),
        ({"address": None, "address_variable": None}, "not set address and address_variable"),
    ],
)
def test_a_mistake_in_a_backend_fails_when_its_class_is_created(
    attributes: dict[str, object], message: str
) -> None:
    hosted(capabilities=("Deletes",), delete_file=no_op, delete_model=no_op)
    with pytest.raises(TypeError, match=message):
        hosted(**attributes)


def test_a_backend_without_the_kit_is_checked_when_it_is_first_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeBackend, "capabilities", ("Pauses", "DescribesJobs", "Quotes"))
    user_settings.current().backends.clear()
    with pytest.raises(TypeError, match="FakeBackend declares Quotes without quote"):
        registry.backend("fake")
    user_settings.current().backends.clear()
