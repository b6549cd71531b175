"""The cost of a hosted training as a range: trained tokens times the offer's price.

Tokens are estimated from characters, and every assumption is listed. What is not known makes no
number: without a price there is no estimate. Exact counts, other charges than training, and what
became of an estimate are not here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

from unitune.cost.prices.book import book_for
from unitune.data.dataset import Dataset
from unitune.data.example import Example, Message
from unitune.job import Job
from unitune.offer import Offer
from unitune.price_specs import PriceRow
from unitune.today import today

Case = Literal["low", "expected", "high"]
CHARACTERS_PER_TOKEN: dict[Case, float] = {"low": 4.6, "expected": 4.0, "high": 3.0}
"""For English text; four is the usual rule, and was 10 % too few tokens on short rows (3.59
characters a token) and 0.6 % too few on long ones, measured with o200k_base."""
WIDE_CHARACTERS_PER_TOKEN: dict[Case, float] = {"low": 2.5, "expected": 1.5, "high": 0.6}
"""For characters beyond ASCII, whose cost differs most between tokenizers."""
FRAMING_TOKENS: dict[Case, int] = {"low": 3, "expected": 4, "high": 8}
"""What a chat template adds to each message."""
EPOCHS: dict[Case, int] = {"low": 1, "expected": 3, "high": 4}
"""When the vendor chooses. OpenAI's cookbook aims at 3, and a worked example of Azure got 2."""


class Estimate(BaseModel):
    """What a training would cost, in US dollars."""

    model_config = ConfigDict(frozen=True)
    usd_low: Decimal
    usd_expected: Decimal
    usd_high: Decimal
    trained_tokens_low: int
    """All epochs; so are the next two."""
    trained_tokens_expected: int
    trained_tokens_high: int
    price: PriceRow
    assumptions: tuple[str, ...]


def estimate(job: Job, offer: Offer, train: Dataset) -> Estimate | None:
    """Return what training a job's rows would cost; None where no price is known.

    Args:
        job: Its model, method and epochs.
        offer: Of the job's backend.
        train: The rows to train on.
    """
    book = replace(book_for(job), offered={offer.name: offer}.__getitem__)
    price = book.find(offer.name, job.base_model, "training", method=job.method, on=today())
    if price is None or price.per != "million-tokens":
        return None
    epochs = _epochs(job, offer)
    tokens = {case: epochs[case] * _tokens(train, case) for case in epochs}
    usd = {case: cents(price.usd * count / 1_000_000) for case, count in tokens.items()}
    return Estimate(
        usd_low=usd["low"],
        usd_expected=usd["expected"],
        usd_high=usd["high"],
        trained_tokens_low=tokens["low"],
        trained_tokens_expected=tokens["expected"],
        trained_tokens_high=tokens["high"],
        price=price,
        assumptions=tuple(_assumptions(job, offer, price)),
    )


def _epochs(job: Job, offer: Offer) -> dict[Case, int]:
    if job.tuning.epochs != "auto":
        return dict.fromkeys(EPOCHS, job.tuning.epochs)
    auto = offer.billing.epochs_auto
    return dict.fromkeys(EPOCHS, auto) if isinstance(auto, int) else EPOCHS


def _tokens(rows: Iterable[Example], case: Case) -> int:
    return sum(row_tokens(row, case) for row in rows)


def row_tokens(row: Example, case: Case) -> int:
    """Return about how many tokens of a row a training sees in one epoch.

    Args:
        row: To train on.
        case: Which end of the range.
    """
    turns = _trained_turns(row, case)
    text = row.model_dump_json(include={"tools"}, exclude_none=True) if row.tools else ""
    text += "".join(turn.text + str(turn.tool_calls or "") for turn in turns)
    narrow = sum(character.isascii() for character in text)
    wide = len(text) - narrow
    content = narrow / CHARACTERS_PER_TOKEN[case] + wide / WIDE_CHARACTERS_PER_TOKEN[case]
    return math.ceil(content) + len(turns) * FRAMING_TOKENS[case]


def _trained_turns(row: Example, case: Case) -> list[Message]:
    """Return the turns that are charged.

    Of a preference row both answers are; whether its prompt is charged once or twice, no vendor
    says.
    """
    worse = row.non_preferred_output or ()
    again = row.prompt if worse and case == "high" else ()
    return [*row.messages, *worse, *again]


def _assumptions(job: Job, offer: Offer, price: PriceRow) -> Iterable[str]:
    yield (
        f"tokens are estimated from characters ({CHARACTERS_PER_TOKEN['high']:g} to "
        f"{CHARACTERS_PER_TOKEN['low']:g} each) and {FRAMING_TOKENS['low']} to "
        f"{FRAMING_TOKENS['high']} a message for the chat template"
    )
    if job.method == "dpo":
        yield "both answers of a row are charged, and its prompt once to twice"
    if job.tuning.epochs == "auto" and not isinstance(offer.billing.epochs_auto, int):
        yield f"{offer.name} chooses the epochs: {EPOCHS['low']} to {EPOCHS['high']}"
    elif job.tuning.epochs == "auto":
        yield f"epochs are {offer.name}'s own default, {offer.billing.epochs_auto}"
    yield f"${price.usd} a million trained tokens, as of {price.as_of} ({price.source})"


def cents(usd: Decimal) -> Decimal:
    """Round up to a cent: a charge is never estimated as nothing."""
    return usd.quantize(Decimal("0.01"), rounding="ROUND_CEILING")
