"""A plan on a terminal: one backend in full, or several side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from rich.table import Table
from rich.text import Text

from unitune.backends.capabilities import Forecast
from unitune.cli.money import between
from unitune.cli.output import console, duration, facts, gigabytes, print_findings
from unitune.cost.budget import BUDGET_CODES
from unitune.cost.documents import LAUNCH, MONTHLY, Estimate, Line
from unitune.cost.spread import Spread, cents
from unitune.cost.tokens import Count
from unitune.job.job import Evaluate
from unitune.job.prices import PriceRow
from unitune.planning.documents import NO_BACKEND, Plan, PlanSet


def print_plan(found: Plan, evaluate: Evaluate) -> None:
    """Print the plan of one backend.

    Args:
        found: The plan.
        evaluate: Of its job, for what the test rows can show.
    """
    title = f"{found.method} of {found.model} on {found.backend}, {found.day}"
    console().print(Text.assemble((found.job, "bold"), f": {title}"))
    if not found.errors:
        console().print(facts(_facts(found, evaluate)))
    if found.estimate is not None:
        console().print(_lines(found.estimate))
        console().print(facts({"because": "\n".join(found.estimate.assumptions)}))
    print_findings(found.findings)


def print_plans(found: PlanSet) -> None:
    """Print the plans of several backends side by side."""
    shown = [plan for plan in found.plans if _reckoned(plan)]
    refused = [plan for plan in found.plans if not _reckoned(plan)]
    rows = max((plan.train_rows for plan in found.plans), default=0)
    held = max((plan.validation_rows for plan in found.plans), default=0)
    console().print(
        Text.assemble(
            (found.job, "bold"),
            f": {rows:,} rows to train on, {held:,} held out, {found.day}",
        )
    )
    if shown:
        console().print(_side_by_side(shown))
        console().print(_legend(shown), style="dim")
    if refused:
        whose = "None of the others" if shown else "None"
        console().print(f"\n{whose} as it stands", style="bold")
        console().print(_reasons(refused))
        console().print("in full: unitune plan FILE --backend NAME", style="dim")


def _reckoned(plan: Plan) -> bool:
    """Whether there is something to show beside others, launched or not."""
    return all(finding.code in (*BUDGET_CODES, NO_BACKEND) for finding in plan.errors)


def _legend(plans: Iterable[Plan]) -> str:
    lines = ["US dollars for the training; hosting a month, if left running; !: warnings"]
    if any(plan.charge == "none" for plan in plans):
        lines.append("time and memory here: unitune plan FILE --backend local")
    return "\n".join(lines)


def _facts(found: Plan, evaluate: Evaluate) -> dict[str, str]:
    test = "none" if found.test_rows is None else f"{found.test_rows:,}"
    rows = {
        "rows": f"{found.train_rows:,} to train on, {found.validation_rows:,} held out to choose "
        f"prompts, {test} to judge by"
    }
    if found.test_rows:
        from unitune.evaluate.statistics.sample_size import foresight  # brings numpy

        rows["evidence"] = foresight(found.test_rows, evaluate.margin, graded=evaluate.graded)
    if found.forecast is not None:
        rows |= _forecast_facts(found.forecast)
    made = found.estimate
    if made is None:
        rows["charge"] = "none: this machine" if found.charge == "none" else found.charge
    else:
        rows["tokens"] = _trained(made)
        rows["charge"] = between(made.launch_usd)
    return rows


def _trained(made: Estimate) -> str:
    if made.trained_tokens is None:
        return "unknown"
    passes = "1 epoch" if made.epochs == Count.of(1) else f"{_count(made.epochs)} epochs"
    return f"{_count(made.trained_tokens)} trained, in {passes}"


def _forecast_facts(found: Forecast) -> dict[str, str]:
    settings = ", ".join(f"{key} {value}" for key, value in found.settings.items())
    return {
        "tokens": f"{found.tokens:,} an epoch, {found.trained_tokens:,} of them trained",
        "steps": f"{found.steps:,} in {found.epochs} {'epoch' if found.epochs == 1 else 'epochs'}",
        "time": _range(
            duration(found.seconds_low),
            duration(found.seconds_expected),
            duration(found.seconds_high),
        ),
        "memory": _range(
            gigabytes(found.memory_low_bytes),
            gigabytes(found.memory_bytes),
            gigabytes(found.memory_high_bytes),
        )
        + f", of {gigabytes(found.memory_available_bytes)} free",
        "measured": f"here on {found.measured_on}"
        if found.measured_on
        else "not yet; unitune plan --calibrate times a few steps, and narrows time and memory",
        "settings": settings,
    }


def _range(low: str, expected: str, high: str) -> str:
    return expected if low == high else f"about {expected} ({low} to {high})"


def _lines(made: Estimate) -> Table:
    """Return what costs money, line by line, with the sums that decide."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("US dollars")
    table.add_column("how much", overflow="fold")
    table.add_column("at", no_wrap=True)
    for heading in ("low", "expected", "high"):
        table.add_column(heading, justify="right", no_wrap=True)
    parts = {
        "launch": [line for line in made.lines if line.item in LAUNCH],
        "answers": [line for line in made.lines if line.item == "evaluation"],
        "a month": [line for line in made.lines if line.item in MONTHLY],
    }
    sums = {"launch": made.launch_usd, "answers": made.evaluation_usd, "a month": made.month_usd}
    for name, lines in parts.items():
        for line in lines:
            table.add_row(*_cells(made, line))
        if len(lines) > 1 or (name == "launch" and made.minimum_usd):
            table.add_row(Text(name, "bold"), "", "", *_amounts(sums[name]), end_section=True)
    return table


def _cells(made: Estimate, line: Line) -> Iterable[str | Text]:
    name = line.what or line.item
    row = made.price(line)
    if line.usd is None:
        return (name, Text(line.because, "yellow"), "", *_amounts(None))
    return (name, _quantity(line, row), _price(line, row), *_amounts(line.usd))


def _quantity(line: Line, row: PriceRow | None) -> str:
    if line.units is not None and row is not None and row.per != "million-tokens":
        unit = "months" if row.per == "month" else "hours"
        low, high = line.units.low, line.units.high
        span = f"{high:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
        return f"{span} {unit}" if row.usd else ""
    return f"{_count(line.tokens)} tokens" if line.tokens is not None else ""


def _price(line: Line, row: PriceRow | None) -> str:
    """Return a price in short; ~ marks what only a third party says."""
    if row is None or (line.item == "evaluation" and row.per == "million-tokens"):
        return ""
    per = {"million-tokens": "M", "hour": "h", "gpu-hour": "GPU h", "month": "month"}
    if not row.usd:
        return "no charge"
    mark = "~" if row.source_kind == "third-party" else ""
    return f"{mark}{row.written} / {per.get(row.per, row.per)}"


def _amounts(usd: Spread | None) -> tuple[str, str | Text, str]:
    if usd is None:
        return ("", Text("unknown", "yellow"), "")
    return (f"{cents(usd.low):,}", f"{cents(usd.expected):,}", f"{cents(usd.high):,}")


def _count(count: Count) -> str:
    """Return tokens or epochs as people read them: ``1.2M to 2.9M``."""
    low, high = _short(count.low), _short(count.high)
    return low if low == high else f"{low} to {high}"


def _short(number: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "K")):
        if number >= 10 * size or (number >= size and letter == "M"):
            return f"{Decimal(number) / size:.3g}{letter}"
    return f"{number:,}"


def _side_by_side(plans: Iterable[Plan]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("backend", no_wrap=True)
    table.add_column("can", no_wrap=True)
    table.add_column("!", justify="right", no_wrap=True)
    for heading in ("low", "expected", "high"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("time", no_wrap=True)
    table.add_column("hosting", justify="right", no_wrap=True)
    table.add_column("ends", no_wrap=True)
    for plan in sorted(plans, key=_dearness):
        warnings = sum(finding.severity == "warning" for finding in plan.findings)
        table.add_row(
            Text(plan.backend, "bold"),
            _can(plan),
            Text(str(warnings) if warnings else "", "yellow"),
            *_charge(plan),
            _time(plan),
            _hosting(plan),
            str(plan.retires_on or ""),
        )
    return table


def _dearness(plan: Plan) -> tuple[bool, Decimal]:
    """Order: what is known first, and of that the cheapest."""
    usd = plan.estimate and plan.estimate.launch_usd
    if plan.charge == "none":
        return (False, Decimal(-1))
    return (usd is None, usd.expected if usd else Decimal(0))


def _can(plan: Plan) -> Text:
    """Return whether it can run there: over the budget, not by unitune, or nobody knows."""
    codes = {finding.code for finding in plan.findings}
    if NO_BACKEND in codes:
        return Text("not yet", "dim")
    if codes & BUDGET_CODES and plan.errors:
        return Text("budget", "red")
    return Text("yes", "green") if plan.listed else Text("unlisted", "yellow")


def _charge(plan: Plan) -> tuple[str, str | Text, str]:
    if plan.charge == "none":
        return ("", "none", "")
    return _amounts(plan.estimate.launch_usd if plan.estimate else None)


def _time(plan: Plan) -> str:
    found = plan.forecast
    if found is None:
        return "below" if plan.charge == "none" else "unknown"
    return f"{duration(found.seconds_low)}-{duration(found.seconds_high)}"


def _hosting(plan: Plan) -> str:
    if plan.charge == "none":
        return "none"
    usd = [line.usd for line in plan.estimate.of("hosting")] if plan.estimate else []
    if not usd or usd[0] is None:
        return "unknown"
    return "none" if not usd[0].high else f"{cents(usd[0].high):,}"


def _reasons(plans: Sequence[Plan]) -> Table:
    """Return why backends cannot take a job, a line each, cut where the screen ends."""
    width = max(len(plan.backend) for plan in plans)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    for plan in plans:
        first, more = plan.errors[0], len(plan.errors) - 1
        text = Text(first.message + (f" (and {more} more)" if more else ""))
        text.truncate(console().width - width - 3, overflow="ellipsis")
        table.add_row(plan.backend, text)
    return table
