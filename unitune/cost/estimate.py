"""Estimate what a job costs on one backend, line by line, as ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal

from unitune.backends.offer import Terms
from unitune.cost import billing
from unitune.cost.documents import LAUNCH, Estimate, Item, Line
from unitune.cost.evaluation import ContenderTokens, contender_tokens
from unitune.cost.prices.book import PriceBook, PriceLookup
from unitune.cost.reconcile import LEAST_BILLS, Lesson, narrowed_epochs, narrowed_tokens
from unitune.cost.spread import MILLION, Spread
from unitune.cost.tokens import Count
from unitune.cost.workload import Tally, Workload
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server, Tuned
from unitune.job.job import Job, TokenPrice
from unitune.job.prices import UNIT_NAMES, PriceRow
from unitune.scorers.graders import OpenAIGrader

HOURS_A_MONTH = Decimal(730)  # 365 days of 24 hours in 12 months, as in cloud price lists
# Default lifetime of a deployment (`unitune.run.deploying.DEFAULT_TTL`)
EVALUATION_HOURS = Decimal(2)
NO_MODEL_GRADERS = ("string_check", "text_similarity", "python")


def estimate(  # noqa: PLR0913 - everything that a cost depends on
    job: Job,
    work: Workload,
    book: PriceBook,
    day: date,
    *,
    others: Mapping[str, Workload] | None = None,
    trained: Mapping[str, Job] | None = None,
    lessons: Iterable[Lesson] = (),
) -> Estimate:
    """Return the cost of a job and the figures behind it, as priced on a day.

    `others` are the rows as counted by other contenders' models, and `trained` the jobs of runs
    that tuned contenders name, both by contender.
    """
    offer = book.offer(job.backend)
    terms = offer.terms(job.base_model, job.method)
    rules = terms.billing
    tier = offer.tier(job.options.get(offer.name, {}))
    prices = PriceLookup(book, offer.name, job.base_model, day, job.method, tier)
    epochs = billing.epochs(job, offer.name, rules, len(work.train))
    tokens = billing.training_tokens(job, offer.name, rules, terms.limits.row_tokens, work.train)
    trains = job.data.train is not None
    assumptions = [*work.assumptions, *(tokens.because + epochs.because if trains else ())]
    passes, charged = epochs.count or Count.of(1), tokens.count
    fitting = [lesson for lesson in lessons if lesson.basis == work.basis]
    if len(fitting) >= LEAST_BILLS:
        passes = narrowed_epochs(passes, fitting)
        charged = charged and narrowed_tokens(charged, fitting)
        assumptions.append(f"narrowed with the bills of {len(fitting)} earlier runs of this model")
    lines: list[Line] = []
    if trains:
        lines.append(_training(job, prices, charged, passes))
        lines += _validation(job, terms, prices, work.validation, passes, assumptions)
        lines += _graders(job, prices)
    if job.data.test is not None:
        lines += _evaluation(
            job, prices, work, others=others or {}, trained=trained or {}, assumptions=assumptions
        )
    if trains:
        lines += _monthly(job, prices, assumptions)
    used = tuple(prices.used.values())
    return Estimate(
        backend=offer.name,
        model=job.base_model,
        day=day,
        basis=work.basis,
        rows=len(work.train),
        epochs=passes,
        epoch_tokens=charged,
        counted_epochs=epochs.count or passes,
        counted_tokens=tokens.count,
        lines=tuple(lines),
        prices=used,
        minimum_usd=rules.minimum_usd,
        assumptions=tuple(dict.fromkeys((*assumptions, *_sources(used)))),
    )


def repriced(made: Estimate, book: PriceBook, day: date) -> Estimate:
    """Return an estimate with another day's prices; a line without a price becomes unknown."""
    prices = {row.id: row for row in made.prices}
    lines: list[Line] = []
    for line in made.lines:
        old = made.price(line)
        if old is None or line.item not in LAUNCH:
            lines.append(line)
            continue
        row = book.same_price(old, made.model, day)
        usd = row and _amount(row, line.tokens, line.units)
        lines.append(line.model_copy(update={"price": row and row.id, "usd": usd}))
        prices |= {row.id: row} if row else {}
    used = {line.price for line in lines}
    kept = tuple(row for id_, row in prices.items() if id_ in used)
    return made.model_copy(update={"lines": tuple(lines), "prices": kept, "day": day})


def standing_usd(ends: tuple[PriceRow, PriceRow], units: Spread) -> Spread | None:
    """Return the cost of a deployment, or None if its price is not per hour or month.

    `ends` are the cheapest price (low and expected) and the most expensive one (high).
    """
    usd = _amount(ends[0], None, units)
    return usd and Spread(usd.low, usd.expected, max(usd.high, units.high * ends[1].usd))


def machine_assumptions(ends: tuple[PriceRow, PriceRow]) -> tuple[str, ...]:
    """Return an assumption about the machine if hosting prices depend on it."""
    cheap, dear = ends
    if cheap == dear:
        return ()
    assumption = (
        f"hosting depends on the machine: ${cheap.usd:f} {UNIT_NAMES[cheap.per]} ({cheap.tier}, "
        f"expected) to ${dear.usd:f} ({dear.tier})"
    )
    return (assumption,)


def price_of(row: PriceRow) -> Spread:
    """Return a price as a range. If regions differ, the middle is expected."""
    least = row.usd if row.usd_least is None else row.usd_least
    return Spread(least, (least + row.usd) / 2, row.usd)


def _training(job: Job, prices: PriceLookup, tokens: Count | None, passes: Count) -> Line:
    row = prices.find("training")
    if row is not None and row.per == "million-tokens":
        return _line("training", row, tokens=tokens and tokens * passes)
    hours = job.budget and job.budget.hours
    by_hour = hours is not None and row is not None and row.per == "hour"
    return _line(
        "training",
        row,
        units=Spread(Decimal(0), hours, hours) if hours is not None and by_hour else None,
        because="it is charged by the hour; set the maximum in budget.hours",
    )


def _validation(  # noqa: PLR0913, PLR0917 - everything that it depends on
    job: Job,
    terms: Terms,
    prices: PriceLookup,
    rows: Tally,
    passes: Count,
    assumptions: list[str],
) -> Iterator[Line]:
    rules, limits = terms.billing, terms.limits
    if not len(rows) or limits.validation_rows_most == 0 or rules.validation == "free":
        return
    row = prices.validation()
    charged = billing.validation_passes(job, job.backend, rules, passes)
    if charged.count == Count() or (row is not None and row.per != "million-tokens"):
        return
    assumptions += charged.because
    tokens = billing.pass_tokens(job, job.backend, rules, limits.row_tokens, rows).count
    yield _line("validation", row, tokens=tokens and charged.count and tokens * charged.count)


def _graders(job: Job, prices: PriceLookup) -> Iterator[Line]:
    """Yield the line of a grader that may call a model, whose output length is unknown."""
    if job.method != "rft":
        return
    row = prices.find("grader")
    if row is not None and not row.usd:
        yield _line("graders", row)
        return
    grader = job.options.get(job.backend, {}).get("grader")
    if grader is None and all(isinstance(reward, OpenAIGrader) for reward in job.rewards):
        return  # unitune's own rewards call no model
    kind = grader.get("type") if isinstance(grader, dict) else None
    if kind not in NO_MODEL_GRADERS:
        yield Line(item="graders", because="the tokens of a grader that calls a model are unknown")


def _evaluation(  # noqa: PLR0913 - everything that a cost depends on
    job: Job,
    prices: PriceLookup,
    work: Workload,
    *,
    others: Mapping[str, Workload],
    trained: Mapping[str, Job],
    assumptions: list[str],
) -> Iterator[Line]:
    for spec in job.evaluate.requested:
        if isinstance(spec, Recorded):
            continue
        tokens = contender_tokens(spec, job, others.get(spec.name, work))
        lookup, deployment = prices, None
        if isinstance(spec, Tuned):
            if spec.name in trained:
                lookup = prices.of_training(trained[spec.name])
            elif spec.run is not None:
                where = f"tuned from {job.base_model} on {job.backend}"
                assumptions.append(f"the model of {spec.name} is priced as if {where}")
            # Every run of a sweep answers the dev rows, and the chosen run answers the test rows.
            number = 1 if spec.run else 1 + len(job.variants())
            deployment = _deployment(lookup, number, assumptions)
        yield _contender(spec, tokens, job, lookup, deployment)


def _contender(
    spec: ContenderSpec,
    tokens: ContenderTokens,
    job: Job,
    prices: PriceLookup,
    deployment: Line | None,
) -> Line:
    line = Line(item="evaluation", what=spec.name, tokens=tokens.prompt + tokens.answer)
    usd, price = _answers_usd(spec, tokens, job, prices)
    if usd is not None:
        usd += deployment.usd if deployment and deployment.usd else Spread.of(Decimal(0))
        return line.model_copy(update={"usd": usd, "price": price})
    if isinstance(spec, Server):
        return line.model_copy(update={"because": "set its price under evaluate.prices"})
    # Without an hourly price, answers are paid per token, and that price is unknown.
    if deployment is None:
        return line.model_copy(update={"because": "its price is unknown"})
    return deployment.model_copy(update={"what": line.what, "tokens": line.tokens})


def _answers_usd(
    spec: ContenderSpec, tokens: ContenderTokens, job: Job, prices: PriceLookup
) -> tuple[Spread | None, str | None]:
    """Return the cost of answers priced per token and the id of the price, or None if unknown."""
    given = job.evaluate.price_of(spec, job.base_model)
    read = written = None
    if isinstance(spec, Model):
        prices = replace(prices, backend=spec.backend, model=spec.model, tier=None)
    if not isinstance(spec, Server):
        tuned = isinstance(spec, Tuned)
        read, written = prices.tokens("input", tuned=tuned), prices.tokens("output", tuned=tuned)
    if read is not None and written is not None:
        known = TokenPrice(input=read.usd, output=written.usd)
        given = given and given.at_least(known)
        if given in (None, known):
            usd = _per_million(tokens.prompt, price_of(read))
            return usd + _per_million(tokens.answer, price_of(written)), written.id
    if given is None:
        return None, None
    usd = _per_million(tokens.prompt, Spread.of(given.input))
    return usd + _per_million(tokens.answer, Spread.of(given.output)), None


def _deployment(prices: PriceLookup, number: int, assumptions: list[str]) -> Line | None:
    """Return the line of a deployment that answers, or None if none is paid by the hour."""
    ends = prices.hosting()
    if ends is None or not ends[1].usd or ends[0].per not in ("hour", "gpu-hour"):
        return None
    assumptions.append(f"one deployment of {EVALUATION_HOURS} hours answers the cases")
    if number > 1:
        assumptions.append(
            f"each of the {number - 1} runs of the sweep also has one, for the dev rows"
        )
    return _standing("evaluation", ends, EVALUATION_HOURS * number, assumptions)


def _monthly(job: Job, prices: PriceLookup, assumptions: list[str]) -> Iterator[Line]:
    ends = prices.hosting()
    if ends is not None and ends[0].per == "month":
        yield _standing("hosting", ends, Decimal(1), assumptions)
    elif ends is not None:
        hours = HOURS_A_MONTH * job.usage.hosting_hours_day / 24
        if ends[1].usd:
            assumptions.append(f"a deployment runs {hours:.0f} hours a month, used or not")
        yield _standing("hosting", ends, hours, assumptions)
    row = prices.find("storage")
    if row is not None:
        flat = Spread.of(Decimal(1)) if row.per == "month" else None
        yield _line("storage", row, units=flat, because="the size of the model is unknown")


def _standing(
    item: Item, ends: tuple[PriceRow, PriceRow], units: Decimal, assumptions: list[str]
) -> Line:
    assumptions += machine_assumptions(ends)
    spread = Spread.of(units)
    line = _line(item, ends[0], units=spread)
    return line.model_copy(update={"usd": standing_usd(ends, spread)})


def _line(
    item: Item,
    row: PriceRow | None,
    *,
    tokens: Count | None = None,
    units: Spread | None = None,
    because: str = "its number of tokens is unknown",
) -> Line:
    if row is None:
        return Line(item=item, tokens=tokens, units=units, because="its price is unknown")
    usd = _amount(row, tokens, units)
    reason = because if usd is None else ""
    return Line(item=item, tokens=tokens, units=units, price=row.id, usd=usd, because=reason)


def _amount(row: PriceRow, tokens: Count | None, units: Spread | None) -> Spread | None:
    if row.usd == 0:
        return Spread.of(Decimal(0))
    if row.per == "million-tokens":
        return tokens and _per_million(tokens, price_of(row))
    return units and units * price_of(row)


def _per_million(tokens: Count, usd: Spread) -> Spread:
    millions = (tokens.low / MILLION, tokens.expected / MILLION, tokens.high / MILLION)
    return Spread(*millions) * usd


def _sources(rows: Sequence[PriceRow]) -> Iterator[str]:
    sources: dict[tuple[date, str, str], list[str]] = {}
    for row in rows:
        price = f"{'tuned ' if row.tuned else ''}{row.kind} {row.rate}"
        sources.setdefault((row.as_of, row.source_kind, row.source), []).append(price)
    for (as_of, kind, source), rates in sources.items():
        trust = "third party, low trust" if kind == "third-party" else kind
        yield f"{', '.join(rates)}: as of {as_of} ({trust}: {source})"
