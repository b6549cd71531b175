"""Find backends, offers, formats and price readers by name through entry points.

The group ``unitune.backends`` names classes, ``unitune.offers`` packages with ``NAME.yaml`` files,
``unitune.formats`` `Format` objects and ``unitune.prices`` price readers. Our own backends use the
same groups as third-party ones. A vendor may have an offer and no backend. A missing SDK becomes an
error with the exact install command; an ImportError in our own code is never disguised as one.
"""

from __future__ import annotations

import importlib
import importlib.resources
import re
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, requires, version
from typing import Any

from pydantic import BaseModel, ValidationError

from unitune.backends.offer import Offer, RefreshesPrices
from unitune.backends.protocol import Backend
from unitune.errors import MissingExtra, NotFoundError, UnituneError, Unsupported, UserError
from unitune.files import yaml_file
from unitune.workspace import user_settings
from unitune.workspace.install import install_command

OWN_PACKAGES = ("unitune", "unitune_local", "unitune_providers")


@cache
def _entries(group: str) -> dict[str, list[EntryPoint]]:
    entries: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=f"unitune.{group}"):
        named = entries.setdefault(entry.name, [])
        if entry.value not in [other.value for other in named]:
            named.append(entry)
    return entries


def entry(group: str, name: str) -> EntryPoint:
    """Return the entry point of a name; of several offers, the one that comes with the backend."""
    entries = _entries(group)
    if name not in entries:
        known = entries.keys() - {"fake"}  # for tests
        raise NotFoundError("format" if group == "formats" else "backend", name, known)
    named = entries[name]
    if group == "offers" and len(named) > 1:
        makers = {_package(entry) for entry in _entries("backends").get(name, [])}
        named = [entry for entry in named if _package(entry) in makers] or named
    if len(named) > 1:
        packages = " and ".join(sorted(_package(entry) for entry in named))
        raise UserError(
            f"{group.removesuffix('s')} {name!r} is provided by {packages}, so it is ambiguous. "
            "Uninstall all but one of them, or ask an author to choose another name."
        )
    return named[0]


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value.partition(".")[0].partition(":")[0]


def names(group: str) -> list[str]:
    """Return the sorted names in a group of entry points."""
    return sorted(_entries(group))


def backend_names() -> list[str]:
    """Return the sorted names of all installed backends."""
    return names("backends")


def offer_names() -> list[str]:
    """Return the sorted names of all vendors with an offer; some have no backend."""
    return names("offers")


def missing_packages(name: str) -> list[str]:
    """Return the missing packages of a built-in backend's extra, without importing any."""
    if offer(name).extra_is_optional:
        return []
    needed = [
        match[1]
        for line in requires("unitune") or ()
        if (match := re.match(r"([\w.-]+).*;.*extra\s*==\s*['\"]([\w-]+)['\"]", line))
        and match[2] == name
    ]
    return [package for package in needed if not _is_installed(package)]


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


@cache
def offer(name: str) -> Offer:
    """Return the offer of a backend, without importing the backend, or raise `NotFoundError`."""
    package = entry("offers", name).value
    text = importlib.resources.files(package).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    try:
        return Offer.model_validate(yaml_file.parse(text))
    except ValidationError as error:
        raise UnituneError(f"offer {package}/{name}.yaml is not valid: {error}") from error


def options_of(path: str) -> type[BaseModel]:
    """Return the options model that an offer names as ``module:Class``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def backend(name: str) -> Backend:
    """Return the backend of this name, one object per process or `unitune.Client`.

    Raises:
        NotFoundError: No installed package has this backend.
        Unsupported: It only has an offer, and unitune cannot launch there.
        MissingExtra: Its SDK is not installed; the message gives the install command.
    """
    backends = user_settings.current().backends
    if name not in backends:
        if name not in backend_names() and name in offer_names():
            raise Unsupported(offer(name).unavailable)
        made: Backend = _made(entry("backends", name), name)
        check_capabilities(type(made))
        backends.setdefault(name, made)
    return backends[name]


@cache
def protocols() -> dict[str, tuple[str, ...]]:
    """Return the methods of each optional capability of a backend, by the name of its protocol."""
    return {
        name: tuple(each for each in kind.__dict__ if not each.startswith("_"))
        for module in ("capabilities", "local_capabilities")
        for name, kind in vars(importlib.import_module(f"unitune.backends.{module}")).items()
        if getattr(kind, "_is_protocol", False) and kind.__module__.startswith("unitune.")
    }


def check_capabilities(kind: type) -> None:
    """Raise TypeError if a backend's methods differ from the `capabilities` that it declares."""
    declared = {each for base in kind.__mro__ for each in vars(base).get("capabilities", ())}
    if unknown := declared - protocols().keys():
        raise TypeError(
            f"{kind.__name__} declares {', '.join(sorted(unknown))}, which is not a capability. "
            f"Known: {', '.join(protocols())}."
        )
    for name, methods in protocols().items():
        missing = [each for each in methods if not callable(getattr(kind, each, None))]
        if name in declared and missing:
            raise TypeError(f"{kind.__name__} declares {name} without {', '.join(missing)}.")
        if name not in declared and len(missing) < len(methods):
            found = ", ".join(each for each in methods if each not in missing)
            raise TypeError(f"{kind.__name__} has {found} of {name}, but does not declare {name}.")


def refreshable_names() -> list[str]:
    """Return the sorted names of all vendors with a price reader."""
    return names("prices")


def price_reader(name: str) -> RefreshesPrices:
    """Return the price reader of a vendor, or raise `NotFoundError` or `MissingExtra`."""
    if name not in refreshable_names():
        hint = f"Price readers exist for: {', '.join(refreshable_names())}."
        raise NotFoundError("reader for the prices of", name, refreshable_names(), hint)
    return _made(entry("prices", name), name)


def _made(entry: EntryPoint, name: str) -> Any:
    try:
        return entry.load()()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in (*OWN_PACKAGES, entry.value.partition(".")[0]):
            raise
        raise MissingExtra(
            f"backend {name!r} needs the package {missing!r}, which is not installed. "
            f"Install it with: {install_command(name)}"
        ) from error
