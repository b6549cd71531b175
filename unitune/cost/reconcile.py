"""Compare the bill of a run with its estimate, and narrow later estimates.

A bill shows where in the range of tokens the truth is. Three bills that agree narrow the range.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from statistics import median
from typing import Literal

from unitune.backends.offer import Billing
from unitune.cost.documents import Estimate, Line
from unitune.cost.spread import MILLION, Spread
from unitune.cost.tokens import Count
from unitune.documents import Frozen
from unitune.job.prices import PriceRow

End = Literal["succeeded", "failed", "cancelled"]
SIX_PLACES = Decimal("0.000001")
LEAST_BILLS = 3  # fewer show no pattern
IMPLAUSIBLE = 10  # a bill above this multiple of the high estimate is considered wrong
# An amount up to this may be a vendor's minimum charge, however small the estimate
MINIMUM_CHARGE_USD = Decimal(10)


class Bill(Frozen):
    """Cost of a run as far as the vendor states it."""

    tokens: int | None = None
    """Trained tokens of all epochs."""
    usd: Decimal | None = None
    hours: Decimal | None = None
    """Duration of the training by the ledger's clock."""
    saved_hours: Decimal | None = None
    """Part of the hours until the last checkpoint; None if no checkpoint was seen."""
    share: Decimal | None = None
    """Fraction of the steps done, from 0 to 1."""


class Lesson(Frozen):
    """Lesson from one bill."""

    basis: str
    """Tokenizer that counted the tokens."""
    position: Decimal | None
    """Position of one epoch's tokens between low (0) and high (1); None if there was no range."""
    epochs_beside: int | None
    """Epochs minus expected epochs, if the vendor chose them."""


class Reconciliation(Frozen):
    """Bill compared with its estimate."""

    end: End
    provisional: bool
    """True if no bill states the charge and the vendor's rules were applied."""
    bill: Bill
    usd: Decimal | None
    """Cost of the training, as billed or computed from tokens; None if unknown."""
    estimated_usd: Spread | None
    estimated_tokens: Count | None
    """Tokens of all epochs."""
    epochs: int | None = None
    """Whole number of epochs that fits the bill best."""
    implied_epochs: Decimal | None = None
    """Billed tokens divided by our count of one epoch."""
    framing_error: Decimal | None = None
    """Billed minus counted tokens, per row and epoch."""
    price_drift: Decimal | None = None
    """Billed price per token divided by our price, minus one."""
    lesson: Lesson | None = None
    implausible: bool = False
    """True if the bill is below one token per row or far above the estimate.

    It is shown, but it is neither the run's cost nor used for later estimates.
    """

    @property
    def above_high(self) -> bool:
        """True if the run cost more than the high estimate."""
        usd, most = self.usd, self.estimated_usd
        return usd is not None and most is not None and usd > most.high


def reconcile(made: Estimate, bill: Bill, end: End, rules: Billing) -> Reconciliation:
    """Compare a bill with the estimate of its run. The rules price runs that did not succeed."""
    training = made.of("training")[0]
    stated, bill = bill, _believed(made, bill, end)
    result = Reconciliation(
        end=end,
        provisional=bill.usd is None and (end != "succeeded" or bill.tokens is None),
        bill=stated,
        usd=_charged(made, training, bill, end, rules),
        estimated_usd=made.launch_usd,
        estimated_tokens=made.trained_tokens,
        implausible=bill != stated,
    )
    epoch = made.counted_tokens
    if bill.tokens is None or end != "succeeded" or epoch is None or not epoch.expected:
        return result
    epochs = _whole_epochs(epoch, made.counted_epochs, bill.tokens)
    per_epoch = Decimal(bill.tokens) / epochs
    differences = {
        "epochs": epochs,
        "implied_epochs": _rounded(Decimal(bill.tokens) / epoch.expected),
        "framing_error": _rounded((per_epoch - epoch.expected) / max(made.rows, 1)),
        "price_drift": _price_drift(made.price(training), bill.tokens, bill.usd),
        "lesson": _lesson(made, epoch, epochs, per_epoch),
    }
    return result.model_copy(update=differences)


def _believed(made: Estimate, bill: Bill, end: End) -> Bill:
    tokens, usd = bill.tokens, bill.usd
    most_tokens, most_usd = made.trained_tokens, made.launch_usd
    if tokens is not None and most_tokens is not None and most_tokens.high:
        too_few = end == "succeeded" and tokens < made.rows
        tokens = None if too_few or tokens > IMPLAUSIBLE * most_tokens.high else tokens
    if usd is not None and most_usd is not None and most_usd.high:
        usd = None if usd > max(MINIMUM_CHARGE_USD, IMPLAUSIBLE * most_usd.high) else usd
    return bill.model_copy(update={"tokens": tokens, "usd": usd})


def _charged(
    made: Estimate, training: Line, bill: Bill, end: End, rules: Billing
) -> Decimal | None:
    if bill.usd is not None:
        return bill.usd
    row = made.price(training)
    if end != "succeeded":
        rule = rules.failed if end == "failed" else rules.cancelled
        return _by_rule(made.launch_usd, row, bill, rule)
    if row is None:
        return None
    if row.per != "million-tokens":
        return None if bill.hours is None else bill.hours * row.usd
    if bill.tokens is None:
        return None
    beside = (*made.of("validation"), *made.of("sampling"))
    others = Spread.total(line.usd for line in beside if line.usd)
    usd = bill.tokens * row.usd / MILLION + others.expected
    return max(usd, made.minimum_usd or usd)


def _by_rule(
    estimated: Spread | None,
    row: PriceRow | None,
    bill: Bill,
    rule: Literal["completed-steps", "to-checkpoint", "nothing", "everything"] | None,
) -> Decimal | None:
    """Return what a vendor's rule charges for a training that did not succeed.

    If no checkpoint was seen, one may have been written at the very end, so all hours count.
    """
    if rule == "nothing":
        return Decimal(0)
    if rule in ("completed-steps", "to-checkpoint") and row is not None and row.per == "hour":
        saved = bill.saved_hours if rule == "to-checkpoint" else None
        hours = bill.hours if saved is None else saved
        return None if hours is None else hours * row.usd
    if estimated is None or rule is None:
        return None
    if rule == "everything":
        return estimated.expected
    return None if bill.share is None else estimated.expected * bill.share


def _whole_epochs(epoch: Count, chosen: Count, billed: int) -> int:
    if chosen.exact:
        return max(chosen.expected, 1)
    fitting = [
        number
        for number in range(max(chosen.low, 1), chosen.high + 1)
        if epoch.low * number <= billed <= epoch.high * number
    ]
    nearest = max(1, round(billed / epoch.expected))
    return min(fitting, key=lambda number: abs(epoch.expected * number - billed), default=nearest)


def _price_drift(row: PriceRow | None, tokens: int, usd: Decimal | None) -> Decimal | None:
    if usd is None or row is None or row.per != "million-tokens" or not row.usd:
        return None
    return _rounded(usd / (tokens * row.usd / MILLION) - 1)


def _lesson(made: Estimate, epoch: Count, epochs: int, per_epoch: Decimal) -> Lesson:
    width, chosen = epoch.high - epoch.low, made.counted_epochs
    return Lesson(
        basis=made.basis,
        position=_rounded((per_epoch - epoch.low) / width) if width else None,
        epochs_beside=None if chosen.exact else epochs - chosen.expected,
    )


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(SIX_PLACES, rounding=ROUND_HALF_EVEN)


def narrowed_tokens(counted: Count, lessons: Sequence[Lesson]) -> Count:
    """Return the tokens of one epoch, narrowed by earlier bills."""
    width = counted.high - counted.low
    positions = [lesson.position for lesson in lessons if lesson.position is not None]
    return _narrowed(counted, [counted.low + round(width * position) for position in positions])


def narrowed_epochs(charged: Count, lessons: Sequence[Lesson]) -> Count:
    """Return the epochs, narrowed by the vendor's earlier choices."""
    beside = [lesson.epochs_beside for lesson in lessons if lesson.epochs_beside is not None]
    return _narrowed(charged, [charged.expected + more for more in beside])


def _narrowed(count: Count, seen: Sequence[int]) -> Count:
    """Return the range observed. A bill outside the estimated range shows that it was wrong."""
    if count.exact or len(seen) < LEAST_BILLS:
        return count
    if min(seen) < count.low or max(seen) > count.high:
        return count
    return Count(min(seen), round(median(seen)), max(seen))
