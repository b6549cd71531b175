"""Define the options and groups of commands; ``--help`` stays fast without heavy imports.

Arguments are completed by the script that `unitune --install-completion` writes. It calls the
command with the text typed so far. Errors are suppressed then, because they would appear in the
middle of the user's command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from unitune.errors import UserError

if TYPE_CHECKING:
    from pydantic import JsonValue

    from unitune.job.prices import PriceEntry


MOST_RUNS = 100  # only the newest runs are completed

Choices = list[tuple[str, str]]  # value and description, which zsh and fish show next to it


def _completion(*sources: Callable[[], Choices]) -> Callable[[str], Choices]:
    def complete(incomplete: str) -> Choices:
        begun: Choices = []
        for source in sources:
            with suppress(Exception):  # e.g. the ledger cannot be read
                begun += [choice for choice in source() if choice[0].startswith(incomplete)]
        return begun

    return complete


def _comparisons() -> Choices:
    from unitune.evaluate.documents.history import comparison_listing

    listed, _ = comparison_listing(MOST_RUNS)
    return [(each.id or "", f"{each.job}, {each.verdict}") for each in listed]


def _runs() -> Choices:
    from unitune.ledger import Ledger, RunRecord
    from unitune.workspace.home import home

    listed = Ledger(home()).newest(MOST_RUNS)
    return [(r.id, f"{r.name}, {r.state}") for r in listed if isinstance(r, RunRecord)]


def _stored() -> Choices:
    from unitune.backends import registry
    from unitune.backends.capabilities import Stores

    keeper = registry.backend("local")
    models = keeper.stored() if isinstance(keeper, Stores) else []
    return [(model.name, "base model") for model in models]


def _models() -> Choices:
    from unitune.registry.versions import registered_models

    return [(model.name, f"{len(model.versions)} versions") for model in registered_models()]


def _aliases() -> Choices:
    from unitune.registry.versions import registered_models

    moves = [move for model in registered_models() for move in model.aliases.values()]
    return [(str(move), f"version {move.number}") for move in moves]


def _versions() -> Choices:
    from unitune.registry.versions import registered_models

    versions = [version for model in registered_models() for version in reversed(model.versions)]
    return [*_aliases(), *((str(each), f"run {each.run_id}") for each in versions)]


def _backends() -> Choices:
    from unitune.backends import registry

    offers = (registry.offer(name) for name in registry.offer_names() if name != "fake")
    return [(offer.name, offer.summary) for offer in offers]


complete_run = _completion(_runs, _versions)
complete_model = _completion(_models)
complete_alias = _completion(_aliases)
complete_served = _completion(_runs, _versions, _stored)
complete_comparison = _completion(_comparisons)
complete_backend = _completion(_backends)


def parse_usd(text: str) -> Decimal:
    """Return an amount such as ``2.50`` or ``$2.50``."""
    if re.fullmatch(r"\$?\d+(\.\d+)?", text.strip()) is None:
        raise typer.BadParameter(f"{text!r} is not an amount of US dollars such as 2.50.")
    return Decimal(text.strip().removeprefix("$"))


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result, no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Detach = Annotated[bool, typer.Option("--detach", help="Print the run's id and return at once.")]
JobFile = Annotated[Path, typer.Argument(metavar="FILE", help="Job file.")]
JOB_FILE = Path("unitune.yaml")  # the default of every command
RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Run id or its first letters, newest, NAME:3 or NAME@ALIAS.",
        autocompletion=complete_run,
    ),
]
NEWEST = "newest"  # copied from `unitune.run.run`, which is slow to import


def backend_option(meaning: str) -> Any:
    """Return the option ``--backend`` with completion of backend names."""
    return typer.Option("--backend", metavar="NAME", help=meaning, autocompletion=complete_backend)


OtherBackend = Annotated[str | None, backend_option("Backend to use instead of the job's.")]
BudgetUsd = Annotated[
    Decimal | None,
    typer.Option(metavar="USD", parser=parse_usd, help="Maximum cost in US dollars."),
]
AllowUnpriced = Annotated[
    bool,
    typer.Option("--allow-unpriced", help="Continue although a price is unknown or out of date."),
]
AllowDuplicate = Annotated[
    bool,
    typer.Option("--allow-duplicate", help="Train even if the same training was run before."),
]
OwnPrices = Annotated[
    list[str],
    typer.Option(
        metavar="[BACKEND:]KIND=USD",
        help="Price for this command, e.g. training=2.40; overrides all others (repeatable).",
        default_factory=list,
        show_default=False,
    ),
]
MAX_REQUESTS = 10**10  # copied from `unitune.job.tuning`, which is slow to import
RequestsMonth = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=MAX_REQUESTS, help="Requests per month, for the total cost."
    ),
]
DeployFor = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Deploy each model that needs it, for at most this time, e.g. 2h."
    ),
]
DeployOptions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Backend-specific deployment option, e.g. hardware=1xH100 (repeatable).",
    ),
]


def parse_prices(texts: list[str], backend: str) -> list[PriceEntry]:
    """Return the prices given with ``--price``; raises `UserError`."""
    from unitune.job.prices import KINDS, UNITS, PriceEntry

    prices: list[PriceEntry] = []
    for text in texts:
        what, _, amount = text.partition("=")
        other, _, kind = what.rpartition(":")
        try:
            prices.append(PriceEntry.model_validate({"backend": other or backend, kind: amount}))
        except ValueError as error:
            raise UserError(
                f"--price {text!r} is invalid. Write KIND=USD, e.g. training=2.40 or "
                f"hosting=1.70/hour. Kinds: {', '.join(KINDS)}. Units: {', '.join(UNITS)}."
            ) from error
    return prices


def parse_deploy_options(pairs: list[str] | None) -> dict[str, JsonValue]:
    """Return the deployment options given with ``--option``; raises `UserError`."""
    options: dict[str, JsonValue] = {}
    for pair in pairs or ():
        key, _, value = pair.partition("=")
        if not (key and value):
            raise UserError(f"--option {pair!r} is invalid. Write KEY=VALUE.")
        options[key] = value
    return options


HELP = ("-h", "--help")


class CommandGroup(TyperGroup):
    """Command group that runs its first command when none is named: ``runs`` is ``runs list``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the first command before arguments that name none."""
        is_named = bool(args) and (args[0] in HELP or args[0] in self.commands)
        is_named |= ctx.resilient_parsing  # the shell is completing the name
        return super().parse_args(ctx, args if is_named else [next(iter(self.commands)), *args])


def command_group(name: str, about: str, **commands: Callable[..., None]) -> typer.Typer:
    """Return a group of commands under their names; the first is the default."""
    group = typer.Typer(name=name, cls=CommandGroup, help=about)
    for command, function in commands.items():
        group.command(command)(function)
    return group
