"""Define `Client`, which has a ledger, keys and prices of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial, update_wrapper
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import unitune
from unitune.backends import registry
from unitune.backends.credentials import checked_value
from unitune.cost.prices.book import PricesFile, load_prices
from unitune.errors import UserError
from unitune.job.prices import PriceEntry
from unitune.security.redaction import SECRET_NAMES
from unitune.workspace.user_settings import Settings


def functions_of(module: ModuleType) -> list[str]:
    """Return the names of a package's public functions, without importing them."""
    names: list[str] = module.__all__
    return [each for each in names if each.islower() and not find_spec(f"{module.__name__}.{each}")]


class _Functions:
    """Functions of a module under the settings of a client."""

    def __init__(self, module: ModuleType, settings: Settings) -> None:
        self._module = module
        self._settings = settings

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            if name not in functions_of(self._module):
                raise AttributeError(f"a client has no function {name!r}")
            function = getattr(self._module, name)
            return update_wrapper(partial(self._settings.run, function), function)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *functions_of(self._module)]


class _Registry(_Functions):
    """Functions of `unitune.registry`."""

    if TYPE_CHECKING:
        find_registered_model = staticmethod(unitune.registry.find_registered_model)
        promote = staticmethod(unitune.registry.promote)
        register = staticmethod(unitune.registry.register)
        registered_models = staticmethod(unitune.registry.registered_models)
        remove_alias = staticmethod(unitune.registry.remove_alias)
        rollback = staticmethod(unitune.registry.rollback)
        verify = staticmethod(unitune.registry.verify)


class Client(_Functions):
    """The functions of `unitune` with a ledger, keys and prices of their own.

    Each function of `unitune` is a method, such as `client.launch`, and each of `unitune.registry`
    one of `client.registry`. Runs, deployments and model clients that they return keep using the
    client's settings, as do the processes that they start. Several clients can be used at once,
    also in several threads.

    Examples:
        >>> client = unitune.Client(home="team-a", keys={"openai": key})
        >>> run = client.launch(job, budget=5).wait()
        >>> client.registry.promote(run, "production")

    Args:
        home: State folder, which is also that of artifacts, as with ``UNITUNE_DIR``; or the address
            of a PostgreSQL database, as in ``UNITUNE_LEDGER``. None for those of the environment.
        keys: API keys by backend, or values by environment variable, for keys of other servers and
            settings such as ``AZURE_OPENAI_ENDPOINT``. Others are read from the environment.
        prices: Your own prices, or the path of a file with them, which is read now. None for your
            ``prices.yaml``.

    Raises:
        NotFoundError: A key is for an unknown backend.
        UserError: A key is not valid in a header, or its backend has several.
        JobError: The prices file is missing or not valid.
    """

    registry: _Registry
    """The functions of `unitune.registry`."""

    def __init__(
        self,
        *,
        home: str | os.PathLike[str] | None = None,
        keys: Mapping[str, str] | None = None,
        prices: str | os.PathLike[str] | Iterable[PriceEntry] | None = None,
    ) -> None:
        settings = Settings({**_home(home), **_keys(keys or {})}, _prices(prices))
        super().__init__(unitune, settings)
        self.registry = _Registry(unitune.registry, settings)

    if TYPE_CHECKING:
        check = staticmethod(unitune.check)
        compare = staticmethod(unitune.compare)
        comparisons = staticmethod(unitune.comparisons)
        decide = staticmethod(unitune.decide)
        deploy = staticmethod(unitune.deploy)
        deployments = staticmethod(unitune.deployments)
        diff = staticmethod(unitune.diff)
        find_comparison = staticmethod(unitune.find_comparison)
        find_run = staticmethod(unitune.find_run)
        launch = staticmethod(unitune.launch)
        launch_sweep = staticmethod(unitune.launch_sweep)
        learning_curve = staticmethod(unitune.learning_curve)
        load = staticmethod(unitune.load)
        plan = staticmethod(unitune.plan)
        push = staticmethod(unitune.push)
        runs = staticmethod(unitune.runs)
        total_cost = staticmethod(unitune.total_cost)
        track = staticmethod(unitune.track)
        write_card = staticmethod(unitune.write_card)
        write_report = staticmethod(unitune.write_report)


def _home(home: str | os.PathLike[str] | None) -> dict[str, str]:
    if home is None:
        return {}
    if "://" in (given := os.fspath(home)):
        return {"UNITUNE_LEDGER": given}
    return {"UNITUNE_DIR": str(Path(given).absolute()), "UNITUNE_LEDGER": ""}


def _keys(keys: Mapping[str, str]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, value in keys.items():
        variable = name
        if not name.isupper():
            backend: Any = registry.backend(name)
            variable = getattr(backend, "key_variable", "")
            if not variable:
                raise UserError(
                    f"backend {name!r} has no single key. Give its settings by their environment "
                    f"variables: `unitune backends {name}` lists them."
                )
            if token := getattr(backend, "token_variable", ""):
                variables[token] = ""  # it would be used instead of the key
        is_secret = SECRET_NAMES.search(variable)
        variables[variable] = checked_value(value, variable) if is_secret else value
    return variables


def _prices(prices: str | os.PathLike[str] | Iterable[PriceEntry] | None) -> PricesFile | None:
    if prices is None:
        return None
    if isinstance(prices, str | os.PathLike):
        return load_prices(Path(prices))
    return PricesFile(prices=tuple(prices))
