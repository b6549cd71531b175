"""The bill of a run beside its estimate, and what the difference says of the next estimate.

A bill tells where in our range of tokens the truth lay: at its low end if a vendor does not charge
the tail of the chat template, at its high end if it does, and likewise for characters a token where
no tokenizer was available. Three bills that agree narrow the range to what they have shown.

Of a run that succeeded the vendor's own figures are final. Of one that was cancelled or has failed
vendors charge by their rules, which is provisional here until a person has read the bill.
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
from unitune.job.prices import PriceRow
from unitune.security.spec import Frozen

End = Literal["succeeded", "failed", "cancelled"]
SIX_PLACES = Decimal("0.000001")
LEAST_BILLS = 3  # fewer show no pattern
IMPLAUSIBLE = 10  # times the high estimate; a higher bill is taken for a mistake
# A stated amount up to this may be a vendor's minimum charge, however small the estimate is
MINIMUM_CHARGE_USD = Decimal(10)


class Bill(Frozen):
    """What a vendor states as the cost of a run, as far as it does."""

    tokens: int | None = None
    """Trained tokens of all epochs."""
    usd: Decimal | None = None
    hours: Decimal | None = None
    """How long the training has run, by the ledger's clock."""
    saved_hours: Decimal | None = None
    """Of these, those until the last checkpoint; None: none was seen."""
    share: Decimal | None = None
    """Steps done of all steps, from 0 to 1."""


class Lesson(Frozen):
    """What one bill has shown."""

    basis: str
    """What the tokens were counted with."""
    position: Decimal | None
    """Where between low (0) and high (1) the tokens of one epoch lay; None: there was no range."""
    epochs_beside: int | None
    """Epochs more than expected, where the vendor chose them."""


class Reconciliation(Frozen):
    """A bill beside its estimate."""

    end: End
    provisional: bool
    """Whether the vendor's rules were applied, because no bill states the charge."""
    bill: Bill
    usd: Decimal | None
    """Cost of the training: as the vendor states it, or its tokens at our price; None: unknown."""
    estimated_usd: Spread | None
    estimated_tokens: Count | None
    """Of all epochs."""
    epochs: int | None = None
    """Whole epochs that fit the bill best."""
    implied_epochs: Decimal | None = None
    """Billed tokens over the tokens of one epoch, as we counted them."""
    framing_error: Decimal | None = None
    """Billed tokens a row and epoch, less those that we counted."""
    price_drift: Decimal | None = None
    """What the vendor charged a token over our price, less one."""
    lesson: Lesson | None = None
    implausible: bool = False
    """Whether the vendor bills less than a token a row, or far more than the estimate allows. Such
    a figure is shown, is not the run's cost, and changes no later estimate."""

    @property
    def above_high(self) -> bool:
        """Whether it has cost more than was thought possible."""
        usd, most = self.usd, self.estimated_usd
        return usd is not None and most is not None and usd > most.high


def reconcile(made: Estimate, bill: Bill, end: End, rules: Billing) -> Reconciliation:
    """Compare a bill with the estimate of its run; the rules bill runs that did not succeed."""
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
    validation = Spread.total(line.usd for line in made.of("validation") if line.usd)
    usd = bill.tokens * row.usd / MILLION + validation.expected
    return max(usd, made.minimum_usd or usd)


def _by_rule(
    estimated: Spread | None,
    row: PriceRow | None,
    bill: Bill,
    rule: Literal["completed-steps", "to-checkpoint", "nothing", "everything"] | None,
) -> Decimal | None:
    """Return what a vendor's rule charges for a training that did not succeed.

    A checkpoint that was not seen may have been written at the very end, so all hours count then.
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
    """Return the number of epochs that explains a bill best."""
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
    """Return the tokens of one epoch, as far as earlier bills narrow them."""
    width = counted.high - counted.low
    positions = [lesson.position for lesson in lessons if lesson.position is not None]
    return _narrowed(counted, [counted.low + round(width * position) for position in positions])


def narrowed_epochs(charged: Count, lessons: Sequence[Lesson]) -> Count:
    """Return the epochs, as far as earlier choices of the vendor narrow them."""
    beside = [lesson.epochs_beside for lesson in lessons if lesson.epochs_beside is not None]
    return _narrowed(charged, [charged.expected + more for more in beside])


def _narrowed(count: Count, seen: Sequence[int]) -> Count:
    """Return the range of what was seen; a bill outside of the range shows that it was wrong."""
    if count.exact or len(seen) < LEAST_BILLS:
        return count
    if min(seen) < count.low or max(seen) > count.high:
        return count
    return Count(min(seen), round(median(seen)), max(seen))
