"""All jobs that somebody listens to at this replica: one channel each, however many listen."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from prometheus_client import Gauge

from ingress.follower import Follower
from ingress.following.channel import Channel, Find
from ingress.following.listener import Listener
from ingress.following.live import LiveDeltas
from ingress.following.past import PastDeltas
from ingress.following.told import Budget

LINGER_S = 2.0  # after its end: who comes a moment later than the others needs no read of the topic
LISTENERS = Gauge("assistant_stream_listeners", "Who listens to an answer now")


class TooManyListenersError(Exception):
    """This replica has as many as it can hold."""


class TooManyOfUserError(TooManyListenersError):
    """This user has as many as they may have here."""


class Channels:
    """All jobs that somebody listens to here."""

    def __init__(
        self, follower: Follower, live: LiveDeltas, past: PastDeltas, *, find: Find,
        max_listeners: int, max_bytes: int, max_job_bytes: int, is_draining: Callable[[], bool],
        linger_s: float = LINGER_S,
    ) -> None:  # fmt: skip
        """`find`: awaited for the outcome of a job that may have ended; `max_*`: what this process may hold."""
        self._follower, self._live, self._past, self._find = follower, live, past, find
        self._max_listeners, self._is_draining, self._linger_s = max_listeners, is_draining, linger_s
        self.budget = Budget(max_bytes, max_job_bytes)
        self._channels: dict[UUID, Channel] = {}
        self._count = 0
        self._of_users: Counter[str] = Counter()
        self._dropping: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to hear; returns at once."""
        self._live.start()
        self._watching = asyncio.create_task(self._close_when_draining(), name="channels")

    async def stop(self) -> None:
        """May be called twice."""
        if self._watching is not None:
            self._watching.cancel()
        for dropping in self._dropping:
            dropping.cancel()
        await asyncio.gather(*self._dropping, return_exceptions=True)
        await asyncio.gather(*(channel.drop() for channel in self._channels.values()))
        await self._live.stop()
        await self._past.stop()

    @contextmanager
    def listen(
        self, job_id: UUID, *, after: str | None, since_ms: float | None, user_id: str = "", most: int | None = None
    ) -> Iterator[Listener]:
        """Listen to a job, from where they were; see `Channel`.

        Args:
            job_id: Which.
            after: The last event that they have.
            since_ms: As `Channel` takes it.
            user_id: Who listens.
            most: How often they may at once, here.

        Raises:
            TooManyListenersError, NotFollowedError: Not here, not now.
        """
        if most is not None and self._of_users[user_id] >= most:
            raise TooManyOfUserError
        if self._count >= self._max_listeners or self.budget.held >= self.budget.max_bytes:
            raise TooManyListenersError
        channel = self._channels.get(job_id)
        if channel is None or not channel.takes_listeners:
            channel = Channel(
                job_id, follower=self._follower, live=self._live, past=self._past, budget=self.budget,
                find=self._find, since_ms=since_ms,
            )  # fmt: skip
            channel.open()
            self._channels[job_id] = channel
        listener = Listener(channel, after)
        channel.listeners.add(listener)
        self._count += 1
        self._of_users[user_id] += 1
        LISTENERS.inc()
        try:
            yield listener
        finally:
            self._count -= 1
            self._of_users[user_id] -= 1
            if not self._of_users[user_id]:
                del self._of_users[user_id]
            LISTENERS.dec()
            channel.listeners.discard(listener)
            if not channel.listeners:
                self._leave(channel)

    def _leave(self, channel: Channel) -> None:
        """Nobody listens to it any more."""

        async def drop() -> None:
            try:
                # Held without a listener only while there is room for many more.
                if channel.end is not None and self.budget.held * 2 < self.budget.max_bytes:
                    await asyncio.sleep(self._linger_s)
            finally:
                if not channel.listeners:
                    if self._channels.get(channel.job_id) is channel:
                        del self._channels[channel.job_id]
                    await channel.drop()

        dropping = asyncio.create_task(drop())
        self._dropping.add(dropping)
        dropping.add_done_callback(self._dropping.discard)

    def listeners(self, job_id: UUID) -> int:
        """How many listen to it here."""
        channel = self._channels.get(job_id)
        return len(channel.listeners) if channel else 0

    @property
    def problem(self) -> str | None:
        """Why nobody can listen now."""
        return self._live.problem

    async def _close_when_draining(self) -> None:
        while not self._is_draining():
            await asyncio.sleep(0.5)
        for channel in list(self._channels.values()):
            channel.close("this replica is stopping")
