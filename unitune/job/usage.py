"""How a model will be used, as a job says it, so that its total cost can be computed.

Everything has a default or is determined: `auto` is measured in the job's newest comparison where
there is one, else counted from its data. `unitune cost` says of each figure where it comes from.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from unitune.security.spec import Spec

Auto = Literal["auto"]


MOST_REQUESTS = 10**10
MOST_TOKENS = 10**7
"""Of a request. Both are more than any model gets, and can be computed with and printed."""


class Alternative(Spec):
    """An untuned model that could answer instead, with the best prompt."""

    model: str
    """Its name at the vendor."""
    backend: str | None = None
    """Who answers; by default the job's backend."""


class Usage(Spec):
    """How many requests the model gets, how long, and with what: for `unitune cost`."""

    requests_month: Annotated[int, Field(ge=1, le=MOST_REQUESTS)] = 10_000
    """Requests a month."""
    months: Annotated[int, Field(ge=1, le=120)] = 12
    """How long it is to be used; less where the model is switched off before."""
    prompted_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Auto = "auto"
    """Tokens of a request's prompt to the prompted model, instructions and shots included."""
    tuned_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Auto = "auto"
    """Tokens of a request's prompt to the tuned model."""
    shared_tokens: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | Auto = "auto"
    """Tokens at the beginning of the prompted model's prompts that are always the same, which a
    vendor's cache can hold."""
    answer_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | Auto = "auto"
    """Tokens of an answer that is seen."""
    cache_hit_rate: Annotated[Decimal, Field(ge=0, le=1)] | Auto = "auto"
    """Share of requests whose beginning is in the cache; `auto` is one half."""
    reasoning_factor: Annotated[Decimal, Field(ge=1, le=100)] | Auto = "auto"
    """By how much hidden reasoning lengthens the answers of models that reason; `auto`
    is 1 to 1.6."""
    hosting_hours_day: Annotated[Decimal, Field(ge=0, le=24)] = Decimal(24)
    """Hours a day that the tuned model's deployment stands, where it needs one."""
    runs: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Trainings over the whole time, failed and repeated ones included."""
    preparation_usd: Annotated[Decimal, Field(ge=0, le=10**12)] = Decimal(0)
    """What collecting and labelling the rows costs, in US dollars."""
    alternative: Alternative | None = None
    """Newest untuned model; by default the model that the backend's offer names."""
