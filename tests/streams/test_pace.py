"""A provider is asked evenly, by its limit and by its own 429; measured against one that counts."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from streams.pace import Pace


class World:
    """Time that passes in sleeps alone, and a provider that takes `per_s` calls a second and refuses the rest."""

    def __init__(self, per_s: float, *, retry_after_s: float | None = 1.0) -> None:
        self.now, self.per_s, self.retry_after_s = 1000.0, per_s, retry_after_s
        self.taken, self.refused = 0, 0
        self._tokens, self._filled_at = per_s, self.now
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    def ask(self, pace: Pace) -> bool:
        self._tokens = min(self.per_s, self._tokens + (self.now - self._filled_at) * self.per_s)
        self._filled_at = self.now
        if self._tokens < 1:
            self.refused += 1
            pace.set_back(self.retry_after_s)
            return False
        self._tokens -= 1
        self.taken += 1
        return True

    async def run(self, *jobs: Any) -> None:
        """Until all have ended, one sleep after another."""
        tasks = [asyncio.ensure_future(job) for job in jobs]
        while not all(task.done() for task in tasks):
            for _ in range(5):
                await asyncio.sleep(0)
            if self._sleepers:
                at, _, future = heapq.heappop(self._sleepers)
                self.now = max(self.now, at)
                future.set_result(None)
        for task in tasks:
            task.result()


async def burst(world: World, pace: Pace, *, jobs: int, at_once: int = 512) -> None:
    """As a lane and its jobs do: each begins when it may, and tries again where it was refused."""

    async def begin_all() -> None:
        running: list[asyncio.Task[None]] = []
        for _ in range(jobs):
            while (wait_s := pace.begin()) > 0:
                await world.sleep(wait_s)
            running.append(asyncio.ensure_future(one()))
            if len(running) % at_once == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*running)

    async def one() -> None:
        await world.sleep(0.05)
        while not world.ask(pace):
            await world.sleep(world.retry_after_s or 0.5)
            assert await pace.turn(1000)

    await world.run(begin_all())


async def test_a_burst_within_the_limit_is_even_and_never_refused() -> None:
    world = World(20)
    pace = Pace(1200, clock=world.clock, sleep=world.sleep)
    await burst(world, pace, jobs=200)
    assert (world.taken, world.refused) == (200, 0)
    assert 9 < world.now - 1000 < 11


@pytest.mark.parametrize("retry_after_s", [1.0, None])
async def test_a_limit_that_is_too_high_is_corrected_by_the_providers_own_words(retry_after_s: float | None) -> None:
    world = World(20, retry_after_s=retry_after_s)
    pace = Pace(2400, clock=world.clock, sleep=world.sleep)
    await burst(world, pace, jobs=200)
    assert world.taken == 200
    assert world.refused <= 20, world.refused
    assert world.now - 1000 < 30


async def test_without_a_limit_a_burst_is_refused_once_and_not_again_and_again() -> None:
    world = World(20)
    pace = Pace(clock=world.clock, sleep=world.sleep)
    await burst(world, pace, jobs=200)
    assert world.taken == 200
    assert world.refused <= 180 + 20, world.refused
    assert world.now - 1000 < 40


async def test_each_worker_takes_its_share() -> None:
    world = World(1000)
    pace = Pace(600, share=lambda: 0.25, clock=world.clock, sleep=world.sleep)
    await burst(world, pace, jobs=50)
    assert 18 < world.now - 1000 < 21  # 2.5 a second


def test_without_a_limit_nothing_is_waited_for() -> None:
    pace = Pace(clock=lambda: 7.0)
    assert [pace.begin() for _ in range(1000)] == [0.0] * 1000


async def test_a_place_that_takes_too_long_is_not_taken() -> None:
    now = 1000.0
    pace = Pace(60, clock=lambda: now)
    while not pace.begin():
        pass
    before = pace.begin()
    assert not await pace.turn(0.5)
    assert pace.begin() == before


def test_a_refusal_is_forgotten_after_a_while() -> None:
    now = 1000.0
    clock: Callable[[], float] = lambda: now  # noqa: E731 it is read anew each time
    pace = Pace(clock=clock)
    for _ in range(10):
        pace.begin()
    pace.set_back(1)
    assert pace.begin() == 1
    now += 1.5
    assert pace.begin() == 0
    assert pace.begin() > 0
    now += 61
    assert [pace.begin() for _ in range(100)] == [0.0] * 100


def test_a_single_refusal_is_waited_for_and_says_nothing_of_how_many_it_takes() -> None:
    now = 1000.0
    clock: Callable[[], float] = lambda: now  # noqa: E731 as above
    pace = Pace(clock=clock)
    pace.begin()
    pace.set_back(90)
    assert pace.begin() == 5
    now += 5
    assert [pace.begin() for _ in range(500)] == [0.0] * 500
