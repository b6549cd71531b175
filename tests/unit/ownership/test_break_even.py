"""TotalCost reckons as the published examples do, in Decimal, and never beyond what is known."""

from __future__ import annotations

from dataclasses import fields, replace
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.known import known

from unitune.backends.offer import Caching
from unitune.cost.break_even import (
    Crossover,
    Crossovers,
    Range,
    ServingCost,
    break_even,
    cheaper,
    payback,
)
from unitune.cost.spread import Spread
from unitune.cost.tokens import Count
from unitune.ownership.serving import Rates, Request

OPENAI = Caching(minimum_tokens=1024, step_tokens=128)
DEAR_WRITES = OPENAI.model_copy(update={"write_factor": Decimal("1.25")})
BASE = Rates(Decimal("0.15"), Decimal("0.60"), Decimal("0.075"))
TUNED = Rates(Decimal("0.30"), Decimal("1.20"), Decimal("0.15"))
NOTHING = Spread.of(Decimal(0))
PARTS = ["once_usd", "month_usd", "request_usd"]

usd = st.decimals(0, 10_000, places=4)
rates = st.decimals(0, 1, places=2)
volumes = st.integers(0, 10_000_000).map(Decimal)
horizons = st.decimals("0.1", 36, places=1)
spreads = st.lists(usd, min_size=3, max_size=3).map(lambda ends: Spread(*sorted(ends)))
alternatives = st.builds(ServingCost, once_usd=spreads, month_usd=spreads, request_usd=spreads)
exact = st.builds(
    ServingCost,
    once_usd=usd.map(Spread.of),
    month_usd=usd.map(Spread.of),
    request_usd=usd.map(Spread.of),
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Requests at prices as vendors have them: cached input costs less than plain."""
    counts = st.lists(st.integers(0, 20_000), min_size=3, max_size=3).map(
        lambda ends: Count(*sorted(ends))
    )
    cached, plain = sorted(draw(st.lists(st.decimals(0, 20, places=3), min_size=2, max_size=2)))
    low, expected, high = sorted(draw(st.lists(st.decimals(1, 2), min_size=3, max_size=3)))
    return Request(
        prompt=draw(counts),
        answer=draw(counts),
        rates=Rates(plain, draw(st.decimals(0, 80, places=3)), cached),
        shared=draw(counts),
        caching=draw(st.sampled_from([None, OPENAI, DEAR_WRITES])),
        hit_rate=draw(rates),
        reasoning=(low, expected, high),
    )


def request(prompt: int, answer: int, prices: Rates, shared: int = 0, hit: str = "0") -> Request:
    return Request(
        Count.of(prompt), Count.of(answer), prices, Count.of(shared), OPENAI, hit_rate=Decimal(hit)
    )


def cost_of(once: str, month: str, request: str) -> ServingCost:
    parts = {"once_usd": once, "month_usd": month, "request_usd": request}
    return ServingCost(**{name: Spread.of(Decimal(usd)) for name, usd in parts.items()})


def expected_at(asked: Request, hit_rate: str) -> Decimal:
    return known(replace(asked, hit_rate=Decimal(hit_rate)).usd).expected


def even(one: ServingCost, other: ServingCost, months: Decimal) -> Crossovers:
    return known(break_even(one, other, months))


def total(one: ServingCost, volume: Decimal, months: Decimal) -> Spread:
    return known(one.total(volume, months))


class TestKnownAnswers:
    def test_a_month_of_microsofts_chatbot_costs_1422_dollars(self) -> None:
        """10,000 conversations, 20 M tokens in and 40 M out, hosted for 30 days of 24 hours.

        Source: MicrosoftDocs/azure-ai-docs, fine-tuning-cost-management.md, 2026-02-11.
        """
        asked = request(2_000, 4_000, Rates(Decimal("1.10"), Decimal("4.40")))
        hosting = Spread.of(Decimal("1.70")).scaled(Decimal(30 * 24))
        chatbot = ServingCost(once_usd=NOTHING, month_usd=hosting, request_usd=asked.usd)

        assert Spread.of(Decimal(1422)) == chatbot.total(Decimal(10_000), Decimal(1))

    def test_caching_flips_the_answer(self) -> None:
        """By hand, gpt-4o-mini at OpenAI, prompt 1,200 of which 1,152 shared, against a tune's 100.

        Without hits 1,200 * 0.15 + 150 * 0.60 = 270 against 100 * 0.30 + 150 * 1.20 = 210 dollars
        a million requests; with hits always 270 - 1,152 * 0.075 = 183.6; the same at 60 / 86.4.
        """
        tuned = request(100, 150, TUNED)
        prompted = request(1_200, 150, BASE, shared=1_152)

        assert expected_at(prompted, "0") == Decimal("0.00027")
        assert expected_at(prompted, "1") == Decimal("0.0001836")
        assert expected_at(tuned, "1") == Decimal("0.00021")

    def test_break_even_is_the_fixed_part_by_what_a_request_saves(self) -> None:
        """By hand: (1,200 / 12 + 1,241) / (0.003 - 0.001) = 670,500 requests a month."""
        tuned = cost_of("1200", "1241", "0.001")
        prompted = cost_of("0", "0", "0.003")
        found = even(tuned, prompted, Decimal(12))

        assert Crossover(Range.ABOVE, Decimal(670_500)) == found.expected

    def test_payback_is_what_was_paid_once_by_what_a_month_saves(self) -> None:
        """By hand: 1,200 / (1,000,000 * 0.002 - 1,241) = 1.58 months."""
        tuned = cost_of("1200", "1241", "0.001")
        prompted = cost_of("0", "0", "0.003")
        found = known(payback(tuned, prompted, Decimal(1_000_000)))

        assert found.expected.range == Range.ABOVE
        assert round(found.expected.at or Decimal(), 2) == Decimal("1.58")

    @pytest.mark.parametrize(
        ("shared", "held"), [(0, 0), (1023, 0), (1024, 1024), (1151, 1024), (1152, 1152)]
    )
    def test_openai_caches_from_1024_tokens_in_steps_of_128(self, shared: int, held: int) -> None:
        """Source: openai/openai-cookbook, examples/Prompt_Caching_201.ipynb, 1.1."""
        saved = held * Decimal("0.075") / 1_000_000  # 0.15 plain, 0.075 cached
        miss, hit = (expected_at(request(2_000, 10, BASE, shared), rate) for rate in "01")
        assert saved == miss - hit

    def test_writing_to_a_cache_may_cost_more_than_plain_input(self) -> None:
        """By hand: 2,048 tokens, half of the requests miss and write them at 1.25 * 0.10.

        Source: developers.openai.com/api/docs/guides/prompt-caching: GPT-5.6 and later.
        """
        asked = Request(
            prompt=Count.of(2_048),
            answer=Count.of(0),
            rates=Rates(Decimal("0.10"), Decimal("0.50"), Decimal("0.01")),
            shared=Count.of(2_048),
            caching=DEAR_WRITES,
            hit_rate=Decimal("0.5"),
        )

        assert known(asked.usd).expected == Decimal("0.00013824")  # 2,048 * (0.005 + 0.0625) / 1 M

    def test_hidden_reasoning_lengthens_what_is_billed_as_answer(self) -> None:
        plain = request(0, 1_000, Rates(Decimal(0), Decimal(10)))
        factors = (Decimal(1), Decimal("1.3"), Decimal("1.6"))

        expected = Spread(Decimal("0.01"), Decimal("0.013"), Decimal("0.016"))
        assert expected == replace(plain, reasoning=factors).usd


class TestCheaper:
    @pytest.mark.parametrize(
        ("fixed", "slope", "expected"),
        [
            ("0", "0", Crossover(Range.SAME)),
            ("1", "0", Crossover(Range.NEVER)),
            ("-1", "0", Crossover(Range.ALWAYS)),
            ("0", "1", Crossover(Range.NEVER)),
            ("0", "-1", Crossover(Range.ALWAYS)),
            ("6", "-2", Crossover(Range.ABOVE, Decimal(3))),
            ("-6", "2", Crossover(Range.BELOW, Decimal(3))),
            ("6", "2", Crossover(Range.NEVER)),
            ("-6", "-2", Crossover(Range.ALWAYS)),
        ],
    )
    def test_a_line_crosses_zero_once_at_most(
        self, fixed: str, slope: str, expected: Crossover
    ) -> None:
        assert expected == cheaper(Decimal(fixed), Decimal(slope))


class TestUnknown:
    @pytest.mark.parametrize("part", PARTS)
    def test_one_unknown_part_makes_total_and_break_even_unknown(self, part: str) -> None:
        known = cost_of("0", "0", "0")
        lacking = known.model_copy(update={part: None})

        assert lacking.total(Decimal(1), Decimal(1)) is None
        assert break_even(lacking, known, Decimal(1)) is None
        assert payback(known, lacking, Decimal(1)) is None

    def test_a_request_without_a_price_has_none(self) -> None:
        unpriced = request(100, 10, Rates(input=Decimal(1)))

        assert unpriced.usd is None

    @pytest.mark.parametrize("lacking", ["caching", "cached_input"])
    def test_without_rule_or_price_nothing_is_cached(self, lacking: str) -> None:
        asked = request(2_000, 10, BASE, shared=2_000, hit="1")
        blind = (
            replace(asked, caching=None)
            if lacking == "caching"
            else replace(asked, rates=replace(BASE, cached_input=None))
        )

        assert not blind.caches
        assert expected_at(asked, "0") == expected_at(blind, "1")


class TestProperties:
    @given(exact, exact, horizons)
    def test_at_break_even_both_totals_are_equal_to_the_cent(
        self, one: ServingCost, other: ServingCost, months: Decimal
    ) -> None:
        at = even(one, other, months).expected.at
        if at is None:
            return
        mine, theirs = (total(each, at, months).expected for each in (one, other))
        assert abs(mine - theirs) < Decimal("0.005")

    @given(exact, exact, horizons, volumes)
    def test_it_says_where_the_total_is_lower(
        self, one: ServingCost, other: ServingCost, months: Decimal, volume: Decimal
    ) -> None:
        mine, theirs = (total(each, volume, months).expected for each in (one, other))
        if abs(mine - theirs) < Decimal("0.005"):
            return
        match even(one, other, months).expected:
            case Crossover(Range.ABOVE, Decimal() as at):
                expected = volume > at
            case Crossover(Range.BELOW, Decimal() as at):
                expected = volume < at
            case Crossover(kind):
                expected = kind is Range.ALWAYS
        assert expected == (mine < theirs)

    @given(alternatives, alternatives, horizons)
    def test_swapping_the_columns_flips_the_answer(
        self, one: ServingCost, other: ServingCost, months: Decimal
    ) -> None:
        flipped = {
            Range.ALWAYS: Range.NEVER,
            Range.NEVER: Range.ALWAYS,
            Range.ABOVE: Range.BELOW,
            Range.BELOW: Range.ABOVE,
            Range.SAME: Range.SAME,
        }
        there, back = even(one, other, months), even(other, one, months)
        pairs = [
            (there.expected, back.expected),
            (there.best, back.worst),
            (there.worst, back.best),
        ]
        for here, again in pairs:
            assert (flipped[here.range], here.at) == (again.range, again.at)

    @given(alternatives, st.lists(volumes, min_size=2, max_size=5), horizons)
    def test_more_requests_never_cost_less(
        self, one: ServingCost, asked: list[Decimal], months: Decimal
    ) -> None:
        for less, more in pairwise(total(one, volume, months) for volume in sorted(asked)):
            assert less.low <= more.low
            assert less.expected <= more.expected
            assert less.high <= more.high

    @given(
        alternatives,
        spreads,
        st.sampled_from(PARTS),
        volumes,
        horizons,
    )
    def test_a_dearer_part_never_makes_the_total_cheaper(
        self, one: ServingCost, extra: Spread, part: str, volume: Decimal, months: Decimal
    ) -> None:
        dearer = one.model_copy(update={part: getattr(one, part) + extra})
        less, more = (total(each, volume, months) for each in (one, dearer))
        assert less.expected <= more.expected

    @given(requests())
    def test_low_expected_and_high_of_a_request_are_in_order(self, asked: Request) -> None:
        usd = known(asked.usd)
        assert usd.low <= usd.expected <= usd.high

    @given(requests(), st.integers(0, 5_000))
    def test_longer_prompts_and_answers_never_cost_less(self, asked: Request, more: int) -> None:
        longer = replace(
            asked, prompt=asked.prompt + Count.of(more), answer=asked.answer + Count.of(more)
        )
        # The cache may then hold more; what it holds is compared at no hits and free writing.
        still = replace(asked, caching=None), replace(longer, caching=None)
        less, dearer = (known(each.usd) for each in still)
        assert less.expected <= dearer.expected

    def test_a_prompt_long_enough_for_the_cache_may_cost_less_than_a_shorter_one(self) -> None:
        """By hand at 0.40 and 0.10: 1,000 tokens without a cache are 400, 1,152 of it 115.2."""
        asked = Request(
            prompt=Count(1_000, 1_000, 1_152),
            answer=Count(),
            rates=Rates(Decimal("0.40"), Decimal(0), Decimal("0.10")),
            shared=Count(1_000, 1_000, 1_152),
            caching=OPENAI,
            hit_rate=Decimal(1),
        )

        expected = Spread(Decimal("0.0001152"), Decimal("0.0004"), Decimal("0.0004608"))
        assert expected == asked.usd

    @given(requests(), rates, rates)
    def test_more_hits_never_cost_more(self, asked: Request, one: Decimal, other: Decimal) -> None:
        fewer, more = (expected_at(asked, str(rate)) for rate in sorted((one, other)))
        assert more <= fewer

    @given(alternatives, alternatives, volumes, horizons)
    def test_no_float_ever_stands_for_money(
        self, one: ServingCost, other: ServingCost, volume: Decimal, months: Decimal
    ) -> None:
        for spread in (total(one, volume, months), known(one.monthly(volume, months))):
            assert {type(getattr(spread, end.name)) for end in fields(spread)} == {Decimal}
        for crossings in (even(one, other, months), known(payback(one, other, volume))):
            ends = (crossings.best, crossings.expected, crossings.worst)
            assert all(end.at is None or type(end.at) is Decimal for end in ends)

    @given(alternatives, alternatives, horizons)
    def test_the_best_case_is_never_later_than_the_worst(
        self, one: ServingCost, other: ServingCost, months: Decimal
    ) -> None:
        found = even(one, other, months)
        cases = (found.best, found.expected, found.worst)
        if all(each.range is Range.ABOVE for each in cases):
            ends = [known(each.at) for each in cases]
            assert ends == sorted(ends)
