"""Implement `unitune backends`: list the backends, or show one in full, from their offers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.text import Text

from unitune.cli.options import Json, complete_backend
from unitune.cli.output import console, facts, new_table, print_json

if TYPE_CHECKING:
    from pydantic import BaseModel, JsonValue

    from unitune.backends.offer import Offer, OfferedModel

    Schema = dict[str, JsonValue]

BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    "pattern": "like",
}


REGIONS_SHOWN = 3  # of a tier; --json has all


@dataclass(frozen=True, slots=True)
class OptionView:
    """Option of a backend; nested options have dotted names."""

    name: str
    type: str  # in words, with its bounds: ``number above 0, auto``
    default: JsonValue  # None: the vendor's default
    meaning: str


@dataclass(frozen=True, slots=True)
class BackendView:
    """Backend as `unitune backends --json` prints it."""

    offer: Offer
    launchable: bool  # an installed package provides the backend
    installed: bool  # with all the packages it needs
    missing_packages: Sequence[str]
    options: Sequence[OptionView]  # for a job, under ``options.NAME``
    deploy_options: Sequence[OptionView]  # for a deployment, by ``--option``


def backends(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Backend to show in full.",
            show_default=False,
            autocompletion=complete_backend,
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """List the backends, or show the models, dates, limits and needs of one.

    No vendor is called, and no extra is needed.

    [dim]$ unitune backends
    $ unitune backends openai[/dim]
    """
    from unitune.backends import registry

    names = [name] if name else [other for other in registry.offer_names() if other != "fake"]
    views = list(map(_view, names))
    if json:
        print_json({"schema_version": 1, "backends": views})
    elif name:
        _print_backend(views[0])
    else:
        _print_backends(views)


def _view(name: str) -> BackendView:
    from unitune.backends import registry

    missing = registry.missing_packages(name)
    launchable = name in registry.backend_names()
    offer = registry.offer(name)
    options, deploy_options = (
        option_views(registry.options_of(path)) if path else []
        for path in (offer.options, offer.deploy_options)
    )
    installed = launchable and not missing
    return BackendView(offer, launchable, installed, missing, options, deploy_options)


def option_views(kind: type[BaseModel]) -> list[OptionView]:
    """Return the options of a pydantic model, in its order."""
    schema = cast("Schema", kind.model_json_schema())
    return list(_option_views(schema, cast("dict[str, Schema]", schema.get("$defs", {})), ""))


def _option_views(schema: Schema, parts: dict[str, Schema], prefix: str) -> Iterator[OptionView]:
    for name, option in cast("dict[str, Schema]", schema.get("properties", {})).items():
        yield OptionView(
            name=f"{prefix}{name}",
            type=", ".join(dict.fromkeys(_types(option))) or "any",
            default=option.get("default"),
            meaning=" ".join(str(option.get("description", "")).replace("`", "").split()),
        )
        for choice in _choices(option):
            if "$ref" in choice:
                part = parts[str(choice["$ref"]).rpartition("/")[2]]
                yield from _option_views(part, parts, f"{prefix}{name}.")


def _choices(option: Schema) -> list[Schema]:
    return cast("list[Schema]", option.get("anyOf", [option]))


def _types(option: Schema) -> Iterator[str]:
    for choice in _choices(option):
        if "const" in choice:
            yield str(choice["const"])
        elif "enum" in choice:
            yield from map(str, cast("list[JsonValue]", choice["enum"]))
        elif choice.get("type") == "array":
            yield f"list of {', '.join(_types(cast('Schema', choice.get('items', {}))))}"
        elif "$ref" in choice:
            yield "object"
        elif choice.get("type") not in (None, "null"):
            bounds = [f"{word} {choice[key]}" for key, word in BOUNDS.items() if key in choice]
            yield " ".join([str(choice["type"]), *bounds])


def _print_backends(views: Sequence[BackendView]) -> None:
    table = new_table("backend", "tunes by", "models", "training", "here", "facts of")
    table.collapse_padding = True
    for view in views:
        offer = view.offer
        if offer.closed:
            continue
        missing = f"no: {offer.install_mb} MB" if offer.install_mb else "no"
        absent = Text(missing if view.launchable else "not yet", "yellow")
        table.add_row(
            Text(offer.name, "bold"),
            ", ".join(offer.methods) or Text("inference only", "dim"),
            _models_in_short(offer),
            _training_charge(offer),
            "yes" if view.installed else absent,
            str(offer.as_of),
        )
    console().print(table)
    if closed := [view.offer.name for view in views if view.offer.closed]:
        console().print(f"Discontinued: {', '.join(closed)}.")
    console().print(
        "Training prices are per million tokens. Details: unitune backends NAME", style="dim"
    )


def _models_in_short(offer: Offer) -> str:
    count = "any" if offer.any_model else str(len(offer.models) or "none")
    ends = [model.tunable_until for model in offer.models if model.tunable_until]
    return f"{count},\nuntil {max(ends)}" if ends and len(ends) == len(offer.models) else count


def _training_charge(offer: Offer) -> str:
    if not offer.methods:
        return ""
    if offer.training_price == "none":
        return "none"
    rows = [row for row in offer.price_rows() if row.kind == "training"]
    usd = [row.usd for row in rows if row.per == "million-tokens"]
    return f"from ${min(usd)}" if usd else "unknown"


def _print_backend(view: BackendView) -> None:
    from unitune.workspace.install import install_command

    offer = view.offer
    missing = f"no; {install_command(offer.name)}" if view.launchable else offer.unavailable
    refused = [f"{refusal.pattern}  {refusal.reason}" for refusal in offer.refuses]
    by_model = {each for model in offer.models for each in model.continues or ()}
    continues = [each for each in offer.methods if each in {*offer.continues, *by_model}]
    console().print(Text.assemble((offer.name, "bold"), f": {offer.summary}"))
    rows = {
        "tunes by": ", ".join(offer.methods) or "nothing; inference only",
        "continues from": f"models tuned there, by {', '.join(continues)}"
        if continues
        else "base models",
        "supported_settings": ", ".join(offer.supported_settings) or "none of `tuning`",
        "here": "yes" if view.installed else missing,
        "needs": "\n".join(offer.needs) or "nothing",
        "lacks": "\n".join(offer.lacks) or "nothing known",
        "refuses": "\n".join(refused) or "no model by name",
        "facts of": f"{offer.as_of}{f' ({offer.source})' if offer.source else ''}",
    }
    console().print(facts(rows))
    if offer.models:
        console().print("\nmodels", style="bold")
        console().print(facts({model.name: _model_line(model) for model in offer.models}))
    if offer.tiers and offer.tiers.facts:
        console().print("\ntiers", style="bold")
        console().print(facts({name: _tier_line(offer, name) for name in offer.tiers.facts}))
    _print_options(f"options.{offer.name} of a job", view.options)
    _print_options("--option of a deployment", view.deploy_options)


def _print_options(title: str, options: Sequence[OptionView]) -> None:
    if not options:
        return
    console().print(f"\n{title}", style="bold")
    table = new_table("key", "value", "default", "meaning", fold=("value", "default", "meaning"))
    for option in options:
        default = "" if option.default is None else str(option.default).lower()
        table.add_row(option.name, option.type, default, option.meaning)
    console().print(table)


def _model_line(model: OfferedModel) -> str:
    parts = [
        ", ".join(model.methods or ()),
        "trains in " + ", ".join(map(_places, model.tiers.items())) if model.tiers else "",
        f"tunable until {model.tunable_until}" if model.tunable_until else "",
        f"retires on {model.retires_on}" if model.retires_on else "",
        model.note,
    ]
    return " · ".join(part for part in parts if part)


def _places(tier: tuple[str, Sequence[str]]) -> str:
    name, regions = tier
    places = " ".join(regions) if len(regions) <= REGIONS_SHOWN else f"{len(regions)} regions"
    return f"{name} ({places})" if regions else name


def _tier_line(offer: Offer, name: str) -> str:
    assert offer.tiers is not None, "called only for an offer with tiers"
    facts_of = offer.tiers.facts_of(name)
    chosen = {
        offer.tiers.option: offer.tiers.value_of("training", name),
        offer.tiers.serving_option: offer.tiers.value_of("deployment", name),
    }
    stays = {"none": "data may be in any region", None: ""}.get(
        facts_of.residency, f"data stays in the {facts_of.residency}"
    )
    parts = [
        *(f"{option}: {value}" for option, value in chosen.items() if value),
        stays,
        facts_of.note,
    ]
    return " · ".join(part for part in parts if part)
