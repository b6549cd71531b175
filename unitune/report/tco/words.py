"""What a `TotalCost` says, in words; the terminal and the page share them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from unitune.cost.break_even import Crossover, Crossovers, Range
from unitune.cost.spread import Spread
from unitune.job.prices import PriceRow
from unitune.report.typography import counted
from unitune.tco.documents import Role, Source, TotalCost

NAMES: dict[Role, str] = {"prompted": "prompted", "tuned": "tuned", "newest": "newest untuned"}
UNKNOWN = "unknown"
TENTH = Decimal("0.1")
DAYS_A_MONTH = Decimal(365) / 12
ORIGINS: dict[Source, str] = {
    "option": "from the command line",
    "job": "from the job",
    "measured": "measured",
    "counted": "counted",
    "assumed": "assumed",
}


@dataclass(frozen=True, slots=True)
class Result:
    """From where on tuning pays, by one measure.

    Args:
        term: The measure.
        value: As expected.
        ends: In the best and the worst case, where these differ.
        meaning: A sentence for first-time readers.
    """

    term: str
    value: str
    ends: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Line:
    """A figure of each column.

    Args:
        name: What it is.
        values: One a column.
        cheapest: Which of them is the lowest; None where there is none, or it is not known.
    """

    name: str
    values: tuple[Spread | None, ...]
    cheapest: int | None = None


def headline(cost: TotalCost) -> str:
    """Say in one sentence whether tuning pays at the planned volume."""
    volume = requests(Decimal(cost.requests_month))
    prompted, tuned = (column.total_usd for column in cost.columns[:2])
    if prompted is None or tuned is None:
        return f"Whether tuning pays at {volume} is not known"
    if tuned.expected == prompted.expected:
        return f"Tuning costs what prompting costs at {volume}"
    pays = tuned.expected < prompted.expected
    return f"Tuning {'pays' if pays else 'does not pay'} at {volume}"


def reason(cost: TotalCost) -> str:
    """Say why, in two or three sentences."""
    prompted, tuned = (column.total_usd for column in cost.columns[:2])
    if prompted is None or tuned is None:
        sides = (("prompting", prompted), ("the tuned model", tuned))
        unknown = " and ".join(name for name, total in sides if total is None)
        return f"Not all that {unknown} costs has a known price; what is missing stands below."
    text = (
        f"Over {months(cost.horizon.months)} the tuned model costs {usd(tuned.expected)} and "
        f"prompting {usd(prompted.expected)}, as expected."
    )
    for newest in cost.columns[2:]:
        total = newest.total_usd and newest.total_usd.expected
        if total is not None and total < min(tuned.expected, prompted.expected):
            text += f" {newest.model}, untuned, costs {usd(total)}, less than both."
    if tuned.low <= prompted.high and prompted.low <= tuned.high and tuned != prompted:
        text += " The ranges overlap, so it may be the other way round."
    return text


def lines(cost: TotalCost) -> tuple[Line, ...]:
    """Return the figures of the columns."""
    columns = cost.columns
    totals = tuple(column.total_usd for column in columns)
    return (
        Line("a request", tuple(column.request_usd for column in columns)),
        Line("hosting a month", tuple(column.month_usd for column in columns)),
        Line("paid once", tuple(column.once_usd for column in columns)),
        Line(f"total, {months(cost.horizon.months)}", totals, _cheapest(totals)),
    )


def volumes(cost: TotalCost) -> tuple[Line, ...]:
    """Return what a month costs, all in, at several volumes."""
    rows = zip(*(column.costs for column in cost.columns), strict=True)
    return tuple(
        Line(f"{row[0].requests_month:,}", values, _cheapest(values))
        for row in rows
        if (values := tuple(at.usd_month for at in row))
    )


def results(cost: TotalCost) -> Iterator[Result]:
    """Yield from where on tuning pays."""
    yield Result(
        "Tuned is cheaper",
        *_ends(cost.break_even, volume_range),
        "Requests over the horizon, with their share of what is paid once.",
    )
    yield Result(
        "It pays back",
        *_ends(cost.pays_back, lambda crossover: _payback(crossover, cost.horizon.months)),
        f"At {requests(Decimal(cost.requests_month))}.",
    )
    if retires_on := cost.columns[1].retires_on:
        yield Result(
            "It is switched off", f"{retires_on}", "", "With the base that it was tuned from."
        )


def sources(cost: TotalCost) -> Iterator[tuple[str, str]]:
    """Yield where the figures of the usage come from, and which they are."""
    groups: dict[str, list[str]] = {}
    for figure in cost.figures:
        origin, text = ORIGINS[figure.source], f"{figure.name}: {figure.value}"
        if figure.source == "measured":
            origin = f"{origin}, {figure.detail}"
        elif figure.source in ("counted", "assumed") and figure.detail:
            text = f"{text}, {figure.detail.partition(';')[0]}"
        groups.setdefault(origin, []).append(text)
    return ((origin, "; ".join(texts)) for origin, texts in groups.items())


def prices(cost: TotalCost) -> Iterator[tuple[str, str]]:
    """Yield the price rows that were used, those of one model and source together."""
    groups: dict[tuple[str, str], list[PriceRow]] = {}
    for row in cost.prices:
        groups.setdefault((row.id.rpartition("/")[0], row.source), []).append(row)
    for (name, source), rows in groups.items():
        days = max((cost.horizon.begins - row.as_of).days for row in rows)
        amounts = ", ".join(f"{row.kind} {row.rate}" for row in rows)
        yield name, f"{amounts}; {counted(days, 'day')} old; {source}"


def usd(amount: Decimal | None) -> str:
    """Return US dollars: whole ones from a hundred on, cents below, three digits below 0.10."""
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


def spread(amount: Spread | None) -> str:
    """Return the ends of an amount; empty where it is exact or unknown, at the digits shown."""
    if amount is None or usd(amount.low) == usd(amount.high):
        return ""
    return f"{usd(amount.low)}\u2013{usd(amount.high).removeprefix('$')}"


def requests(volume: Decimal) -> str:
    """Return a number of requests a month, with its unit."""
    return f"{volume:,.0f} requests a month"


def months(number: Decimal) -> str:
    """Return months with one decimal, none where they are whole; days where it is less than one."""
    if number < 1:
        return counted(math.ceil(number * DAYS_A_MONTH), "day")
    short = f"{number:.1f}".removesuffix(".0")
    return f"{short} month{'' if short == '1' else 's'}"


def volume_range(crossover: Crossover) -> str:
    """Say at which requests a month."""
    match crossover:
        case Crossover(Range.ABOVE, Decimal() as at):
            return f"from {math.ceil(at):,} a month"
        case Crossover(Range.BELOW, Decimal() as at):
            return f"up to {math.floor(at):,} a month"
        case Crossover(Range.ALWAYS):
            return "at any volume"
        case Crossover(Range.SAME):
            return "at no volume: both cost the same"
        case _:
            return "at no volume"


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


def _ends(crossovers: Crossovers | None, say: Callable[[Crossover], str]) -> tuple[str, str]:
    """Return a crossover as expected, and its best and worst cases where they differ."""
    if crossovers is None:
        return UNKNOWN, ""
    expected = say(crossovers.expected)
    cases = (("at best", say(crossovers.best)), ("at worst", say(crossovers.worst)))
    return expected, ", ".join(f"{case} {text}" for case, text in cases if text != expected)


def _cheapest(values: tuple[Spread | None, ...]) -> int | None:
    """Return which value is the lowest, where all are known and one alone is."""
    expected = [value.expected for value in values if value is not None]
    if len(expected) < len(values) or expected.count(min(expected)) > 1:
        return None
    return expected.index(min(expected))
