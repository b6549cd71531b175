"""What a job costs at one backend, line by line, each as a range.

    Workload (counted rows) ── billing rules ──► tokens ── price rows ──► lines ──► Estimate

What comes out is `unitune.cost.documents`. Machines of one's own are not here (`Forecasts`), nor
what using a model costs against prompting another (`unitune.tco`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from unitune.backends.offer import Offer
from unitune.cost import billing
from unitune.cost.answers import Asked, asked, asks_a_model
from unitune.cost.documents import LAUNCH, Estimate, Item, Line
from unitune.cost.narrowing import Narrowing
from unitune.cost.prices.book import PriceBook
from unitune.cost.spread import Spread
from unitune.cost.tokens import Count
from unitune.cost.workload import Workload
from unitune.job.contenders import ContenderSpec, FewShot, Instructed, Model, Server, ZeroShot
from unitune.job.job import Job
from unitune.job.prices import Kind, PriceRow, Unit

HOURS_A_MONTH = Decimal(730)
"""365 days of 24 hours in 12 months."""
EVALUATION_HOURS = Decimal(2)
"""How long a deployment stands when nobody says (`unitune.run.deploying.DEFAULT_SECONDS`)."""
MILLION = Decimal(1_000_000)
UNIT_NAMES: dict[Unit, str] = {
    "million-tokens": "a million tokens",
    "hour": "an hour",
    "gpu-hour": "an hour of a GPU",
    "month": "a month",
    "gb-month": "a gigabyte and month",
}
NOT_ASKED = ("string_check", "text_similarity", "python")
"""Graders that ask no model."""


@dataclass(frozen=True, slots=True)
class _Priced:
    """Looks up prices, and remembers which it found.

    Args:
        offer: Of the backend.
        job: Its base model and method.
        book: All prices.
        day: Whose.
        used: What was found, by id.
    """

    offer: Offer
    job: Job
    book: PriceBook
    day: date
    used: dict[str, PriceRow]

    def find(
        self, kind: Kind, *, model: str | None = None, at: str | None = None, tuned: bool = False
    ) -> PriceRow | None:
        row = self.book.find(
            at or self.offer.name,
            model or self.job.base_model,
            kind,
            method=self.job.method,
            tier=None
            if at or model
            else self.offer.tier(self.job.options.get(self.offer.name, {})),
            tuned=tuned,
            on=self.day,
        )
        if row is not None:
            self.used[row.id] = row
        return row

    def hosting(self) -> tuple[PriceRow, PriceRow] | None:
        """Return the cheapest and the dearest row that may apply, as the machine is not named."""
        tier = self.offer.tier(self.job.options.get(self.offer.name, {}))
        ends = self.book.hosting(self.offer.name, self.job.base_model, tier=tier, on=self.day)
        self.used.update((row.id, row) for row in ends or ())
        return ends


def estimate(  # noqa: PLR0913 - what a cost depends on
    job: Job,
    offer: Offer,
    work: Workload,
    book: PriceBook,
    day: date,
    *,
    others: Mapping[str, Workload] | None = None,
    learnt: Narrowing | None = None,
) -> Estimate:
    """Return what a job costs, and what it is reckoned from.

    Args:
        job: Its model, method, tuning, contenders and use.
        offer: Of the job's backend.
        work: The job's rows, as the base model counts them.
        book: Prices.
        day: Whose prices to take.
        others: Rows as the models of other contenders count them, by contender.
        learnt: What earlier runs of the same model have shown.
    """
    priced = _Priced(offer, job, book, day, {})
    rules = offer.billing_for(job.base_model)
    epochs = billing.epochs(job, offer.name, rules, len(work.train))
    limit = offer.limits_for(job.base_model).row_tokens
    tokens = billing.training_tokens(job, offer.name, rules, limit, work.train)
    said = [*work.assumptions, *tokens.because, *epochs.because]
    passes, charged = epochs.count or Count.of(1), tokens.count
    if learnt is not None:
        passes, charged = learnt.epochs(passes), charged and learnt.tokens(charged)
        said += learnt.assumptions
    lines = [_training(priced, charged, passes)]
    lines += _validation(priced, work, passes, said)
    lines += _graders(job)
    if job.data.test is not None:
        lines += _evaluation(priced, work, others or {}, said)
    lines += _monthly(priced, work, said)
    said += _sources(priced.used.values())
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
        prices=tuple(priced.used.values()),
        minimum_usd=rules.minimum_usd,
        assumptions=tuple(dict.fromkeys(said)),
    )


def answer_lines(  # noqa: PLR0913 - what a cost depends on
    job: Job,
    offer: Offer,
    work: Workload,
    book: PriceBook,
    day: date,
    *,
    others: Mapping[str, Workload] | None = None,
) -> tuple[Line, ...]:
    """Return what the answers of each contender cost, the search for its prompt on dev included.

    Args:
        job: Its contenders.
        offer: Of the job's backend.
        work: The job's rows, as the base model counts them.
        book: Prices.
        day: Whose prices to take.
        others: Rows as the models of other contenders count them, by contender.
    """
    return tuple(_evaluation(_Priced(offer, job, book, day, {}), work, others or {}, []))


def repriced(made: Estimate, book: PriceBook, day: date) -> Estimate:
    """Return an estimate of the same work with the prices of another day.

    What has no price any more is unknown.
    """
    fresh: dict[str, PriceRow] = {}
    lines: list[Line] = []
    for line in made.lines:
        old = made.price(line)
        row = old and book.find(
            old.backend,
            made.model,
            old.kind,
            method=old.method,
            tier=old.tier,
            tuned=old.tuned,
            on=day,
        )
        if old is None or line.item not in LAUNCH:
            lines.append(line)
            continue
        if row is not None:
            fresh[row.id] = row
        usd = row and _amount(row, line.tokens, line.units)
        lines.append(line.model_copy(update={"price": row and row.id, "usd": usd}))
    kept = {row.id: row for row in made.prices if any(row.id == line.price for line in lines)}
    return made.model_copy(
        update={"lines": tuple(lines), "prices": tuple((kept | fresh).values()), "day": day}
    )


def _training(priced: _Priced, tokens: Count | None, passes: Count) -> Line:
    row = priced.find("training")
    if row is None:
        return Line(item="training", because="no price is known")
    if row.per == "million-tokens":
        trained = tokens and billing.times(tokens, passes)
        return _line("training", row, tokens=trained, because="its tokens are not known")
    budget = priced.job.budget
    hours = budget and budget.hours
    spread = None
    if hours is not None and row.per == "hour":
        spread = Spread(Decimal(0), hours, hours)
    return _line(
        "training",
        row,
        units=spread,
        because="it is charged by the hour; say how many it may take under budget.hours",
    )


def _validation(priced: _Priced, work: Workload, passes: Count, said: list[str]) -> Iterator[Line]:
    job, offer = priced.job, priced.offer
    limits, rules = offer.limits_for(job.base_model), offer.billing_for(job.base_model)
    if not len(work.validation) or limits.validation_rows_most == 0 or rules.validation == "free":
        return
    row = priced.find("validation") or priced.find("training")
    if row is not None and row.per != "million-tokens":
        return
    charged = billing.validation_passes(job, offer.name, rules, passes)
    if charged.count == Count():
        return
    said += charged.because
    tokens = billing.pass_tokens(job, offer.name, rules, limits.row_tokens, work.validation).count
    total = tokens and charged.count and billing.times(tokens, charged.count)
    yield _line("validation", row, tokens=total, because="its tokens are not known")


def _graders(job: Job) -> Iterator[Line]:
    """Yield the line of a grader that may ask a model; how much it writes nobody can know."""
    if job.method != "rft":
        return
    grader = job.options.get(job.backend, {}).get("grader")
    kind = grader.get("type") if isinstance(grader, dict) else None
    if kind not in NOT_ASKED:
        yield Line(item="graders", because="what a grader that asks a model reads and writes")


def _evaluation(
    priced: _Priced, work: Workload, others: Mapping[str, Workload], said: list[str]
) -> Iterator[Line]:
    for spec in priced.job.evaluate.contenders:
        if asks_a_model(spec):
            tokens = asked(spec, priced.job, others.get(spec.name, work))
            yield _contender(priced, spec, tokens, said)


def _contender(priced: _Priced, spec: ContenderSpec, tokens: Asked, said: list[str]) -> Line:
    line = Line(item="evaluation", what=spec.name, tokens=tokens.prompt + tokens.answer)
    tuned = not isinstance(spec, ZeroShot | Instructed | FewShot | Model | Server)
    standing = _deployed(priced, said) if tuned else None
    usd, price = _answers_usd(priced, spec, tokens, tuned=tuned)
    if usd is not None:
        usd += standing.usd if standing and standing.usd else Spread.of(Decimal(0))
        return line.model_copy(update={"usd": usd, "price": price})
    if isinstance(spec, Server):
        return line.model_copy(update={"because": "give its price under evaluate.prices"})
    # Without a price by the hour answers are paid by the token, and that price is not known.
    if standing is None:
        return line.model_copy(update={"because": "no price is known"})
    return standing.model_copy(update={"what": line.what, "tokens": line.tokens})


def _answers_usd(
    priced: _Priced, spec: ContenderSpec, tokens: Asked, *, tuned: bool
) -> tuple[Spread | None, str | None]:
    """Return what answers cost by the token, and the id of their price; None: not known."""
    own, model = priced.job.evaluate.prices, _asked_model(priced.job, spec)
    said = own.get(spec.name) or own.get(model)
    if said is not None:
        return _both_usd(tokens, Spread.of(said.input), Spread.of(said.output)), None
    if isinstance(spec, Server):
        return None, None
    at = spec.backend if isinstance(spec, Model) else None
    read = priced.find("input", model=model, at=at, tuned=tuned)
    written = priced.find("output", model=model, at=at, tuned=tuned)
    if read is None or written is None:
        return None, None
    return _both_usd(tokens, price_of(read), price_of(written)), written.id


def _both_usd(tokens: Asked, read: Spread, written: Spread) -> Spread:
    return _tokens_usd(tokens.prompt, read) + _tokens_usd(tokens.answer, written)


def _deployed(priced: _Priced, said: list[str]) -> Line | None:
    """Return the line of the deployment that answers; None where none is paid by the hour."""
    ends = priced.hosting()
    if ends is None or not ends[1].usd or ends[0].per not in ("hour", "gpu-hour"):
        return None
    said.append(f"a deployment of {EVALUATION_HOURS} hours answers the cases")
    return _standing("evaluation", ends, Spread.of(EVALUATION_HOURS), said)


def _asked_model(job: Job, spec: ContenderSpec) -> str:
    return spec.model if isinstance(spec, Model | Server) else job.base_model


def _monthly(priced: _Priced, work: Workload, said: list[str]) -> Iterator[Line]:
    hosting = priced.hosting()
    if hosting is not None:
        yield _hosting(priced.job, hosting, said)
    row = priced.find("storage")
    if row is not None:
        flat = Spread.of(Decimal(1)) if row.per == "month" else None
        yield _line("storage", row, units=flat, because="how large the model gets is not known")
    if "usage" in priced.job.model_fields_set:
        yield _inference(priced, work, said)


def _hosting(job: Job, ends: tuple[PriceRow, PriceRow], said: list[str]) -> Line:
    if ends[0].per == "month":
        return _standing("hosting", ends, Spread.of(Decimal(1)), said)
    hours = HOURS_A_MONTH
    if "usage" in job.model_fields_set:
        hours = HOURS_A_MONTH * job.usage.hosting_hours_day / 24
    if ends[1].usd:
        said.append(f"a deployment stands {hours:.0f} hours a month, used or not")
    return _standing("hosting", ends, Spread.of(hours), said)


def _standing(item: Item, ends: tuple[PriceRow, PriceRow], units: Spread, said: list[str]) -> Line:
    """Return the line of what stands for so long, at the cheapest price up to the dearest."""
    cheap, dear = ends
    if cheap != dear:
        said.append(
            f"hosting depends on the machine: from ${cheap.usd:f} {UNIT_NAMES[cheap.per]} "
            f"({cheap.tier}), which is expected, to ${dear.usd:f} ({dear.tier})"
        )
    line = _line(item, cheap, units=units)
    if line.usd is None:
        return line
    high = units.high * dear.usd
    return line.model_copy(update={"usd": Spread(line.usd.low, line.usd.expected, high)})


def _inference(priced: _Priced, work: Workload, said: list[str]) -> Line:
    usage = priced.job.usage
    rows = work.test if len(work.test) else work.train
    prompt = rows.prompts.mean if usage.tuned_tokens == "auto" else Count.of(usage.tuned_tokens)
    answer = rows.answers.mean if usage.answer_tokens == "auto" else Count.of(usage.answer_tokens)
    requests = Count.of(usage.requests_month)
    read, written = priced.find("input", tuned=True), priced.find("output", tuned=True)
    tokens = billing.times(prompt + answer, requests)
    if read is None or written is None:
        return Line(item="inference", tokens=tokens, because="no price of answers is known")
    usd = _tokens_usd(billing.times(prompt, requests), price_of(read)) + _tokens_usd(
        billing.times(answer, requests), price_of(written)
    )
    said.append(
        f"{usage.requests_month:,} requests a month, none of them cached; `unitune cost` says more"
    )
    return Line(item="inference", tokens=tokens, price=written.id, usd=usd)


def _line(
    item: Item,
    row: PriceRow | None,
    *,
    tokens: Count | None = None,
    units: Spread | None = None,
    because: str = "",
) -> Line:
    if row is None:
        return Line(item=item, tokens=tokens, units=units, because="no price is known")
    usd = _amount(row, tokens, units)
    reason = because if usd is None else ""
    return Line(item=item, tokens=tokens, units=units, price=row.id, usd=usd, because=reason)


def _amount(row: PriceRow, tokens: Count | None, units: Spread | None) -> Spread | None:
    if row.per == "million-tokens":
        return tokens and _tokens_usd(tokens, price_of(row))
    if row.usd == 0:
        return Spread.of(Decimal(0))
    return units and units * price_of(row)


def price_of(row: PriceRow) -> Spread:
    """Return a price as a range; the middle is expected where regions differ."""
    least = row.usd if row.usd_least is None else row.usd_least
    return Spread(least, (least + row.usd) / 2, row.usd)


def _tokens_usd(tokens: Count, usd: Spread) -> Spread:
    """Return the price of tokens at so much a million."""
    millions = (tokens.low / MILLION, tokens.expected / MILLION, tokens.high / MILLION)
    return Spread(*millions) * usd


def _sources(rows: Iterable[PriceRow]) -> Iterator[str]:
    """Yield where prices come from, a sentence for each source and day."""
    told: dict[tuple[date, str, str], list[str]] = {}
    for row in rows:
        what = f"tuned {row.kind}" if row.tuned else row.kind
        price = f"{what} {row.amount} {UNIT_NAMES[row.per]}"
        told.setdefault((row.as_of, row.source_kind, row.source), []).append(price)
    for (as_of, kind, source), prices in told.items():
        trust = "third party, low trust" if kind == "third-party" else kind
        yield f"{', '.join(prices)}: as of {as_of} ({trust}: {source})"
