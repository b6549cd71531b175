"""Quality against money, by hand-made cases whose answers can be worked out on paper."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from unitune.evaluate.statistics.economics import Economics, PayBack, Worth, weigh
from unitune.evaluate.statistics.intervals import difference_interval
from unitune.evaluate.statistics.units import Units
from unitune.job.job import Stakes

N = 400
GAINS = np.array([1.0] * 80 + [-1.0] * 20 + [0.0] * 300)  # 15 points better
CENT, TENTH = Decimal("0.01"), Decimal("0.001")


def prices(usual: Decimal) -> list[Decimal | None]:
    """Prices around the usual one, as answers of different length have."""
    return [usual * (8 + place % 5) / 10 for place in range(N)]


def stake(
    once: Decimal | None, answers: int | None = None, right_answer: Decimal | None = None
) -> Stakes:
    return Stakes(once_usd=once, answers=answers, right_answer_usd=right_answer)


def weighed(candidate_usd: Decimal, stakes: Stakes, gains: np.ndarray = GAINS) -> Economics:
    return weigh(gains, prices(CENT), prices(candidate_usd), stakes)


class TestPayBack:
    def test_cheaper_answers_pay_for_the_training_after_so_many(self) -> None:
        actual = weighed(TENTH, Stakes(once_usd=Decimal(90)))
        assert Decimal("-0.009") == actual.extra_usd
        assert PayBack.AFTER == actual.pay_back
        assert 10_000 == actual.break_even_answers

    def test_dearer_answers_never_do(self) -> None:
        actual = weighed(Decimal("0.02"), Stakes(once_usd=Decimal(90)))
        assert PayBack.NEVER == actual.pay_back
        assert actual.break_even_answers is None

    def test_free_answers_on_both_sides_never_do(self) -> None:
        free: list[Decimal | None] = [Decimal(0)] * N
        actual = weigh(GAINS, free, free, Stakes(once_usd=Decimal(90)))
        assert PayBack.NEVER == actual.pay_back
        assert Decimal(0) == actual.extra_usd

    def test_prices_that_differ_both_ways_leave_it_open(self) -> None:
        dear = [CENT * (1 + (place % 2)) for place in range(N)]
        actual = weigh(GAINS, dear, dear[1:] + dear[:1], Stakes(once_usd=Decimal(90)))
        assert PayBack.UNDETERMINED == actual.pay_back

    def test_without_the_training_price_it_pays_back_after_nobody_knows_how_many(self) -> None:
        actual = weighed(TENTH, Stakes())
        assert PayBack.AFTER == actual.pay_back
        assert actual.break_even_answers is None


class TestExtraRightAnswer:
    def test_its_cost_is_the_extra_cost_of_an_answer_by_the_gain(self) -> None:
        """(0.01 more an answer + 90 / 30,000) / 0.15 = 0.0867."""
        actual = weighed(Decimal("0.02"), Stakes(once_usd=Decimal(90), answers=30_000))
        assert Decimal("0.0866667") == actual.usd_per_extra_right

    def test_it_is_not_told_where_the_gain_is_not_sure(self) -> None:
        unsure = np.array([1.0] * 21 + [-1.0] * 20 + [0.0] * 359)
        stakes = Stakes(once_usd=Decimal(90), answers=30_000)
        assert weighed(Decimal("0.02"), stakes, unsure).usd_per_extra_right is None

    def test_it_is_not_told_without_a_horizon(self) -> None:
        assert weighed(Decimal("0.02"), stake(Decimal(90))).usd_per_extra_right is None


class TestWorth:
    def test_net_benefit_is_gain_times_worth_less_all_costs(self) -> None:
        """0.15 * 1 - 0.01 - 90 / 30,000 = 0.137."""
        actual = weighed(
            Decimal("0.02"),
            Stakes(once_usd=Decimal(90), answers=30_000, right_answer_usd=Decimal(1)),
        )
        assert Decimal("0.137") == actual.net_usd
        assert Worth.WORTH_IT == actual.worth

    def test_its_interval_joins_quality_and_cost_case_by_case(self) -> None:
        """Were both constant in cost, it would be that of the gain, moved."""
        flat: list[Decimal | None] = [CENT] * N
        stakes = Stakes(once_usd=Decimal(90), answers=30_000, right_answer_usd=Decimal(2))
        actual = weigh(GAINS, flat, flat, stakes).net_interval
        gain = difference_interval(Units.of(GAINS, None))
        assert actual is not None
        assert pytest.approx(2 * gain.low - 0.003, rel=1e-4) == float(actual.low or 0)
        assert pytest.approx(2 * gain.high - 0.003, rel=1e-4) == float(actual.high or 0)

    @pytest.mark.parametrize(
        ("right_answer_usd", "expected"),
        [("1", Worth.WORTH_IT), ("0.09", Worth.UNCLEAR), ("0.01", Worth.NOT_WORTH_IT)],
    )
    def test_the_interval_decides(self, right_answer_usd: str, expected: Worth) -> None:
        stakes = stake(Decimal(90), 30_000, Decimal(right_answer_usd))
        assert expected == weighed(Decimal("0.02"), stakes).worth

    def test_the_smallest_worth_is_where_the_verdict_turns(self) -> None:
        found = weighed(
            Decimal("0.02"), Stakes(once_usd=Decimal(90), answers=30_000)
        ).smallest_worth_usd
        assert found is not None
        for factor, expected in (("1.001", Worth.WORTH_IT), ("0.999", Worth.UNCLEAR)):
            stakes = stake(Decimal(90), 30_000, found * Decimal(factor))
            assert expected == weighed(Decimal("0.02"), stakes).worth

    def test_cheaper_answers_may_be_worth_it_at_any_worth(self) -> None:
        assert (
            Decimal(0)
            == weighed(TENTH, Stakes(once_usd=Decimal(9), answers=30_000)).smallest_worth_usd
        )

    def test_no_worth_helps_where_there_is_no_gain(self) -> None:
        none = np.zeros(N)
        actual = weighed(Decimal("0.02"), Stakes(once_usd=Decimal(90), answers=30_000), none)
        assert actual.smallest_worth_usd is None

    def test_few_clusters_leave_it_unclear(self) -> None:
        stakes = Stakes(once_usd=Decimal(90), answers=30_000, right_answer_usd=Decimal(1))
        clusters = [place % 4 for place in range(N)]
        actual = weigh(GAINS, prices(CENT), prices(CENT), stakes, clusters=clusters)
        assert actual.net_interval is not None
        assert actual.net_interval.low is not None
        assert actual.net_interval.low < 0
        assert Worth.UNCLEAR == actual.worth


class TestUnknown:
    def test_one_unknown_price_makes_all_of_it_unknown(self) -> None:
        unpriced: list[Decimal | None] = [*prices(CENT)[:-1], None]
        stakes = Stakes(once_usd=Decimal(90), answers=30_000, right_answer_usd=Decimal(1))
        assert Economics() == weigh(GAINS, unpriced, prices(CENT), stakes)

    def test_an_unknown_training_price_leaves_the_net_benefit_unknown(self) -> None:
        actual = weighed(TENTH, stake(None, 30_000, Decimal(1)))
        assert (None, None, None) == (actual.net_usd, actual.net_interval, actual.worth)
        assert actual.smallest_worth_usd is None

    def test_prices_must_be_one_a_case(self) -> None:
        with pytest.raises(ValueError, match="one price a case"):
            weigh(GAINS, prices(CENT)[1:], prices(CENT), Stakes())

    def test_a_horizon_has_answers(self) -> None:
        with pytest.raises(ValueError, match="greater than or equal to 1"):
            Stakes(answers=0)
