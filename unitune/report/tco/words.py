"""What an `TotalCost` says, in words; the terminal and the page share them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from unitune.cost.break_even import Crossover, Crossovers, Range
from unitune.cost.spread import Spread
from unitune.job.prices import PriceRow
from unitune.report.typography import counted
from unitune.tco.columns import Role
from unitune.tco.documents import TotalCost
from unitune.tco.horizon import DAYS_A_MONTH
from unitune.tco.usage import Source

NAMES: dict[Role, str] = {"prompted": "prompted", "tuned": "tuned", "newest": "newest untuned"}
UNKNOWN = "unknown"
TENTH = Decimal("0.1")
ORIGINS: dict[Source, str] = {
    "option": "from the command line",
    "job": "from the job",
    "measured": "measured",
    "counted": "counted",
    "assumed": "assumed",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """From where on tuning pays, by one measure.

    Args:
        term: The measure.
        value: As expected.
        ends: In the best and the worst case, where these say something else.
        meaning: A sentence for somebody who sees it the first time.
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
        cheapest: Which of them is the lowest; None where that says nothing, or is not known.
    """

    name: str
    values: tuple[Spread | None, ...]
    cheapest: int | None = None


def headline(found: TotalCost) -> str:
    """Say in one sentence whether tuning pays at the planned volume."""
    volume = requests(Decimal(found.requests_month))
    prompted, tuned = _totals(found)
    if prompted is None or tuned is None:
        return f"Whether tuning pays at {volume} is not known"
    if tuned.expected == prompted.expected:
        return f"Tuning costs what prompting costs at {volume}"
    pays = tuned.expected < prompted.expected
    return f"Tuning {'pays' if pays else 'does not pay'} at {volume}"


def reason(found: TotalCost) -> str:
    """Say why, in two or three sentences."""
    prompted, tuned = _totals(found)
    if prompted is None or tuned is None:
        sides = (("prompting", prompted), ("the tuned model", tuned))
        lacking = " and ".join(name for name, total in sides if total is None)
        return f"Not all that {lacking} costs has a known price; what is missing stands below."
    said = (
        f"Over {months(found.horizon.months)} the tuned model costs {usd(tuned.expected)} and "
        f"prompting {usd(prompted.expected)}, as expected."
    )
    newest = found.column("newest")
    total = newest.total_usd.expected if newest and newest.total_usd else None
    if newest and total is not None and total < min(tuned.expected, prompted.expected):
        said += f" {newest.model}, untuned, costs {usd(total)}, less than both."
    overlap = tuned.low <= prompted.high and prompted.low <= tuned.high and tuned != prompted
    return f"{said}{' The ranges overlap, so it may be the other way round.' if overlap else ''}"


def lines(found: TotalCost) -> tuple[Line, ...]:
    """Return the figures of the columns, the last at several volumes."""
    columns = found.columns
    totals = tuple(one.total_usd for one in columns)
    return (
        Line("a request", tuple(one.request_usd for one in columns)),
        Line("hosting a month", tuple(one.month_usd for one in columns)),
        Line("paid once", tuple(one.once_usd for one in columns)),
        Line(f"total, {months(found.horizon.months)}", totals, _cheapest(totals)),
    )


def volumes(found: TotalCost) -> tuple[Line, ...]:
    """Return what a month costs, all in, at several volumes."""
    rows = zip(*(one.costs for one in found.columns), strict=True)
    return tuple(
        Line(f"{row[0].requests_month:,}", values, _cheapest(values))
        for row in rows
        if (values := tuple(at.usd_month for at in row))
    )


def answers(found: TotalCost) -> Iterator[Answer]:
    """Yield from where on tuning pays."""
    yield Answer(
        "Tuned is cheaper",
        *_ends(found.break_even, volume_range),
        "Requests over the horizon, with their share of what is paid once.",
    )
    yield Answer(
        "It pays back",
        *_ends(found.pays_back, lambda one: _payback(one, found.horizon.months)),
        f"At {requests(Decimal(found.requests_month))}.",
    )
    threshold = found.cache_threshold
    yield Answer(
        "A tuned request is cheaper",
        UNKNOWN if threshold is None else hit_rates(threshold),
        "",
        "The more of a prompt is found in the cache, the less it costs to send.",
    )
    if retires_on := found.columns[1].retires_on:
        yield Answer(
            "It is switched off", f"{retires_on}", "", "With the base that it was tuned from."
        )


def sources(found: TotalCost) -> Iterator[tuple[str, str]]:
    """Yield where the figures of the usage come from, and which they are."""
    groups: dict[str, list[str]] = {}
    for one in found.figures:
        where = ORIGINS[one.source]
        said = f"{one.name}: {one.value}"
        if one.source == "measured":
            where = f"{where}, {one.detail}"
        elif one.source in ("counted", "assumed") and one.detail:
            said = f"{said}, {one.detail.partition(';')[0]}"
        groups.setdefault(where, []).append(said)
    return ((where, "; ".join(said)) for where, said in groups.items())


def prices(found: TotalCost) -> Iterator[tuple[str, str]]:
    """Yield the price rows that were used, those of one model and source together."""
    groups: dict[tuple[str, str], list[PriceRow]] = {}
    for row in found.prices:
        groups.setdefault((row.id.rpartition("/")[0], row.source), []).append(row)
    for (name, source), rows in groups.items():
        days = max((found.horizon.begins - row.as_of).days for row in rows)
        amounts = ", ".join(f"{row.kind} {rate(row)}" for row in rows)
        yield name, f"{amounts}; {counted(days, 'day')} old; {source}"


def rate(row: PriceRow) -> str:
    """Return a price with what it is for."""
    unit = row.per.replace("-", " ")
    return f"{usd(row.usd)} {'an' if unit == 'hour' else 'a'} {unit}"


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


def volume_range(crossing: Crossover) -> str:
    """Say at which requests a month."""
    match crossing:
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


def hit_rates(crossing: Crossover) -> str:
    """Say at which cache hit rates."""
    match crossing:
        case Crossover(Range.ABOVE, Decimal() as at):
            return f"from a cache hit rate of {at:.0%} on"
        case Crossover(Range.BELOW, Decimal() as at):
            return f"up to a cache hit rate of {at:.0%}"
        case Crossover(Range.ALWAYS):
            return "whatever the cache hit rate"
        case Crossover(Range.SAME):
            return "at no cache hit rate: both cost the same"
        case _:
            return "at no cache hit rate"


def _payback(crossing: Crossover, horizon: Decimal) -> str:
    match crossing:
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


def _ends(crossings: Crossovers | None, say: Callable[[Crossover], str]) -> tuple[str, str]:
    """Say a crossing as expected, and its best and worst cases where they say something else."""
    if crossings is None:
        return UNKNOWN, ""
    expected = say(crossings.expected)
    others = [("at best", crossings.best), ("at worst", crossings.worst)]
    told = [f"{case} {said}" for case, one in others if (said := say(one)) != expected]
    return expected, ", ".join(told)


def _totals(found: TotalCost) -> tuple[Spread | None, Spread | None]:
    prompted, tuned = found.columns[:2]
    return prompted.total_usd, tuned.total_usd


def _cheapest(values: tuple[Spread | None, ...]) -> int | None:
    """Return which value is the lowest, where all are known and one alone is."""
    expected = [one.expected for one in values if one is not None]
    if len(expected) < len(values) or expected.count(min(expected)) > 1:
        return None
    return expected.index(min(expected))
