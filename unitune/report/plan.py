"""Describe plans: one in full, with its changes since another, and several side by side."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from pydantic import JsonValue

from unitune.backends import registry
from unitune.backends.local_capabilities import Forecast
from unitune.cost.budget import BUDGET_CODES
from unitune.cost.documents import LAUNCH, MONTHLY, Estimate, Line
from unitune.cost.spread import Spread, cents
from unitune.cost.tokens import Count
from unitune.job.job import Evaluate
from unitune.job.prices import PriceRow
from unitune.job.sweep import written
from unitune.planning.forecasts import NO_BACKEND, Seconds
from unitune.planning.plan import Plan, PlannedRun, PlannedSource, PlanSet
from unitune.render.sections import (
    Bullets,
    Cell,
    Column,
    Document,
    Fact,
    Facts,
    Findings,
    Folded,
    Section,
    Table,
)
from unitune.render.typography import counted, duration, gigabytes, usd_range
from unitune.report.tiers import rate, tiers_section

# Facts that depend on the machine
OF_MACHINE = {"verdict", "answers", "steps", "training", "memory", "measured", "settings"}
SHORT_HOURS = 10  # hours below which fractions are shown
AMOUNTS = ("#low", "#expected", "#high")


def describe(plan: Plan, evaluate: Evaluate | None = None, base: Plan | None = None) -> Document:
    """Return the document of a plan.

    Args:
        plan: Plan of one backend.
        evaluate: Evaluation of its job, to show the power of its test; None to omit that.
        base: Plan of the base branch, to show changes; None to omit them.
    """
    findings = Section("", [Findings(plan.findings)])
    if plan.charge == "unknown" and any(each.code == NO_BACKEND for each in plan.errors):
        return Document(_title(plan), _about(plan), state=_state(plan), sections=(findings,))
    sections = [Section("What changed", [_changes(plan, base)])] if base else []
    sections += [findings] if plan.errors else [Section("", [Facts([*_facts(plan, evaluate)])])]
    if plan.runs:
        sections.append(Section("The runs of the sweep", [_runs(plan.runs)]))
    if (estimate := plan.estimate) is not None:
        because = Folded("What the estimate rests on", [Bullets(estimate.assumptions)])
        sections.append(Section("What it costs, US dollars", [cost_table(estimate), because]))
    if plan.tiers:
        sections.append(tiers_section(plan.tiers))
    sections += [] if plan.errors else [findings]
    return Document(_title(plan), _about(plan), state=_state(plan), sections=tuple(sections))


def has_changed(plan: Plan, base: Plan) -> bool:
    """Return whether a plan's figures or errors differ from those of another."""
    errors = [list(map(str, each.errors)) for each in (plan, base)]
    return _figures(plan) != _figures(base) or errors[0] != errors[1]


def _about(plan: Plan) -> tuple[str, ...]:
    return (plan.job, str(plan.day))


def _title(plan: Plan) -> str:
    usd = plan.estimate.launch_usd if plan.estimate and plan.charge != "none" else None
    if plan.compares_only:
        cost = f" may cost {usd_range(plan.estimate.evaluation_usd)}" if plan.estimate else ""
        return f"A comparison{cost}"
    free = "costs nothing: it trains on this machine"
    unknown = free if plan.charge == "none" else "has no known cost"
    return (
        f"{plan.method} of {plan.model} on {plan.backend} "
        f"{f'may cost {usd_range(usd)}' if usd else unknown}"
    )


def _state(plan: Plan) -> Cell:
    if over := [each for each in plan.errors if each.code in BUDGET_CODES]:
        return Cell("Over budget", over[0].message, "bad", strong=True)
    if plan.errors:
        return Cell("This cannot be launched", tone="bad", strong=True)
    if plan.compares_only:
        return Cell("Nothing is trained", tone="good", strong=True)
    if any(finding.severity == "warning" for finding in plan.findings):
        return Cell("This can be launched", "look at the warnings", "doubtful", strong=True)
    return Cell("This can be launched", tone="good", strong=True)


def _changes(plan: Plan, base: Plan) -> Table:
    before, now = _figures(base), _figures(plan)
    rows = [
        [name, before.get(name, ""), now[name]] for name in now if before.get(name) != now[name]
    ]
    return Table(["changed", "base", "here"], rows)


def _figures(plan: Plan) -> dict[str, str]:
    """Return the figures of a plan that do not depend on the machine."""
    facts = {fact.term: fact.value for fact in _facts(plan, None) if fact.term not in OF_MACHINE}
    return {"plan": _title(plan), **facts}


def _facts(plan: Plan, evaluate: Evaluate | None) -> Iterator[Fact]:
    if plan.runs:
        yield Fact("sweep", _sweep(plan.runs))
    if plan.evaluation is not None:
        yield Fact("verdict", _time_to_verdict(plan))
    if plan.start is not None:
        yield Fact("starts from", str(plan.start))
    yield Fact("rows", _rows(plan))
    if plan.sources:
        yield Fact("sources", "\n".join(map(_source, plan.sources)))
    if plan.test_rows and evaluate is not None:
        # imports numpy
        from unitune.evaluate.statistics.sample_size import foresight  # noqa: PLC0415

        graded = evaluate.graded
        yield Fact("evidence", foresight(plan.test_rows, evaluate.margin, graded=graded))
    if (answers := plan.evaluation) is not None:
        each = ", ".join(f"{one.name} {_count(one.requests)}" for one in answers.contenders)
        tokens = f"{_count(answers.tokens)} tokens"
        yield Fact("requests", f"{_count(answers.requests)} ({each}); {tokens}")
        yield Fact("answers", f"{_time(answers.seconds)}; {'; '.join(answers.bases)}")
    if plan.forecast is not None:
        yield from _forecast_facts(plan.forecast)
    if plan.compares_only:
        return
    if (estimate := plan.estimate) is not None:
        yield from [] if plan.forecast else [Fact("tokens", _trained(estimate))]
        later = (("answers", estimate.evaluation_usd), ("a month after it", estimate.month_usd))
        more = "".join(f"; {name} {usd_range(usd)}" for name, usd in later if usd)
        yield Fact("charge", f"{usd_range(estimate.launch_usd)}{more}")
    else:
        free = plan.charge == "none"
        yield Fact("charge", "none: your own hardware" if free else plan.charge)


def _source(source: PlannedSource) -> str:
    used = f"{source.rows:,} of {counted(source.of, 'row')} ({source.share:.1%})"
    return f"{source.name}: {used}, about {source.tokens:,} tokens an epoch"


def _rows(plan: Plan) -> str:
    test = f"{'none' if plan.test_rows is None else f'{plan.test_rows:,}'} to test on"
    if plan.compares_only:
        return test
    held_out = f"{plan.validation_rows:,} to choose prompts on"
    return f"{plan.train_rows:,} to train on, {held_out}, {test}"


def _trained(estimate: Estimate) -> str:
    if estimate.trained_tokens is None:
        return "unknown"
    single = estimate.epochs == Count.of(1)
    epochs = "1 epoch" if single else f"{_count(estimate.epochs)} epochs"
    return f"{_count(estimate.trained_tokens)} trained, in {epochs}"


def _sweep(runs: Sequence[PlannedRun]) -> str:
    values = {name: dict.fromkeys(run.settings[name] for run in runs) for name in runs[0].settings}
    each = (f"{name} {', '.join(map(written, given))}" for name, given in values.items())
    return f"{len(runs)} runs, one for each combination: {'; '.join(each)}"


def _runs(runs: Sequence[PlannedRun]) -> Table:
    if runs[0].estimate is not None:
        amounts = [[run.name, *_amounts(run.estimate and run.estimate.launch_usd)] for run in runs]
        return Table(["run", *AMOUNTS], amounts)
    columns = ["run", "#steps", Column("training", whole=True), "#memory"]
    forecasts = [(run.name, run.forecast) for run in runs if run.forecast is not None]
    return Table(
        columns,
        [
            [name, f"{each.steps:,}", _time(_training(each)), gigabytes(each.memory_bytes)]
            for name, each in forecasts
        ],
    )


def _training(forecast: Forecast) -> Seconds:
    return Seconds(forecast.seconds_low, forecast.seconds_expected, forecast.seconds_high)


def _time_to_verdict(plan: Plan) -> str:
    assert plan.evaluation is not None, "called only with an evaluation"
    answers = plan.evaluation.seconds
    if plan.compares_only:
        return f"in {_time(answers)}"
    if plan.verdict_seconds is None or plan.training_seconds is None:
        return f"{_time(answers)} after the training, whose time {plan.backend} does not report"
    training = duration(plan.training_seconds.expected)
    parts = f"training {training}, answers {duration(answers.expected)}"
    return f"in {_time(plan.verdict_seconds)}: {parts}"


def _time(seconds: Seconds) -> str:
    return _range(*map(duration, (seconds.low, seconds.expected, seconds.high)))


def _forecast_facts(forecast: Forecast) -> Iterator[Fact]:
    kind = "sampled" if forecast.settings.get("reward") else "trained"
    tokens = f"{forecast.tokens:,} an epoch, {forecast.trained_tokens:,} of them {kind}"
    yield Fact("tokens", tokens)
    low = forecast.steps_low
    early = f"; may end early, from step {low:,} on" if low else ""
    yield Fact("steps", f"{forecast.steps:,} in {counted(forecast.epochs, 'epoch')}{early}")
    yield Fact("training", _time(_training(forecast)))
    memory = (forecast.memory_low_bytes, forecast.memory_bytes, forecast.memory_high_bytes)
    free = gigabytes(forecast.memory_available_bytes)
    yield Fact("memory", f"{_range(*map(gigabytes, memory))}, of {free} free")
    narrower = "not yet; a training or unitune plan --calibrate makes time and memory more precise"
    yield Fact("measured", f"here on {forecast.measured_on}" if forecast.measured_on else narrower)
    yield Fact("settings", ", ".join(_settings(forecast.settings)))


def _settings(settings: Mapping[str, JsonValue]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _settings(value)
        elif isinstance(value, str) and "\n" in value:  # a chat template
            yield f"{name} of {len(value.splitlines())} lines"
        elif value is True:
            yield name
        elif value is not None and value is not False:
            yield f"{name} {value}"


def _range(low: str, expected: str, high: str) -> str:
    return expected if low == high else f"about {expected} ({low} to {high})"


def cost_table(estimate: Estimate, *, on_page: bool = False) -> Table:
    """Return the estimated costs of a training and its comparison, line by line."""
    sums = (
        ("launch", LAUNCH, estimate.launch_usd),
        ("answers", ("evaluation",), estimate.evaluation_usd),
        ("a month", MONTHLY, estimate.month_usd),
    )
    rows: list[list[str | Cell]] = []
    for name, items, usd in sums:
        lines = [line for line in estimate.lines if line.item in items]
        is_sweep = any(line.what for line in lines if line.item == "training")  # listed by run
        for line in () if is_sweep else lines:
            price = estimate.price(line)
            amount, at = Cell(_quantity(line, price)), _price(line, price)
            if line.usd is None:
                amount, at = Cell(line.because, tone="doubtful"), ""
            rows.append([line.what or line.item, amount, at, *_amounts(line.usd)])
        if len(lines) > 1 or (name == "launch" and estimate.minimum_usd):
            rows.append([Cell(name, strong=True), "", "", *_amounts(usd)])
    return Table(["item", "how much", "at", *AMOUNTS], rows, on_page=on_page)


def _quantity(line: Line, row: PriceRow | None) -> str:
    if line.units is not None and row is not None and row.per != "million-tokens":
        unit = "months" if row.per == "month" else "hours"
        low, high = line.units.low, line.units.high
        form = ",.2f" if high < SHORT_HOURS and low != high else ",.0f"
        span = f"{high:,.0f}" if low == high else f"{low:{form}} to {high:{form}}"
        return f"{span} {unit}" if row.usd else ""
    return f"{_count(line.tokens)} tokens" if line.tokens is not None else ""


def _price(line: Line, row: PriceRow | None) -> str:
    if row is None or (line.item == "evaluation" and row.per == "million-tokens"):
        return ""
    return rate(row)


def _amounts(usd: Spread | None) -> list[str | Cell]:
    if usd is None:
        return ["", Cell("unknown", tone="doubtful"), ""]
    return [f"{cents(usd.low):,}", f"{cents(usd.expected):,}", f"{cents(usd.high):,}"]


def _count(count: Count) -> str:
    low, high = short(count.low), short(count.high)
    return low if low == high else f"{low} to {high}"


def short(number: int) -> str:
    """Return a whole number with three significant digits: ``27.0K``, ``1.00M``."""
    if number < 10_000:
        return f"{number:,}"
    rounded = int(Decimal(f"{Decimal(number):.3g}"))  # 999.9M becomes 1.00B
    for size, letter in ((10**9, "B"), (10**6, "M")):
        if rounded >= size:
            return f"{Decimal(number) / size:.3g}{letter}"
    return f"{Decimal(number) / 1000:.3g}K"


def describe_several(plans: PlanSet) -> Document:
    """Return the document of the plans of several backends, side by side."""
    priced = [plan for plan in plans.plans if _is_priced(plan)]
    rows = max((plan.train_rows for plan in plans.plans), default=0)
    held_out = max((plan.validation_rows for plan in plans.plans), default=0)
    reasons = {
        plan.backend: [each.message for each in plan.errors]
        for plan in plans.plans
        if not _is_priced(plan)
    }
    refused = [refused_section(reasons, "unitune plan FILE --backend NAME")] if reasons else []
    return Document(
        title=f"{rows:,} rows to train on, {held_out:,} held out",
        about=(plans.job, str(plans.day)),
        sections=(Section("", [_side_by_side(priced), *_remarks(priced)]), *refused),
    )


def _remarks(priced: Sequence[Plan]) -> Iterator[str]:
    if any(plan.proposed for plan in priced):
        named = (plan for plan in priced if plan.listed)
        bases = ", ".join(f"{plan.backend}: {plan.model}" for plan in named)
        yield "* The job names no base there, so the closest one is planned. Write:"
        yield f"model: {{{bases}}}"
    if not all(plan.listed for plan in priced):
        yield "unlisted: the vendor's list does not name the model"
    if any(plan.charge == "none" for plan in priced):
        yield "time and memory here: unitune plan FILE --backend local"


def refused_section(reasons: Mapping[str, Sequence[str]], in_full: str) -> Section:
    """Return the reasons why backends cannot take a job, shortened to each one's first reason."""
    facts: list[Fact] = []
    for backend, (first, *others) in reasons.items():
        without_subject = re.sub(rf"^(job '[^']*': |{backend} )", "", first)
        gist = re.split(r": |\. ", without_subject)[0].rstrip(".")
        facts.append(Fact(backend, gist + (f" (and {len(others)} more)" if others else "")))
    return Section("Not available for this job", [Facts(facts), f"in full: {in_full}"])


def _is_priced(plan: Plan) -> bool:
    return all(finding.code in (*BUDGET_CODES, NO_BACKEND) for finding in plan.errors)


def _side_by_side(plans: Iterable[Plan]) -> Table:
    rows: list[list[str | Cell]] = []
    for plan in sorted(plans, key=_cheapest_first):
        warnings = sum(finding.severity == "warning" for finding in plan.findings)
        here, time = plan.charge == "none", "unknown"
        if (seconds := plan.training_seconds) is not None:
            time = f"{duration(seconds.low)}-{duration(seconds.high)}"
        elif here:
            time = "see below"
        usd = plan.estimate and plan.estimate.launch_usd
        rows.append(
            [
                Cell(f"{plan.backend}{'*' if plan.proposed else ''}", strong=True),
                _can_launch(plan),
                Cell(str(warnings) if warnings else "", tone="doubtful"),
                *(["", "none", ""] if here else _amounts(usd)),
                time,
                "none" if registry.offer(plan.backend).is_own else _hosting(plan.estimate),
                str(plan.retires_on or ""),
            ]
        )
    whole = [Column(title, whole=True) for title in ("backend", "can", "time", "ends")]
    return Table(
        [*whole[:2], "#!", *AMOUNTS, whole[2], "#hosting", whole[3]],
        rows,
        "US dollars for the training; expected hosting a month, if left running; !: warnings",
    )


def _cheapest_first(plan: Plan) -> tuple[bool, Decimal]:
    """Order plans by their expected cost; those of unknown cost come last."""
    if plan.charge == "none":
        return (False, Decimal(-1))
    usd = plan.estimate and plan.estimate.launch_usd
    return (usd is None, usd.expected if usd else Decimal(0))


def _can_launch(plan: Plan) -> Cell:
    codes = {finding.code for finding in plan.findings}
    if NO_BACKEND in codes:
        return Cell("not yet", tone="quiet")
    if codes & BUDGET_CODES and plan.errors:
        return Cell("budget", tone="bad")
    return Cell("yes", tone="good") if plan.listed else Cell("unlisted", tone="doubtful")


def _hosting(estimate: Estimate | None) -> str:
    usd = [line.usd for line in estimate.of("hosting")] if estimate else []
    if not usd or usd[0] is None:
        return "unknown"
    return "none" if not usd[0].high else f"{cents(usd[0].expected):,}"
