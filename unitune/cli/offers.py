"""Backends as `unitune backends` shows them: who can tune, what each needs, and until when.

All of it comes from offers, so nothing is called and no extra is needed.
"""

from __future__ import annotations

from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from unitune.backends import registry
from unitune.backends.offer import Offer, OfferedModel, Refused
from unitune.cli.optionlist import OptionView, option_views
from unitune.cli.output import console, facts
from unitune.workspace.install import install_command


class BackendView(BaseModel):
    """A backend as `unitune backends --json` prints it."""

    offer: Offer
    launchable: bool
    """Whether a backend is here that launches there; else only prices and dates are known."""
    installed: bool
    missing_packages: tuple[str, ...]
    options: tuple[OptionView, ...] = ()
    """What a job may say under ``options.NAME``."""
    deploy_options: tuple[OptionView, ...] = ()
    """What ``--option`` of a deployment may say."""


class BackendList(BaseModel):
    """All backends that installed packages bring."""

    schema_version: int = 1
    backends: tuple[BackendView, ...]


def view_of(name: str) -> BackendView:
    """Return what is known of a backend, and whether its packages are here."""
    missing = tuple(registry.missing_packages(name))
    launchable = name in registry.backend_names()
    offer = registry.offer(name)
    options, deploying = (
        option_views(registry.options_of(path)) if path else ()
        for path in (offer.options, offer.deploy_options)
    )
    return BackendView(
        offer=offer,
        launchable=launchable,
        installed=launchable and not missing,
        missing_packages=missing,
        options=options,
        deploy_options=deploying,
    )


def print_backends(found: tuple[BackendView, ...]) -> None:
    """Print all backends, a line each."""
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="dim")
    for heading in ("backend", "tunes by", "models", "training", "here", "facts of"):
        table.add_column(heading, no_wrap=True)
    closed = [view.offer.name for view in found if view.offer.closed]
    for view in (view for view in found if not view.offer.closed):
        offer = view.offer
        table.add_row(
            Text(offer.name, "bold"),
            ", ".join(offer.methods) or Text("answers only", "dim"),
            _models_in_short(offer),
            _charge(offer),
            "yes" if view.installed else Text(_not_here(view), "yellow"),
            str(offer.as_of),
        )
    console().print(table)
    if closed:
        console().print(f"Tune no more: {', '.join(closed)}.")
    console().print(
        "Training is by the million tokens. More of one: unitune backends NAME", style="dim"
    )


def _models_in_short(offer: Offer) -> str:
    some = "any" if offer.any_model else str(len(offer.models) or "none")
    ends = [model.tunable_until for model in offer.models if model.tunable_until]
    return f"{some},\nuntil {max(ends)}" if ends and len(ends) == len(offer.models) else some


def _charge(offer: Offer) -> str:
    if offer.training_price == "none" or not offer.methods:
        return "none" if offer.methods else ""
    rows = [row for row in offer.price_rows() if row.kind == "training"]
    usd = [row.usd for row in rows if row.per == "million-tokens"]
    return f"from ${min(usd)}" if usd else "unknown"


def _not_here(view: BackendView) -> str:
    if not view.launchable:
        return "not yet"
    size = view.offer.install_mb
    return f"no: {size} MB" if size else "no"


def print_backend(view: BackendView) -> None:
    """Print one backend in full."""
    offer = view.offer
    console().print(Text.assemble((offer.name, "bold"), f": {offer.summary}"))
    rows = {
        "tunes by": ", ".join(offer.methods) or "nothing; it only answers",
        "supported_settings": ", ".join(offer.supported_settings) or "no setting of `tuning`",
        "here": _here(view),
        "needs": "\n".join(offer.needs) or "nothing",
        "lacks": "\n".join(offer.lacks) or "nothing known",
        "refuses": "\n".join(map(_refusal_line, offer.refuses)) or "no model by name",
        "facts of": f"{offer.as_of}{f' ({offer.source})' if offer.source else ''}",
    }
    console().print(facts(rows))
    if offer.models:
        console().print("\nmodels", style="bold")
        console().print(facts({model.name: _model_line(model) for model in offer.models}))
    _print_options(f"options.{offer.name} of a job", view.options)
    _print_options("--option of a deployment", view.deploy_options)


def _print_options(where: str, options: tuple[OptionView, ...]) -> None:
    if not options:
        return
    console().print(f"\n{where}", style="bold")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("key", "value", "default", "meaning"):
        table.add_column(heading, no_wrap=heading == "key", overflow="fold")
    for one in options:
        default = "" if one.default is None else str(one.default).lower()
        table.add_row(one.name, one.type, default, one.meaning)
    console().print(table)


def _here(view: BackendView) -> str:
    if view.installed:
        return "yes"
    if not view.launchable:
        return registry.unavailable(view.offer)
    return f"no; {install_command(view.offer.name)}"


def _refusal_line(refused: Refused) -> str:
    return f"{refused.pattern}  {refused.reason}"


def _model_line(model: OfferedModel) -> str:
    parts = [
        ", ".join(model.methods or ()),
        f"tunable until {model.tunable_until}" if model.tunable_until else "",
        f"stops {model.retires_on}" if model.retires_on else "",
        model.note,
    ]
    return " · ".join(part for part in parts if part)
