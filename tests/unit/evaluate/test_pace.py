"""How fast a model is asked: a limit that is found out, pauses that hold for all."""

from __future__ import annotations

import asyncio
import time

import pytest

from unitune.evaluate.inference.requests import FIRST_LIMIT, AdaptiveLimiter


async def rounds(limiter: AdaptiveLimiter, number: int, waiting: int) -> list[int]:
    """Let so many tasks take turns for some rounds; return the most in flight in each round."""
    most: list[int] = []

    async def one(flying: list[int]) -> None:
        async with limiter.turn():
            flying[0] += 1
            flying[1] = max(flying)
            await asyncio.sleep(0.001)
            flying[0] -= 1
            limiter.answered()

    for _ in range(number):
        flying = [0, 0]
        await asyncio.gather(*(one(flying) for _ in range(waiting)))
        most.append(flying[1])
    return most


def test_it_starts_small_and_grows_to_its_most() -> None:
    limiter = AdaptiveLimiter(most=32)
    assert limiter.limit == FIRST_LIMIT
    most = asyncio.run(rounds(limiter, 3, 64))
    assert most[-1] == 32
    assert limiter.limit == 32


def test_no_more_are_in_flight_than_it_says() -> None:
    assert asyncio.run(rounds(AdaptiveLimiter(most=3), 1, 20)) == [3]


def test_asked_too_often_halves_it_once_for_all_that_were_in_flight() -> None:
    async def refuse() -> AdaptiveLimiter:
        limiter = AdaptiveLimiter(most=64, limit=16)
        sent = time.monotonic()
        async with limiter.turn(), limiter.turn(), limiter.turn(), limiter.turn():
            for _ in range(9):
                limiter.refused(sent, 0)
        return limiter

    assert asyncio.run(refuse()).limit == 2


def test_few_refusals_among_answers_slow_nobody_down() -> None:
    limiter = AdaptiveLimiter(most=64, limit=16)
    for _ in range(5):
        limiter.refused(time.monotonic(), 60)
        for _ in range(4):
            limiter.answered()
    assert limiter.limit == 36
    assert limiter._paused_until <= time.monotonic()


def test_after_that_it_grows_by_one_a_round() -> None:
    limiter = AdaptiveLimiter(most=64, limit=8)
    for _ in range(6):
        limiter.refused(time.monotonic(), 0)
    limiter.limit = 4
    for _ in range(4):
        limiter.answered()
    assert pytest.approx(limiter.limit, abs=0.1) == 4.9


def test_it_never_stops_altogether() -> None:
    limiter = AdaptiveLimiter(limit=1)
    for _ in range(9):
        limiter.refused(time.monotonic(), 0)
    assert limiter.limit == 1


def test_a_pause_holds_for_those_that_wait_and_those_that_come() -> None:
    async def paused() -> list[float]:
        limiter, begun = AdaptiveLimiter(), time.monotonic()
        limiter.pause(0.2)

        async def one() -> float:
            async with limiter.turn():
                return time.monotonic() - begun

        return await asyncio.gather(*(one() for _ in range(3)))

    assert min(asyncio.run(paused())) >= 0.19


def test_whoever_waits_goes_on_when_a_pause_comes_between() -> None:
    async def work() -> int:
        limiter = AdaptiveLimiter(most=1)

        async def one(at: int) -> int:
            async with limiter.turn():
                if at == 0:
                    limiter.pause(0.05)
                return at

        return len(await asyncio.wait_for(asyncio.gather(*map(one, range(10))), 5))

    assert asyncio.run(work()) == 10
