"""Estimate what a job costs on one backend, line by line, as ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import cast

from unitune.backends.offer import Terms
from unitune.cost import billing
from unitune.cost.billing import Tally, Workload
from unitune.cost.documents import LAUNCH, Estimate, Item, Line
from unitune.cost.evaluation import ContenderTokens, contender_tokens, reward_tokens
from unitune.cost.machine_hours import hours_of
from unitune.cost.prices.book import PriceBook, PriceLookup
from unitune.cost.reconcile import LEAST_BILLS, Lesson, narrowed_epochs, narrowed_tokens
from unitune.cost.spread import MILLION, Spread
from unitune.cost.step_tokens import StepTokens, step_tokens
from unitune.cost.tokens import Count
from unitune.job.contenders import ContenderSpec, Model, Recorded, Server, Tuned, model_of
from unitune.job.job import Job, TokenPrice
from unitune.job.prices import UNIT_NAMES, Kind, PriceRow
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
    prices = PriceLookup(book, offer.name, job.base_model, day, job.method).with_options(job)
    epochs = billing.epochs(job, offer.name, rules, len(work.train))
    tokens = billing.training_tokens(job, offer.name, rules, terms.limits.row_tokens, work.train)
    trains = job.data.train is not None
    steps = None
    if rules.checkpoint_usd is not None and trains:
        steps = step_tokens(job, rules, work.train, work.validation, epochs.count or Count.of(1))
        tokens = billing.Charged(steps.epoch, steps.because)
    priced = trains and (offer.training_price != "none" or bool(job.judged_rewards))
    assumptions = [*work.assumptions, *(tokens.because + epochs.because if priced else ())]
    passes, charged = epochs.count or Count.of(1), tokens.count
    fitting = [lesson for lesson in lessons if lesson.basis == work.basis]
    if len(fitting) >= LEAST_BILLS:
        passes = narrowed_epochs(passes, fitting)
        charged = charged and narrowed_tokens(charged, fitting)
        assumptions.append(f"narrowed with the bills of {len(fitting)} earlier runs of this model")
    lines: list[Line] = []
    if trains and offer.training_price == "none":
        lines.append(Line(item="training", usd=Spread.of(Decimal(0))))
        lines += _judges(job, prices, work, passes)
    elif trains:
        lines.append(_training(job, prices, charged and charged * passes))
        if steps is not None:
            lines += _steps(prices, steps)
        else:
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


def _training(job: Job, prices: PriceLookup, tokens: Count | None) -> Line:
    """Return the line of a training with so many tokens in all epochs."""
    row = prices.find("training")
    is_rented = prices.book.offer(prices.backend).trains_on == "rented"
    if row is None and is_rented and (row := prices.find("machine")) is None:
        because = "its price depends on the cloud: add the machine's to prices.yaml"
        return Line(item="training", tokens=tokens, because=because)
    if row is not None and row.per == "million-tokens":
        return _line("training", row, tokens=tokens)
    because = "it is charged by the hour; set the maximum in budget.hours"
    if row is None or row.per != "hour":
        return _line("training", row, because=because)
    return _line("training", row, units=hours_of(job, prices, tokens), because=because)


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


def _steps(prices: PriceLookup, steps: StepTokens) -> Iterator[Line]:
    """Yield the lines of validation and of sampling at a vendor that sells steps."""
    if steps.validation.high:
        yield _line("validation", prices.validation(), tokens=steps.validation)
    asked: tuple[tuple[Kind, Count], ...] = (("input", steps.read), ("output", steps.written))
    for kind, tokens in asked:
        if tokens.high:
            line = _line("sampling", prices.tokens(kind, tuned=True), tokens=tokens)
            yield line.model_copy(update={"what": "read" if kind == "input" else "written"})


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
        yield _graded(job, prices, sorted(_grading_models(grader)))


def _grading_models(grader: object) -> set[str]:
    """Return the models that a grader, or a part of it, calls."""
    if not isinstance(grader, dict):
        return set()
    content = cast("dict[str, object]", grader)
    parts = content.get("graders")
    inner = cast("dict[str, object]", parts).values() if isinstance(parts, dict) else ()
    models = {content["model"]} if isinstance(content.get("model"), str) else set[object]()
    return {str(model) for model in models}.union(*map(_grading_models, inner))


def _graded(job: Job, prices: PriceLookup, models: Sequence[str]) -> Line:
    """Return the line of a model that grades, with the tokens that the job expects.

    Source of the formula: MicrosoftDocs/azure-ai-docs, fine-tuning cost management, 2026-10-05:
    input tokens x price + output tokens x price, besides the hours of training.
    """
    option = f"options.{job.backend}.grader_tokens"
    given = job.options.get(job.backend, {}).get("grader_tokens")
    if not isinstance(given, dict) or len(models) != 1:
        return Line(
            item="graders",
            because=f"the tokens of a grader that calls a model are unknown; set {option}",
        )
    tier = prices.book.offer(job.backend).billing.grader_tier
    graded = replace(prices, model=models[0], method=None, tier=tier, serving_tier=None)
    read, written = (graded.tokens(kind, tuned=False) for kind in ("input", "output"))
    tokens = [Count.of(int(str(given.get(kind) or 0))) for kind in ("input", "output")]
    line = Line(item="graders", what=models[0], tokens=tokens[0] + tokens[1])
    if read is None or written is None:
        return line.model_copy(update={"because": f"the price of {models[0]} as grader is unknown"})
    usd = _per_million(tokens[0], price_of(read)) + _per_million(tokens[1], price_of(written))
    return line.model_copy(update={"usd": usd, "price": written.id})


def _judges(job: Job, prices: PriceLookup, work: Workload, passes: Count) -> Iterator[Line]:
    """Yield the line of each judge among the rewards; the training pauses at the job's budget."""
    budget = job.budget and job.budget.usd
    for judge in job.judged_rewards:
        tokens = reward_tokens(judge, job, work, passes)
        line = _contender(model_of(judge), tokens, job, prices, None)
        usd = line.usd
        if usd and budget is not None and usd.expected <= budget < usd.high:
            usd = Spread(usd.low, usd.expected, budget)
        yield line.model_copy(update={"item": "graders", "usd": usd})


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
    where = spec.backend if isinstance(spec, Model) else prices.backend
    if given is None and not isinstance(spec, Server) and prices.book.offer(where).is_own:
        return Spread.of(Decimal(0)), None
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
