"""Quality against money, by hand-made cases whose answers can be worked out on paper."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from unitune.evaluate.documents.results import Money
from unitune.evaluate.statistics.economics import weigh
from unitune.evaluate.statistics.intervals import Units, difference_interval
from unitune.job.job import Economics

N = 400
GAINS = np.array([1.0] * 80 + [-1.0] * 20 + [0.0] * 300)  # 15 points better
CENT, TENTH = Decimal("0.01"), Decimal("0.001")


def prices(usual: Decimal) -> list[Decimal | None]:
    """Prices around the usual one, as answers of different length have."""
    return [usual * (8 + place % 5) / 10 for place in range(N)]


def priced(
    once: Decimal | None, answers: int | None = None, right_answer: Decimal | None = None
) -> Economics:
    return Economics(fixed_cost_usd=once, requests=answers, value_per_correct_usd=right_answer)


def weighed(candidate_usd: Decimal, economics: Economics, gains: np.ndarray = GAINS) -> Money:
    money = weigh(gains, prices(CENT), prices(candidate_usd), economics)
    assert money is not None
    return money


class TestPayBack:
    @pytest.mark.parametrize(
        ("usd", "once", "pay_back", "answers"),
        [
            ("0.001", 90, "after", 10_000),
            ("0.001", None, "after", None),
            ("0.02", 90, "never by cost alone", None),
        ],
    )
    def test_cheaper_answers_pay_for_the_training_after_so_many(
        self, usd: str, once: int | None, pay_back: str, answers: int | None
    ) -> None:
        actual = weighed(Decimal(usd), Economics(fixed_cost_usd=once))
        assert actual.extra_usd == Decimal(usd) - CENT
        assert (actual.pay_back, actual.break_even_answers) == (pay_back, answers)

    def test_free_answers_on_both_sides_never_do(self) -> None:
        free: list[Decimal | None] = [Decimal(0)] * N
        actual = weigh(GAINS, free, free, priced(Decimal(90)))
        assert actual is not None
        assert actual.pay_back == "never by cost alone"
        assert actual.extra_usd == Decimal(0)

    def test_prices_that_differ_both_ways_leave_it_open(self) -> None:
        dear = [CENT * (1 + (place % 2)) for place in range(N)]
        actual = weigh(GAINS, dear, dear[1:] + dear[:1], priced(Decimal(90)))
        assert actual is not None
        assert actual.pay_back == "not determined"


class TestExtraRightAnswer:
    def test_its_cost_is_the_extra_cost_of_an_answer_by_the_gain(self) -> None:
        """(0.01 more an answer + 90 / 30,000) / 0.15 = 0.0867."""
        actual = weighed(Decimal("0.02"), priced(Decimal(90), 30_000))
        assert actual.usd_per_extra_right == Decimal("0.0866667")

    def test_it_is_not_told_where_the_gain_is_not_sure(self) -> None:
        unsure = np.array([1.0] * 21 + [-1.0] * 20 + [0.0] * 359)
        economics = priced(Decimal(90), 30_000)
        assert weighed(Decimal("0.02"), economics, unsure).usd_per_extra_right is None

    def test_it_is_not_told_without_a_horizon(self) -> None:
        assert weighed(Decimal("0.02"), priced(Decimal(90))).usd_per_extra_right is None


class TestWorth:
    def test_net_benefit_is_gain_times_worth_less_all_costs(self) -> None:
        """0.15 * 1 - 0.01 - 90 / 30,000 = 0.137."""
        actual = weighed(Decimal("0.02"), priced(Decimal(90), 30_000, Decimal(1)))
        assert actual.net_usd == Decimal("0.137")
        assert actual.worth == "worth it"

    def test_its_interval_joins_quality_and_cost_case_by_case(self) -> None:
        """Were both constant in cost, it would be that of the gain, moved."""
        flat: list[Decimal | None] = [CENT] * N
        economics = priced(Decimal(90), 30_000, Decimal(2))
        money = weigh(GAINS, flat, flat, economics)
        assert money is not None
        assert money.net_interval_usd is not None
        low, high = money.net_interval_usd
        gain = difference_interval(Units.of(GAINS, None))
        assert pytest.approx(2 * gain.low - 0.003, rel=1e-4) == float(low or 0)
        assert pytest.approx(2 * gain.high - 0.003, rel=1e-4) == float(high or 0)

    @pytest.mark.parametrize(
        ("value_per_correct_usd", "expected"),
        [("1", "worth it"), ("0.09", "unclear"), ("0.01", "not worth it")],
    )
    def test_the_interval_decides(self, value_per_correct_usd: str, expected: str) -> None:
        economics = priced(Decimal(90), 30_000, Decimal(value_per_correct_usd))
        assert expected == weighed(Decimal("0.02"), economics).worth

    def test_the_smallest_worth_is_where_the_verdict_turns(self) -> None:
        found = weighed(Decimal("0.02"), priced(Decimal(90), 30_000)).smallest_worth_usd
        assert found is not None
        for factor, expected in (("1.001", "worth it"), ("0.999", "unclear")):
            economics = priced(Decimal(90), 30_000, found * Decimal(factor))
            assert expected == weighed(Decimal("0.02"), economics).worth

    def test_cheaper_answers_may_be_worth_it_at_any_worth(self) -> None:
        assert weighed(TENTH, priced(Decimal(9), 30_000)).smallest_worth_usd == Decimal(0)

    def test_no_worth_helps_where_there_is_no_gain(self) -> None:
        none = np.zeros(N)
        actual = weighed(Decimal("0.02"), priced(Decimal(90), 30_000), none)
        assert actual.smallest_worth_usd is None

    def test_few_clusters_leave_it_unclear(self) -> None:
        economics = priced(Decimal(90), 30_000, Decimal(1))
        clusters = [place % 4 for place in range(N)]
        actual = weigh(GAINS, prices(CENT), prices(CENT), economics, clusters=clusters)
        assert actual is not None
        assert actual.net_interval_usd is not None
        assert actual.net_interval_usd[0] is not None
        assert actual.net_interval_usd[0] < 0
        assert actual.worth == "unclear"


class TestUnknown:
    def test_one_unknown_price_makes_all_of_it_unknown(self) -> None:
        unpriced: list[Decimal | None] = [*prices(CENT)[:-1], None]
        economics = priced(Decimal(90), 30_000, Decimal(1))
        assert weigh(GAINS, unpriced, prices(CENT), economics) is None

    def test_an_unknown_training_price_leaves_the_net_benefit_unknown(self) -> None:
        actual = weighed(TENTH, priced(None, 30_000, Decimal(1)))
        assert (actual.net_usd, actual.net_interval_usd, actual.worth) == (None, None, None)
        assert actual.smallest_worth_usd is None

    def test_prices_must_be_one_a_case(self) -> None:
        with pytest.raises(ValueError, match="one price per case"):
            weigh(GAINS, prices(CENT)[1:], prices(CENT), Economics())

    def test_a_horizon_has_answers(self) -> None:
        with pytest.raises(ValueError, match="greater than or equal to 1"):
            Economics(requests=0)
