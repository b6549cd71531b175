"""A plan on a terminal: one backend in full, several side by side, trained tokens, a quote."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from pydantic import JsonValue
from rich.table import Table
from rich.text import Text

from unitune.backends.capabilities import MaskedToken
from unitune.backends.forecasts import Forecast
from unitune.cli.output import (
    console,
    facts,
    gigabytes,
    new_table,
    print_findings,
    print_table,
)
from unitune.cost.budget import BUDGET_CODES
from unitune.cost.documents import LAUNCH, MONTHLY, Estimate, Line
from unitune.cost.spread import Spread, cents
from unitune.cost.tokens import Count
from unitune.errors import Unsupported
from unitune.job.job import Evaluate
from unitune.job.prices import PriceRow
from unitune.job.sweep import written
from unitune.planning.backend_calls import NO_BACKEND, quote
from unitune.planning.evaluation_forecast import Seconds
from unitune.planning.masks import MaskedRow, audit
from unitune.planning.plan import Plan, PlannedRun, PlanSet
from unitune.planning.preflight import ResolvedJob
from unitune.report.typography import counted, dollars, duration, usd_range

# A difference of more than this share is worth a look: ours or theirs is wrong
QUOTE_GAP = Decimal("0.05")
TRAINED, SEEN, HEADING = "bold green", "dim", "cyan"
OPEN, CLOSE, BETWEEN_TOKENS = "\u00ab", "\u00bb", "\u00b7"
AMOUNTS = ("low", "expected", "high")
SHORT_UNITS = {"million-tokens": "M", "hour": "h", "gpu-hour": "GPU h", "month": "month"}


def print_plan(plan: Plan, evaluate: Evaluate) -> None:
    """Print the plan of one backend; of one that cannot be used, no figures that are unknown."""
    if plan.charge == "unknown" and any(each.code == NO_BACKEND for each in plan.errors):
        print_findings(plan.errors)
        return
    training = f"{plan.method} of {plan.model} on {plan.backend}"
    title = f"{'a comparison' if plan.compares_only else training}, {plan.day}"
    console().print(Text.assemble((plan.job, "bold"), f": {title}"))
    if not plan.errors:
        console().print(facts(_facts(plan, evaluate)))
    if plan.runs and (runs := _runs(plan.runs)).row_count:
        print_table(runs)
    if plan.estimate is not None:
        if plan.estimate.lines:
            console().print(_lines(plan.estimate))
        console().print(facts({"because": "\n".join(plan.estimate.assumptions)}))
    print_findings(plan.findings)


def print_plans(plans: PlanSet) -> None:
    """Print the plans of several backends side by side."""
    priced = [plan for plan in plans.plans if _is_priced(plan)]
    refused = [plan for plan in plans.plans if not _is_priced(plan)]
    rows = max((plan.train_rows for plan in plans.plans), default=0)
    held_out = max((plan.validation_rows for plan in plans.plans), default=0)
    title = f": {rows:,} rows to train on, {held_out:,} held out, {plans.day}"
    console().print(Text.assemble((plans.job, "bold"), title))
    if priced:
        console().print(_side_by_side(priced))
        console().print(
            "US dollars for the training; expected hosting a month, if left running; !: warnings",
            style="dim",
        )
        if any(plan.proposed for plan in priced):
            named = (plan for plan in priced if plan.listed)
            bases = ", ".join(f"{plan.backend}: {plan.model}" for plan in named)
            console().print("* The job names no base there: the closest one is planned. Write:")
            console().print(f"model: {{{bases}}}", highlight=False)
        if not all(plan.listed for plan in priced):
            console().print("unlisted: what is known of it does not name the model", style="dim")
        if any(plan.charge == "none" for plan in priced):
            console().print("time and memory here: unitune plan FILE --backend local", style="dim")
    if refused:
        reasons = {plan.backend: [each.message for each in plan.errors] for plan in refused}
        print_refused(reasons, "unitune plan FILE --backend NAME")


def print_refused(reasons: Mapping[str, Sequence[str]], in_full: str) -> None:
    """Print why backends cannot take a job: the gist of each one's first reason."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=max(map(len, reasons)))
    table.add_column(overflow="fold")
    for backend, (first, *others) in reasons.items():
        without_subject = re.sub(rf"^(job '[^']*': |{backend} )", "", first)
        reason = re.split(r": |\. ", without_subject)[0].rstrip(".")
        table.add_row(backend, reason + (f" (and {len(others)} more)" if others else ""))
    console().print("\nNot available for this job", style="bold")
    console().print(table)
    console().print(f"in full: {in_full}", style="dim")


def _is_priced(plan: Plan) -> bool:
    """Whether there is something to show beside others, launched or not."""
    return all(finding.code in (*BUDGET_CODES, NO_BACKEND) for finding in plan.errors)


def print_quote(resolved: ResolvedJob, plan: Plan) -> None:
    """Print what the vendor says that a training would cost, beside our estimate."""
    try:
        theirs = quote(resolved)
    except Unsupported as none:
        console().print(str(none))
        return
    text = f"{resolved.offer.name} itself says {dollars(theirs)}"
    ours = plan.estimate and plan.estimate.launch_usd
    if ours is not None:
        inside = ours.low <= theirs <= ours.high
        text += ", within our range" if inside else ", outside of our range"
        gap = abs(theirs - ours.expected) / max(ours.expected, Decimal("0.01"))
        text += f", {100 * gap:.0f} % beside what we expect" if gap > QUOTE_GAP else ""
    console().print(f"{text}.")


def print_tokens(resolved: ResolvedJob, count: int) -> None:
    """Print the first training rows, each token apart and those that are trained in green."""
    audited = audit(resolved, count)
    for row in audited.rows:
        pieces = [piece for piece in row.pieces if not piece.heading]
        trained = sum(piece.trained for piece in pieces)
        title = row.problem or f"{trained:,} of {len(pieces):,} pieces are trained"
        console().print(f"line {row.line}: {title}", style="bold")
        console().print(_marked_tokens(row))
        console().print()
    legend = f"{OPEN}trained{CLOSE}, tokens apart by {BETWEEN_TOKENS}"
    console().print(f"{legend}. Cut by {audited.basis}.", style="dim")


def _marked_tokens(row: MaskedRow) -> Text:
    text = Text()
    before: MaskedToken | None = None
    for piece in row.pieces:
        if before is not None and before.trained and not piece.trained:
            text.append(CLOSE)
        if piece.heading:
            text.append("" if not text or text.plain.endswith("\n") else "\n")
            text.append(piece.text, HEADING)
        else:
            starts = piece.trained and not (before is not None and before.trained)
            apart = "" if before is None or before.heading else BETWEEN_TOKENS
            text.append(OPEN if starts else apart)
            visible = piece.text.replace("\n", "\u21b5\n")
            text.append(visible, TRAINED if piece.trained else SEEN)
        before = piece
    return text.append(CLOSE) if before is not None and before.trained else text


def _facts(plan: Plan, evaluate: Evaluate) -> dict[str, str]:
    test = "none" if plan.test_rows is None else f"{plan.test_rows:,}"
    rows = {"sweep": _sweep(plan.runs)} if plan.runs else {}
    rows |= {"verdict": _time_to_verdict(plan)} if plan.evaluation is not None else {}
    rows |= {"starts from": str(plan.start)} if plan.start is not None else {}
    rows["rows"] = f"{test} to judge by"
    if not plan.compares_only:
        held_out = f"{plan.validation_rows:,} held out to choose prompts"
        rows["rows"] = f"{plan.train_rows:,} to train on, {held_out}, {rows['rows']}"
    if plan.test_rows:
        from unitune.evaluate.statistics.sample_size import foresight  # brings numpy

        rows["evidence"] = foresight(plan.test_rows, evaluate.margin, graded=evaluate.graded)
    if (answers := plan.evaluation) is not None:
        each = ", ".join(f"{one.name} {_count(one.requests)}" for one in answers.contenders)
        tokens = f"{_count(answers.tokens)} tokens"
        rows["requests"] = f"{_count(answers.requests)} ({each}); {tokens}"
        rows["answers"] = f"{_time(answers.seconds)}; {'; '.join(answers.bases)}"
    if plan.forecast is not None:
        rows |= _forecast_facts(plan.forecast)
    if plan.compares_only:
        return rows
    if (estimate := plan.estimate) is None:
        charge = "none: your own hardware" if plan.charge == "none" else plan.charge
        return rows | {"charge": charge}
    tokens = "unknown"
    if estimate.trained_tokens is not None:
        single = estimate.epochs == Count.of(1)
        epochs = "1 epoch" if single else f"{_count(estimate.epochs)} epochs"
        tokens = f"{_count(estimate.trained_tokens)} trained, in {epochs}"
    return rows | {"tokens": tokens, "charge": usd_range(estimate.launch_usd)}


def _sweep(runs: Sequence[PlannedRun]) -> str:
    values = {name: dict.fromkeys(run.settings[name] for run in runs) for name in runs[0].settings}
    each = (f"{name} {', '.join(map(written, given))}" for name, given in values.items())
    return f"{len(runs)} runs, one for each combination: {'; '.join(each)}"


def _runs(runs: Sequence[PlannedRun]) -> Table:
    if runs[0].estimate is not None:
        table = new_table("run", *AMOUNTS, right=AMOUNTS, fold=("run",))
        for run in runs:
            table.add_row(run.name, *_amounts(run.estimate and run.estimate.launch_usd))
        return table
    table = new_table("run", "steps", "training", "memory", right=("steps",), fold=("run",))
    for run in runs:
        if (forecast := run.forecast) is not None:
            seconds = (forecast.seconds_low, forecast.seconds_expected, forecast.seconds_high)
            memory = gigabytes(forecast.memory_bytes)
            table.add_row(run.name, f"{forecast.steps:,}", _time(Seconds(*seconds)), memory)
    return table


def _time_to_verdict(plan: Plan) -> str:
    assert plan.evaluation is not None
    answers = plan.evaluation.seconds
    if plan.compares_only:
        return f"in {_time(answers)}"
    if plan.verdict_seconds is None or plan.training_seconds is None:
        return f"{_time(answers)} after the training, whose time {plan.backend} does not tell"
    training = duration(plan.training_seconds.expected)
    parts = f"training {training}, answers {duration(answers.expected)}"
    return f"in {_time(plan.verdict_seconds)}: {parts}"


def _time(seconds: Seconds) -> str:
    return _range(*map(duration, (seconds.low, seconds.expected, seconds.high)))


def _forecast_facts(forecast: Forecast) -> dict[str, str]:
    epochs = counted(forecast.epochs, "epoch")
    seconds = Seconds(forecast.seconds_low, forecast.seconds_expected, forecast.seconds_high)
    memory = (forecast.memory_low_bytes, forecast.memory_bytes, forecast.memory_high_bytes)
    return {
        "tokens": f"{forecast.tokens:,} an epoch, {forecast.trained_tokens:,} of them "
        f"{'sampled' if forecast.settings.get('reward') else 'trained'}",
        "steps": f"{forecast.steps:,} in {epochs}"
        + (f"; may end early, from step {forecast.steps_low:,} on" if forecast.steps_low else ""),
        "training": _time(seconds),
        "memory": f"{_range(*map(gigabytes, memory))}, of "
        f"{gigabytes(forecast.memory_available_bytes)} free",
        "measured": f"here on {forecast.measured_on}"
        if forecast.measured_on
        else "not yet; the first training or unitune plan --calibrate narrows time and memory",
        "settings": ", ".join(_settings(forecast.settings)),
    }


def _settings(settings: Mapping[str, JsonValue]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _settings(value)
        elif value is True:
            yield name
        elif value is not None and value is not False:
            yield f"{name} {value}"


def _range(low: str, expected: str, high: str) -> str:
    return expected if low == high else f"about {expected} ({low} to {high})"


def _lines(estimate: Estimate) -> Table:
    texts = ("US dollars", "how much")
    table = new_table(*texts, "at", *AMOUNTS, right=AMOUNTS, fold=texts)
    sums = (
        ("launch", LAUNCH, estimate.launch_usd),
        ("answers", ("evaluation",), estimate.evaluation_usd),
        ("a month", MONTHLY, estimate.month_usd),
    )
    for name, items, usd in sums:
        lines = [line for line in estimate.lines if line.item in items]
        is_sweep = name == "launch" and any(line.what for line in lines)  # told run by run
        for line in () if is_sweep else lines:
            price = estimate.price(line)
            amount, at = _quantity(line, price), _price(line, price)
            if line.usd is None:
                amount, at = Text(line.because, "yellow"), ""
            table.add_row(line.what or line.item, amount, at, *_amounts(line.usd))
        if len(lines) > 1 or (name == "launch" and estimate.minimum_usd):
            table.add_row(Text(name, "bold"), "", "", *_amounts(usd), end_section=True)
    return table


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
    if not row.usd:
        return "no charge"
    mark = "~" if row.source_kind == "third-party" else ""
    return f"{mark}{row.written} / {SHORT_UNITS.get(row.per, row.per)}"


def _amounts(usd: Spread | None) -> tuple[str, str | Text, str]:
    if usd is None:
        return ("", Text("unknown", "yellow"), "")
    return (f"{cents(usd.low):,}", f"{cents(usd.expected):,}", f"{cents(usd.high):,}")


def _count(count: Count) -> str:
    """Return tokens or epochs as people read them: ``1.2M to 2.9M``."""
    low, high = _short(count.low), _short(count.high)
    return low if low == high else f"{low} to {high}"


def _short(number: int) -> str:
    if number < 10_000:
        return f"{number:,}"
    rounded = int(Decimal(f"{Decimal(number):.3g}"))  # 999.9M are 1.00B
    for size, letter in ((10**9, "B"), (10**6, "M")):
        if rounded >= size:
            return f"{Decimal(number) / size:.3g}{letter}"
    return f"{Decimal(number) / 1000:.3g}K"


def _side_by_side(plans: Iterable[Plan]) -> Table:
    headings = ("backend", "can", "!", *AMOUNTS, "time", "hosting", "ends")
    table = new_table(*headings, right=("!", *AMOUNTS, "hosting"))
    for plan in sorted(plans, key=_cheapest_first):
        warnings = sum(finding.severity == "warning" for finding in plan.findings)
        here, time = plan.charge == "none", "unknown"
        if (forecast := plan.forecast) is not None:
            time = f"{duration(forecast.seconds_low)}-{duration(forecast.seconds_high)}"
        elif here:
            time = "see below"
        usd = plan.estimate and plan.estimate.launch_usd
        table.add_row(
            Text.assemble((plan.backend, "bold"), "*" if plan.proposed else ""),
            _can_launch(plan),
            Text(str(warnings) if warnings else "", "yellow"),
            *(("", "none", "") if here else _amounts(usd)),
            time,
            "none" if here else _hosting(plan.estimate),
            str(plan.retires_on or ""),
        )
    return table


def _cheapest_first(plan: Plan) -> tuple[bool, Decimal]:
    """Order plans by their expected cost; those of unknown cost come last."""
    if plan.charge == "none":
        return (False, Decimal(-1))
    usd = plan.estimate and plan.estimate.launch_usd
    return (usd is None, usd.expected if usd else Decimal(0))


def _can_launch(plan: Plan) -> Text:
    codes = {finding.code for finding in plan.findings}
    if NO_BACKEND in codes:
        return Text("not yet", "dim")
    if codes & BUDGET_CODES and plan.errors:
        return Text("budget", "red")
    return Text("yes", "green") if plan.listed else Text("unlisted", "yellow")


def _hosting(estimate: Estimate | None) -> str:
    usd = [line.usd for line in estimate.of("hosting")] if estimate else []
    if not usd or usd[0] is None:
        return "unknown"
    return "none" if not usd[0].high else f"{cents(usd[0].expected):,}"
