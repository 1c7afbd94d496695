"""Watches stored outcomes while things break: how long nothing was finished, and how much waits."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx

POLL_S = 0.2
ASK_TIMEOUT_S = 2.0
MARK_EARLIER = timedelta(seconds=30)
# The last one: asyncpg is told to end a query that it is just about to end.
NO_ANSWER = (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
COUNT = """SELECT count(*) FILTER (WHERE status <> 'pending'), count(*) FROM jobs WHERE accepted_at >= $1"""


class Monitor:
    """`pause_s`: longest time without a new outcome since `mark`, while jobs were sent and waited."""

    def __init__(self, dsn: str, provider_url: str, *, acked: Callable[[], int]) -> None:
        self._dsn, self._provider, self._acked = dsn, provider_url.removesuffix("/v1"), acked
        self._connection: asyncpg.Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._since = datetime.now(UTC)
        self._acked_before = 0
        self._base: int | None = None
        self._finished = 0
        self._total_finished_before = 0
        self._moved_at = time.monotonic()
        self.pause_s = 0.0

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._run(), name="monitor")

    async def stop(self) -> None:
        """May be called twice."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._drop()

    def mark(self) -> None:
        """A new window begins."""
        self._since = datetime.now(UTC) - MARK_EARLIER
        self._base = None
        self.pause_s, self._moved_at = 0.0, time.monotonic()

    @property
    def waiting(self) -> int:
        """Of the jobs accepted since shortly before the mark, those without an outcome, as last seen."""
        return self._waiting

    _waiting = 0

    async def busy(self) -> int:
        """Calls that the provider has open."""
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
                return int((await client.get(f"{self._provider}/busy")).content)
        return 0

    async def _run(self) -> None:
        while True:
            since = self._since
            with contextlib.suppress(*NO_ANSWER):
                finished, total = await asyncio.wait_for(self._ask(since), ASK_TIMEOUT_S)
                if since == self._since:
                    self._look(finished, total - finished)
            now = time.monotonic()
            if self._waiting or self._acked() > self._acked_before:
                self.pause_s = max(self.pause_s, now - self._moved_at)
            await asyncio.sleep(POLL_S)

    def _look(self, finished: int, waiting: int) -> None:
        self._waiting = waiting
        if self._base is None or finished > self._finished:
            self._moved_at = time.monotonic()
            self._acked_before = self._acked()
        self._base = self._base if self._base is not None else finished
        self._finished = finished

    async def _ask(self, since: datetime) -> tuple[int, int]:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._dsn, timeout=ASK_TIMEOUT_S)
            row = await self._connection.fetchrow(COUNT, since)
        except BaseException:
            await self._drop()
            raise
        return row[0], row[1]

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
