"""Compute the cost of an attempt from its duration and events, and read its vendor's bill."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from pydantic import JsonValue

from unitune.backends.protocol import Event, State, Status
from unitune.cost.documents import Estimate
from unitune.cost.reconcile import Bill
from unitune.cost.spread import MILLION, cents
from unitune.cost.tokens import Count
from unitune.ledger.ledger import Ledger
from unitune.ledger.records import RunRecord

BILL = "run.billed"  # key of the event with the bill
EPOCHS = "run.epochs"  # key of the event with the number of epochs that the vendor chose
SECONDS_AN_HOUR = Decimal(3600)


def billing_events(status: Status, now: float) -> Iterator[Event]:
    """Yield the epochs that a poll reports and, after the end of the job, its bill.

    The bill may change before the end. Negative values are unknown.
    """
    if status.epochs is not None and status.epochs > 0:
        yield Event(EPOCHS, "message", now, {"epochs": status.epochs})
    if not status.state.ended:
        return
    data: dict[str, JsonValue] = {}
    words: list[str] = []
    if status.billed_tokens is not None and status.billed_tokens >= 0:
        data["tokens"] = status.billed_tokens
        words.append(f"{status.billed_tokens:,} trained tokens")
    if status.billed_usd is not None and status.billed_usd >= 0:
        data["usd"] = str(status.billed_usd)
        words.append(f"${status.billed_usd}")
    if data:
        text = f"billed: {' and '.join(words)}"
        yield Event(BILL, "message", now, {"text": text, **data})


def running_seconds(ledger: Ledger, record: RunRecord, until: float | None = None) -> float:
    """Return the seconds that an attempt was running until a time, by default now."""
    end = ledger.now() if until is None else until
    states = [seen for seen in ledger.transitions(record.id) if seen.attempt == record.attempt]
    ends = [*(seen.time for seen in states[1:]), end]
    return sum(
        max(min(over, end) - seen.time, 0.0)
        for seen, over in zip(states, ends, strict=False)
        if seen.state in (State.RUNNING, State.CANCELLING)
    )


def costs_so_far(
    estimate: Estimate, events: Iterable[Event], seconds: float
) -> Iterator[tuple[Decimal, str]]:
    """Yield minimum costs of a training so far, in US dollars and in words."""
    row = estimate.price(estimate.of("training")[0])
    if row is not None and row.per == "hour":
        usd = row.usd * Decimal(seconds) / SECONDS_AN_HOUR
        yield usd, f"by the hourly price, ${cents(usd)} are spent at the next poll"
    tokens, most = estimate.epoch_tokens, estimate.launch_usd
    if tokens is None:
        return
    share = _share_done(events)
    if share is not None and most is not None:
        usd = most.high * share
        yield usd, f"about ${cents(usd)} are spent"
    epochs = next((event.data.get("epochs") for event in events if event.key == EPOCHS), None)
    if isinstance(epochs, int) and row is not None and row.per == "million-tokens":
        usd = (tokens * Count.of(epochs)).expected * row.usd / MILLION
        yield usd, f"the vendor trains more epochs than estimated, for ${cents(usd)}"


def bill_of(ledger: Ledger, record: RunRecord) -> Bill:
    """Return the vendor's bill for an attempt, and the facts to estimate one."""
    events = [seen.event for seen in ledger.events(record.id, record.attempt)]
    data = next((event.data for event in events if event.key == BILL), dict[str, JsonValue]())
    tokens, usd = data.get("tokens"), data.get("usd")
    seconds = running_seconds(ledger, record)
    saved = max((event.time for event in events if event.kind == "checkpoint"), default=None)
    saved_seconds = 0.0 if saved is None else running_seconds(ledger, record, saved)
    return Bill(
        tokens=tokens if isinstance(tokens, int) else None,
        usd=Decimal(usd) if isinstance(usd, str) else None,
        hours=Decimal(seconds) / SECONDS_AN_HOUR if seconds else None,
        saved_hours=None if saved is None else Decimal(saved_seconds) / SECONDS_AN_HOUR,
        share=_share_done(events),
    )


def _share_done(events: Iterable[Event]) -> Decimal | None:
    steps = [event for event in events if event.kind == "step"]
    done, total = (steps[-1].number(name) for name in ("step", "steps")) if steps else (None, None)
    return min(Decimal(str(done)) / Decimal(str(total)), Decimal(1)) if done and total else None
