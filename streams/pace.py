"""How fast one provider is asked: evenly, by its limit, and by what its own 429 say.

The limit is one of all workers: each takes the share that its part of the topic's partitions is, for so much of the
jobs it gets. After a 429 nobody asks for as long as it said, but for `SET_BACK_S` at most: what it said may have been
about one kind of call, and the job that it said it to waits for all of it. Then it is asked no faster than it took
calls before, a little faster every second in which it takes them, and slower when it refuses again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

BURST_S = 0.1  # as much as may be asked at once
COUNTED_S = 1.0
FEW = 3  # calls in that time: a refusal among so few says nothing of how many it takes
UNTOLD_S, SET_BACK_S = 1.0, 5.0  # of a 429 that does not say how long; at most
FIRST_PER_S, LEAST_PER_S = 5.0, 0.05
SLOWER, FASTER, FASTER_EVERY_S, FORGOTTEN_S = 0.7, 1.25, 1.0, 60.0


class Pace:
    """Of one provider in one process; GCRA, that is, a token bucket without a timer."""

    def __init__(
        self, per_minute: float | None = None, *, share: Callable[[], float] = lambda: 1.0,
        clock: Callable[[], float] = monotonic, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        """`per_minute`: calls, by all workers; None: no limit; `share`: ours, above 0."""
        self._limit = per_minute / 60 if per_minute is not None else None
        self._share, self._clock, self._sleep = share, clock, sleep
        self._next_at = 0.0  # when the next call is due, were all of them even
        self._until = 0.0
        self._learned: float | None = None  # calls a second
        self._learned_at = 0.0
        self._refused_at: float | None = None
        self._is_free = per_minute is None  # nothing is waited for
        self._counted_from = 0.0
        self._begun = self._refused = 0

    def begin(self) -> float:
        """Take the place of a call now, if there is one: 0; else in how many seconds to ask again."""
        now = self._clock()
        if self._is_free:
            self._count(now)
            return 0.0
        wait_s = self._wait_s(now)
        if wait_s <= 0:
            self._take(now)
        return max(wait_s, 0.0)

    async def turn(self, most_s: float) -> bool:
        """Wait for the place of one more call, in order; False, and at once, where it takes longer than `most_s`."""
        until = self._clock() + most_s
        while True:
            now = self._clock()
            wait_s = 0.0 if self._is_free else self._wait_s(now)
            if now + wait_s > until:
                return False
            if now < self._until:  # how fast it may be asked afterwards is known afterwards
                await self._sleep(self._until - now)
                continue
            self._take(now + max(wait_s, 0.0))
            if wait_s > 0:
                await self._sleep(wait_s)
                if self._clock() < self._until:  # it has refused another one meanwhile
                    continue
            return True

    def add(self) -> None:
        """A call is made that could not wait: those after it do."""
        self._take(self._clock())

    def set_back(self, retry_after_s: float | None) -> None:
        """It has said 429."""
        now = self._clock()
        if self._learned is not None and now >= self._until:  # the first of a burst
            self._learned, self._learned_at = max(LEAST_PER_S, self._learned * SLOWER), now
        self._refused += 1
        self._until = max(self._until, now + min(SET_BACK_S, UNTOLD_S if retry_after_s is None else retry_after_s))
        self._next_at = max(self._next_at, self._until)
        self._refused_at, self._is_free = now, False

    # --- within ---

    def _wait_s(self, now: float) -> float:
        return max(self._until - now, self._next_at - BURST_S - now)

    def _take(self, at: float) -> None:
        now = self._clock()
        if self._refused_at is not None:
            self._learn(now, self._refused_at)
        self._count(now)
        rate = self._rate()
        self._next_at = max(self._next_at, at) + (1 / rate if rate is not None else 0.0)

    def _rate(self) -> float | None:
        """Calls a second; None: as many as come."""
        limit = self._limit * self._share() if self._limit is not None else None
        if self._learned is None or limit is None:
            return self._learned if limit is None else limit
        return min(limit, self._learned)

    def _learn(self, now: float, refused_at: float) -> None:
        if now - refused_at > FORGOTTEN_S:
            self._learned, self._refused_at, self._is_free = None, None, self._limit is None
        elif self._learned is None and self._begun <= FEW:
            self._refused_at, self._is_free = None, self._limit is None
        elif self._learned is None:
            taken = (self._begun - self._refused) / max(COUNTED_S, self._until - self._counted_from)
            self._learned, self._learned_at = max(FIRST_PER_S, taken), now
        elif now - self._learned_at >= FASTER_EVERY_S:
            self._learned, self._learned_at = self._learned * FASTER, now

    def _count(self, now: float) -> None:
        """Calls of the last second or so, by which is told how many it takes."""
        if now - self._counted_from > COUNTED_S:
            self._counted_from, self._begun, self._refused = now, 0, 0
        self._begun += 1
