"""Describe a total cost: the answer, its table, and the sources of its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from unitune.cost.break_even import Crossover, Crossovers, Range
from unitune.cost.spread import MILLION, Spread
from unitune.job.prices import PriceRow
from unitune.ownership.serving import Role, Source, TotalCost
from unitune.render.sections import Bullets, Cell, Column, Document, Fact, Facts, Section, Table
from unitune.render.typography import counted

NAMES: dict[Role, str] = {"prompted": "prompted", "tuned": "tuned", "newest": "newest untuned"}
ORIGINS: dict[Source, str] = {
    "option": "from the command line",
    "job": "from the job",
    "measured": "measured",
    "counted": "counted",
    "assumed": "assumed",
}
UNKNOWN = "unknown"
TENTH = Decimal("0.1")
DAYS_A_MONTH = Decimal(365) / 12


def describe(cost: TotalCost) -> Document:
    """Return the document of the total cost on one backend."""
    volume = f"{cost.requests_month:,} requests a month, {months(cost.horizon.months)}"
    sections = (
        Section("Sources", [Facts([*_sources(cost)])]),
        Section("Unknown or assumed", [Bullets(cost.notes)]),
        Section("Prices", [Bullets([*_prices(cost)])]),
    )
    about = (cost.job, f"{cost.method} of {cost.model} on {cost.backend}", volume)
    if not any(_totals(cost)):
        text = f"{tokens_saved(cost)} {price_to_type(cost)}"
        return Document(headline(cost), about, text=text, sections=sections, tone="doubtful")
    prompted, tuned = _totals(cost)
    pays = prompted and tuned and tuned.expected < prompted.expected
    return Document(
        title=headline(cost),
        about=about,
        text=f"{reason(cost)} {tokens_saved(cost)}",
        tone="good" if pays else "doubtful",
        sections=(
            Section("What it costs, US dollars", [*_columns(cost), Facts([*_results(cost)])]),
            *sections,
        ),
    )


def _results(cost: TotalCost) -> Iterator[Fact]:
    horizon, retires_on = cost.horizon.months, cost.columns[1].retires_on
    yield Fact("Tuned is cheaper", _cases(cost.break_even, volume_range))
    yield Fact("Break-even", _cases(cost.pays_back, lambda each: _payback(each, horizon)))
    if retires_on:
        yield Fact("Retirement date", f"{retires_on}")


def tokens_saved(cost: TotalCost) -> str:
    """Return the number of tokens that tuning saves, which does not depend on a price."""
    prompted, tuned, volume = cost.prompted_tokens, cost.tuned_tokens, cost.requests_month
    saved = prompted - tuned
    text = f"A request takes {tuned:,} tokens with the tuned model and {prompted:,} with a prompt"
    if saved <= 0 or not prompted:
        return f"{text}, so tuning saves none."
    return (
        f"{text}: {100 * saved / prompted:.0f} % fewer. At {volume:,} requests a month that saves "
        f"{Decimal(saved) * volume / MILLION:,.2f} million tokens a month."
    )


def price_to_type(cost: TotalCost) -> str:
    """Return the token price above which tuning pays, and how to pass missing prices."""
    prompted, tuned, *_ = cost.columns
    saved = Decimal(cost.prompted_tokens - cost.tuned_tokens) * cost.requests_month / MILLION
    text = ""
    if saved > 0:
        text = (
            "At $1.00 a million tokens this saves "
            f"{usd(saved)} a month, and tuning pays if it costs less than that a month in all. "
        )
        if tuned.once_usd is not None and tuned.month_usd is not None:
            month = tuned.once_usd.expected / cost.horizon.months + tuned.month_usd.expected
            text = (
                f"Training and hosting cost {usd(month)} a month, so tuning pays if a million "
                f"tokens cost more than {usd(month / saved)}. "
            )
    flags = "--price training=3 --price hosting=0 --price input=0.40 --price output=1.60"
    if prompted.month_usd is None:  # the user's own machine, which both options need
        flags = "--price machine=0.85"
    return f"{text}Give your own prices: unitune cost {flags}"


def describe_several(costs: Sequence[TotalCost]) -> Document:
    """Return the document of several backends, the cheapest tuned model first."""
    first, known = costs[0], [cost for cost in costs if any(_totals(cost))]
    known.sort(key=_tuned_total)
    same_base = len({cost.model for cost in costs}) == 1
    planned = Decimal(first.horizon.planned)
    rows: list[list[str | Cell]] = []
    for at, cost in enumerate(known):
        prompted, tuned = _totals(cost)
        once, month = cost.columns[1].once_usd, cost.columns[1].month_usd
        amounts = [Cell(usd(each and each.expected)) for each in (once, month, tuned, prompted)]
        if at == 0 and tuned is not None:
            amounts[2] = Cell(f"* {amounts[2].text}", strong=True)
        left = cost.horizon.months
        ends = f"{months(left)} left" if left < planned else ""
        when = UNKNOWN if cost.break_even is None else volume_range(cost.break_even.expected)
        name = Cell(cost.backend, "" if same_base else cost.model)
        rows.append([name, *amounts, Cell(when, ends)])
    unknown = ", ".join(cost.backend for cost in costs if cost not in known)
    of_base = f" of {first.model}" if same_base else ""
    columns = ("#one-time\ncost", "#hosting\na month", "#tuned,\nall in", "#prompted")
    return Document(
        title=f"Total cost{of_base} in US dollars",
        about=(first.job, f"{first.requests_month:,} requests a month over {months(planned)}"),
        text="Amounts are expected ones; * marks the cheapest tuned model.",
        sections=(
            Section(
                "", [Table([Column("backend", whole=True), *columns, "tuned is cheaper"], rows)]
            ),
            *([Section("Prices not known", [unknown])] if unknown else []),
        ),
    )


def _totals(cost: TotalCost) -> tuple[Spread | None, Spread | None]:
    prompted, tuned, *_ = cost.columns
    return prompted.total_usd, tuned.total_usd


def _tuned_total(cost: TotalCost) -> tuple[bool, Decimal]:
    _, tuned = _totals(cost)
    return tuned is None, tuned.expected if tuned else Decimal(0)


def headline(cost: TotalCost) -> str:
    """Return a sentence on whether tuning pays at the planned volume."""
    volume = f"{cost.requests_month:,} requests a month"
    prompted, tuned = _totals(cost)
    if prompted is None or tuned is None:
        return f"Whether tuning pays at {volume} is not known"
    if tuned.expected == prompted.expected:
        return f"Tuning costs what prompting costs at {volume}"
    pays = tuned.expected < prompted.expected
    return f"Tuning {'pays' if pays else 'does not pay'} at {volume}"


def reason(cost: TotalCost) -> str:
    """Return the reason in two or three sentences."""
    prompted, tuned = _totals(cost)
    if prompted is None or tuned is None:
        sides = (("prompting", prompted), ("the tuned model", tuned))
        unknown = " and ".join(name for name, total in sides if total is None)
        return f"Some prices of {unknown} are unknown; see below which ones."
    text = (
        f"Expected cost over {months(cost.horizon.months)}: {usd(tuned.expected)} for the tuned "
        f"model, {usd(prompted.expected)} for prompting."
    )
    hosting = cost.columns[1].month_usd
    paid = hosting.expected * cost.horizon.months if hosting else Decimal(0)
    if hosting and tuned.expected - paid < prompted.expected < tuned.expected:
        text += f" Hosting, {usd(hosting.expected)} a month, outweighs what its requests save."
    for newest in cost.columns[2:]:
        total = newest.total_usd and newest.total_usd.expected
        if total is not None and total < min(tuned.expected, prompted.expected):
            text += f" {newest.model}, untuned, costs {usd(total)}, less than both."
    if tuned.low <= prompted.high and prompted.low <= tuned.high and tuned != prompted:
        text += " The ranges overlap, so it may be the other way round."
    return text


def usd(amount: Decimal | None) -> str:
    """Return dollars: whole from a hundred upwards, cents below that, three digits below 0.10."""
    if amount is None:
        return UNKNOWN
    if amount == 0:
        return "$0"
    if amount >= 100:
        return f"${amount:,.0f}"
    if amount >= TENTH:
        return f"${amount:,.2f}"
    whole, _, fraction = f"{amount:.{2 - amount.adjusted()}f}".partition(".")
    return f"${whole}.{fraction.rstrip('0'):0<2}"


def months(number: Decimal) -> str:
    """Return months with one decimal, without it if whole; days for less than a month."""
    if number < 1:
        return counted(math.ceil(number * DAYS_A_MONTH), "day")
    short = f"{number:.1f}".removesuffix(".0")
    return f"{short} month{'' if short == '1' else 's'}"


def volume_range(crossover: Crossover) -> str:
    """Return the range of requests per month in words."""
    match crossover:
        case Crossover(Range.ABOVE, Decimal() as at):
            return f"from {_rounded(at, ROUND_CEILING)} a month"
        case Crossover(Range.BELOW, Decimal() as at):
            return f"up to {_rounded(at, ROUND_FLOOR)} a month"
        case Crossover(Range.ALWAYS):
            return "at any volume"
        case Crossover(Range.SAME):
            return "at no volume: both cost the same"
        case _:
            return "at no volume"


def _rounded(volume: Decimal, rounding: str) -> str:
    """Return a volume with three significant digits, the precision of its inputs."""
    unit = Decimal(1).scaleb(max(0, volume.adjusted() - 2))
    return f"{(volume / unit).to_integral_value(rounding) * unit:,.0f}"


def _columns(cost: TotalCost) -> Iterator[Table]:
    columns = cost.columns
    # The title names the base model, so only other models are named here.
    names = [
        f"{NAMES[each.role]}\n{each.model if each.role == 'newest' else ''}" for each in columns
    ]
    headings = [f"#{name.strip()}" for name in names]
    rows = [
        ["a request", *_cells([each.request_usd for each in columns], mark=False)],
        ["hosting a month", *_cells([each.month_usd for each in columns], mark=False)],
        ["one-time cost", *_cells([each.once_usd for each in columns], mark=False)],
        [f"total, {months(cost.horizon.months)}", *_cells([each.total_usd for each in columns])],
    ]
    yield Table(["", *headings], rows, "* marks the cheapest.", name="plain amounts")
    volumes = [
        [f"{volume:,}", *_cells([each.by_volume_usd[volume] for each in columns])]
        for volume in columns[0].by_volume_usd
    ]
    caption = "A month, all in, with its share of the one-time cost."
    yield Table(["requests a month", *headings], volumes, caption, name="plain amounts")


def _cells(values: Sequence[Spread | None], *, mark: bool = True) -> list[Cell]:
    expected = [value.expected for value in values if value is not None]
    unique = len(expected) == len(values) and expected.count(min(expected)) == 1
    cheapest = expected.index(min(expected)) if mark and unique else None
    cells: list[Cell] = []
    for at, value in enumerate(values):
        amount, ends = usd(value and value.expected), ""
        if value is not None and usd(value.low) != usd(value.high):
            ends = f"{usd(value.low)}\u2013{usd(value.high).removeprefix('$')}"
        cheap = at == cheapest
        cells.append(Cell(f"* {amount}" if cheap else amount, ends, strong=cheap))
    return cells


def _cases(crossovers: Crossovers | None, say: Callable[[Crossover], str]) -> str:
    if crossovers is None:
        return UNKNOWN
    expected = say(crossovers.expected)
    cases = (("at best", say(crossovers.best)), ("at worst", say(crossovers.worst)))
    others = ", ".join(f"{case} {text}" for case, text in cases if text != expected)
    return f"{expected} ({others})" if others else expected


def _payback(crossover: Crossover, horizon: Decimal) -> str:
    match crossover:
        case Crossover(Range.ABOVE, Decimal() as at):
            past = f", past the {months(horizon)} that are left" if at > horizon else ""
            return f"after {months(at)}{past}"
        case Crossover(Range.BELOW, Decimal() as at):
            return f"for the first {months(at)} alone"
        case Crossover(Range.ALWAYS):
            return "at once"
        case Crossover(Range.SAME):
            return "never: both cost the same"
        case _:
            return "never"


def _sources(cost: TotalCost) -> Iterator[Fact]:
    groups: dict[str, list[str]] = {}
    for figure in cost.figures:
        origin, text = ORIGINS[figure.source], f"{figure.name}: {figure.value}"
        if figure.source == "measured":
            origin = f"{origin}, {figure.detail}"
        elif figure.source in ("counted", "assumed") and figure.detail:
            text = f"{text}, {figure.detail.partition(';')[0]}"
        groups.setdefault(origin, []).append(text)
    return (Fact(origin, "; ".join(texts)) for origin, texts in groups.items())


def _prices(cost: TotalCost) -> Iterator[Cell]:
    groups: dict[tuple[str, str], list[PriceRow]] = {}
    for row in cost.prices:
        groups.setdefault((row.id.partition(f"/{row.kind}")[0], row.source), []).append(row)
    for (name, source), rows in groups.items():
        days = max((cost.horizon.begins - row.as_of).days for row in rows)
        amounts = ", ".join(f"{row.kind} {row.rate}" for row in rows)
        yield Cell(name, f"{amounts}; {counted(days, 'day')} old; {source}")
