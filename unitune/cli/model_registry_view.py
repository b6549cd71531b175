"""Print registered models as JSON or as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal

from pydantic import BaseModel
from rich.text import Text

from unitune.cli.output import console, fits, new_table, print_table
from unitune.cost.prices.book import book_for
from unitune.errors import NotFoundError
from unitune.evaluate.prompts.tuned_run import GateRecord, gate_records
from unitune.ledger import Ledger
from unitune.ledger.model_versions import AliasMove, ModelVersion
from unitune.registry.deployments import mismatches
from unitune.registry.verification import Verification
from unitune.registry.versions import RegisteredModel
from unitune.render.typography import counted, dollars, interval, percent, points
from unitune.run.run import Run
from unitune.workspace.home import home

SHOWN_MOVES = 10  # newest moves of aliases in a table; `--json` lists all


class VersionView(BaseModel):
    """Version of a registered model."""

    name: str
    """Name of the version, such as ``triage:3``."""
    number: int
    run: str
    is_deleted: bool
    """True if its run, and thus its model, is deleted."""
    created: datetime
    created_by: str
    backend: str
    model: str
    """Backend's name of the model."""
    fingerprint: str
    aliases: tuple[str, ...]
    gate: GateRecord | None = None
    """Newest comparison that evaluated it, with its gate, if any."""
    cost: str = ""
    """Cost of the training, in words."""
    cost_usd: Decimal | None = None
    retires_on: date | None = None
    """Day on which the vendor switches off its base, and thus the version."""


class ModelView(BaseModel):
    """Registered model as `unitune models NAME --json` prints it."""

    schema_version: int = 1
    name: str
    aliases: dict[str, int]
    """Version number by alias."""
    versions: tuple[VersionView, ...]
    """Versions, the newest first."""
    moves: tuple[AliasMove, ...]
    """Moves of all aliases, the newest first."""
    warnings: tuple[str, ...]
    """Warnings about deployments of a version without an alias."""


def view_of(model: RegisteredModel) -> ModelView:
    """Return the view of a registered model."""
    ledger = Ledger(home())
    aliases = {alias: move.number for alias, move in model.aliases.items()}
    return ModelView(
        name=model.name,
        aliases=aliases,
        versions=tuple(_version(ledger, version, aliases) for version in reversed(model.versions)),
        moves=model.moves[::-1],
        warnings=tuple(mismatches(ledger, model.name)),
    )


def _version(ledger: Ledger, version: ModelVersion, aliases: dict[str, int]) -> VersionView:
    try:
        record = ledger.record(version.run_id)
    except NotFoundError:
        record = None
    view = VersionView(
        name=str(version),
        number=version.number,
        run=version.run_id,
        is_deleted=record is None,
        created=version.created,
        created_by=version.created_by,
        backend=version.tuned_model.backend,
        model=version.tuned_model.name,
        fingerprint=version.fingerprint,
        aliases=tuple(alias for alias, number in aliases.items() if number == version.number),
    )
    if record is None:
        return view
    run, gates = Run(ledger, record), gate_records(ledger, record)
    offer = book_for(run.job).offer(run.backend_name)
    offered, bill = offer.model(run.base_model), run.reconciliation
    usd = bill and bill.usd
    unpriced = "no charge" if offer.training_price == "none" else "unknown"
    return view.model_copy(
        update={
            "gate": min(gates, key=lambda each: each.gate is None, default=None),
            "cost": unpriced if usd is None else dollars(usd),
            "cost_usd": usd,
            "retires_on": offered and offered.retires_on,
        }
    )


def print_models(models: Sequence[RegisteredModel]) -> None:
    """Print the registered models, one per line."""
    if not models:
        console().print(
            f"No registered models yet in {home()}. Promote a run: unitune models promote RUN --as "
            "production. Base models that can be tuned here: unitune models base"
        )
        return
    table = new_table("model", "versions", "aliases", fold=("aliases",), right=("versions",))
    for model in models:
        aliases = (f"{alias} → {move.number}" for alias, move in model.aliases.items())
        table.add_row(model.name, str(len(model.versions)), ", ".join(aliases) or "-")
    print_table(table)


def print_model(model: ModelView) -> None:
    """Print the versions of a registered model and the moves of its aliases."""
    wide = new_table("version", "run", "registered", "aliases", "gate", "cost", "retires")
    narrow = new_table("version", "run", "gate", "cost, retires", fold=("gate",))
    for each in model.versions:
        state = Text("deleted", "dim") if each.is_deleted else _gate(each.gate)
        aliases, retires = ", ".join(each.aliases), str(each.retires_on or "-")
        day = f"{each.created.astimezone():%Y-%m-%d}"
        wide.add_row(each.name, each.run, day, aliases, state, each.cost or "-", retires)
        version = Text.assemble(each.name, (f"\n{aliases}", "bold"))
        narrow.add_row(version, f"{each.run}\n{day}", state, f"{each.cost or '-'}\n{retires}")
    print_table(wide if fits(wide) else narrow)
    console().print()
    moves = new_table("moved", "alias", "version", "by", "why", fold=("why",))
    for move in model.moves[:SHOWN_MOVES]:
        day = f"{move.time.astimezone():%Y-%m-%d %H:%M}"
        before = "" if move.previous in (None, move.number) else f"{move.previous} → "
        version = "removed" if move.kind == "remove" else f"{before}{move.number}"
        moves.add_row(day, move.alias, version, move.moved_by, evidence(move))
    print_table(moves)
    if (more := len(model.moves) - SHOWN_MOVES) > 0:
        console().print(f"… and {more:,} earlier moves; --json lists them all", style="dim")
    for warning in model.warnings:
        console().print(f"\n{warning}", style="yellow", soft_wrap=True)


def _gate(record: GateRecord | None) -> Text:
    if record is None:
        return Text("not compared", "dim")
    day = f"{record.time.astimezone():%Y-%m-%d}"
    if record.gate is None:
        return Text(f"none ({record.verdict}, {day})", "dim")
    if record.gate == 0:
        return Text(f"passed {day}", "green")
    return Text(f"not passed {day} (exit {record.gate})", "red")


def evidence(move: AliasMove) -> str:
    """Return the reason for a move of an alias, in words."""
    if move.comparison is not None:
        return f"gate of {move.comparison} passed"
    if move.kind == "promote":
        return f"without a gate: {move.reason}"
    return f"{move.kind}: {move.reason or 'no reason given'}"


def change_lines(verified: Verification) -> Iterator[str]:
    """Yield the answers that a version has gained and lost since its promotion."""
    change, since = verified.change, verified.since
    yield ""
    if since is None:
        yield f"The comparison that {verified.version} was promoted on is not on this machine."
        return
    if change is None or change.paired is None:
        yield f"The answers of {since} cannot be paired with these, case by case."
        return
    paired = change.paired
    low, high = paired.interval
    drift = "worse" if high < 0 else "better" if low > 0 else "not clearly different"
    yield (
        f"{verified.version} since {since}: {percent(change.then or 0)} then, "
        f"{percent(change.now or 0)} now; {points(paired.difference, sign=True)} "
        f"({interval(paired.interval)}), {counted(len(paired.gained), 'case')} gained, "
        f"{len(paired.lost):,} lost: {drift}."
    )
