"""Connections to Postgres: a bounded pool that starts without it, and comes back by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson

from processors.errors import PermanentError, RetryableError

COMMAND_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
UNAVAILABLE = "postgres-unavailable"
REFUSED = "row-refused"


class Pool:
    """An asyncpg pool whose failures are ours: `RetryableError` when the database is away."""

    def __init__(self, dsn: str, *, size: int) -> None:
        """`size`: connections at most; waiting for one is bounded too."""
        self._dsn, self._size = dsn, size
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._asking: asyncio.Task[bool] | None = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """A connection for one transaction or statement.

        Raises:
            RetryableError: The database is away, overloaded, or broke off.
            PermanentError: It refused the data.
        """
        try:
            pool = self._pool or await self._open()
            async with pool.acquire(timeout=CONNECT_TIMEOUT_S) as connection:
                yield connection
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError) as e:
            raise PermanentError(REFUSED, type(e).__name__) from e  # the message may hold the row's text
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as e:
            raise RetryableError(UNAVAILABLE, f"Postgres does not answer ({type(e).__name__})") from e

    async def _open(self) -> "asyncpg.Pool":
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._size,
                    timeout=CONNECT_TIMEOUT_S,
                    command_timeout=COMMAND_TIMEOUT_S,
                    max_inactive_connection_lifetime=60,
                    init=_set_up,
                    reset=_as_it_is,
                    server_settings={"statement_timeout": str(int(COMMAND_TIMEOUT_S * 1000)), "lock_timeout": "5000"},
                )
            return self._pool

    async def answers(self, *, within_s: float) -> bool:
        """True if the database can be used now, and says so in time.

        Who asks is answered then; the question itself is not cancelled, for taking one back asks the server again.
        There is one at a time, however many ask.
        """
        asking = self._asking
        if asking is None or asking.done():
            asking = self._asking = asyncio.create_task(self._answers(), name="postgres answers")
        await asyncio.wait({asking}, timeout=within_s)
        return asking.done() and asking.result()

    async def _answers(self) -> bool:
        try:
            async with self.connection() as connection:
                await connection.execute("SELECT 1")
        except RetryableError:
            return False
        return True

    async def close(self) -> None:
        """Bounded; may be called without ever having connected."""
        if self._asking is not None:
            self._asking.cancel()
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), 5)
            except TimeoutError:
                self._pool.terminate()


async def _as_it_is(connection: Any) -> None:
    """Between two users of a connection: what is open of a transaction is rolled back in any case, and nobody here
    changes settings, listens or keeps locks. asyncpg's own way is one more question to the server for each of ours.
    """


async def _set_up(connection: Any) -> None:
    await connection.set_type_codec(
        "jsonb", encoder=lambda value: orjson.dumps(value).decode(), decoder=orjson.loads, schema="pg_catalog"
    )
