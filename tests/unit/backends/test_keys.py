from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitune.backends.exactly_once import (
    DIGITS,
    MOST_ATTEMPTS,
    RANDOM_DIGITS,
    batch_key,
    launch_key,
    run_id,
)

TIMES = st.floats(min_value=946_684_800, max_value=4_102_444_799)  # the years 2000 to 2099, UTC
ATTEMPTS = st.integers(min_value=1, max_value=MOST_ATTEMPTS)


@given(TIMES)
def test_a_run_id_fits_every_vendor(time: float) -> None:
    key = run_id(time)
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,18}[a-z0-9]", key)


@given(TIMES, ATTEMPTS)
def test_a_launch_key_fits_every_vendor_and_names_its_run(time: float, attempt: int) -> None:
    run = run_id(time)
    key = launch_key(run, attempt)
    assert re.fullmatch(r"[a-z0-9-]{1,26}", key)
    assert (run, str(attempt)) == (key[: len(run)], key[len(run) + 1 :])


@given(TIMES, TIMES)
def test_run_ids_sort_by_time(one: float, other: float) -> None:
    earlier, later = sorted((one, other))
    if later - earlier > 0.003:
        assert run_id(earlier) < run_id(later)


@given(TIMES)
def test_run_ids_of_one_moment_differ(time: float) -> None:
    assert len({run_id(time) for _ in range(50)}) == 50


def test_a_run_id_holds_thirty_five_random_bits() -> None:
    assert RANDOM_DIGITS * (len(DIGITS).bit_length() - 1) >= 35
    seen = [set[str]() for _ in range(RANDOM_DIGITS)]
    for _ in range(2_000):
        for place, digit in enumerate(run_id(0)[-RANDOM_DIGITS:]):
            seen[place].add(digit)
    assert all(set(DIGITS) == digits for digits in seen)


@given(TIMES)
def test_a_batch_key_fits_every_vendor_and_is_no_runs(time: float) -> None:
    assert re.fullmatch(r"b[a-z0-9-]{1,25}", batch_key(time))
    assert len({batch_key(time) for _ in range(50)}) == 50


@pytest.mark.parametrize("attempt", [0, -1, MOST_ATTEMPTS + 1])
def test_an_attempt_that_makes_the_key_too_long_is_refused(attempt: int) -> None:
    with pytest.raises(ValueError, match=str(attempt)):
        launch_key(run_id(0), attempt)
