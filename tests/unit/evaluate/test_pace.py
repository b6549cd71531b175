"""How fast a model is asked: a limit that is found out, pauses that hold for all."""

from __future__ import annotations

import asyncio
import time

import pytest

from unitune.evaluate.inference.rate_limiter import FIRST_LIMIT, Pace


async def rounds(pace: Pace, number: int, waiting: int) -> list[int]:
    """Let so many tasks take turns for some rounds; return the most in flight in each round."""
    most: list[int] = []

    async def one(flying: list[int]) -> None:
        async with pace.turn():
            flying[0] += 1
            flying[1] = max(flying)
            await asyncio.sleep(0.001)
            flying[0] -= 1
            pace.answered()

    for _ in range(number):
        flying = [0, 0]
        await asyncio.gather(*(one(flying) for _ in range(waiting)))
        most.append(flying[1])
    return most


def test_it_starts_small_and_grows_to_its_most() -> None:
    pace = Pace(most=32)
    assert FIRST_LIMIT == pace.limit
    most = asyncio.run(rounds(pace, 3, 64))
    assert 32 == most[-1]
    assert 32 == pace.limit


def test_no_more_are_in_flight_than_it_says() -> None:
    assert [3] == asyncio.run(rounds(Pace(most=3), 1, 20))


def test_asked_too_often_halves_it_once_for_all_that_were_in_flight() -> None:
    async def refuse() -> Pace:
        pace = Pace(most=64, limit=16)
        sent = time.monotonic()
        async with pace.turn(), pace.turn(), pace.turn(), pace.turn():
            for _ in range(9):
                pace.refused(sent, 0)
        return pace

    assert 2 == asyncio.run(refuse()).limit


def test_few_refusals_among_answers_slow_nobody_down() -> None:
    pace = Pace(most=64, limit=16)
    for _ in range(5):
        pace.refused(time.monotonic(), 60)
        for _ in range(4):
            pace.answered()
    assert 36 == pace.limit
    assert pace._rest() <= 0


def test_after_that_it_grows_by_one_a_round() -> None:
    pace = Pace(most=64, limit=8)
    for _ in range(6):
        pace.refused(time.monotonic(), 0)
    pace.limit = 4
    for _ in range(4):
        pace.answered()
    assert 4.9 == pytest.approx(pace.limit, abs=0.1)


def test_it_never_stops_altogether() -> None:
    pace = Pace(limit=1)
    for _ in range(9):
        pace.refused(time.monotonic(), 0)
    assert 1 == pace.limit


def test_a_pause_holds_for_those_that_wait_and_those_that_come() -> None:
    async def paused() -> list[float]:
        pace, begun = Pace(), time.monotonic()
        pace.pause(0.2)

        async def one() -> float:
            async with pace.turn():
                return time.monotonic() - begun

        return await asyncio.gather(*(one() for _ in range(3)))

    assert min(asyncio.run(paused())) >= 0.19


def test_whoever_waits_goes_on_when_a_pause_comes_between() -> None:
    async def work() -> int:
        pace = Pace(most=1)

        async def one(at: int) -> int:
            async with pace.turn():
                if at == 0:
                    pace.pause(0.05)
                return at

        return len(await asyncio.wait_for(asyncio.gather(*map(one, range(10))), 5))

    assert 10 == asyncio.run(work())
