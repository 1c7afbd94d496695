"""How alembic reaches the database: over asyncpg, one migrating process at a time."""

import asyncio
from functools import partial

import asyncpg
from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sinks.pool import CONNECT_TIMEOUT_S

LOCK = 4_107_000_001  # any number; the same in every process


def _run(connection: Connection) -> None:
    connection.execute(text("SET lock_timeout = '60s'"))
    connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    context.configure(connection=connection, target_metadata=None)
    context.run_migrations()


async def _migrate() -> None:
    # asyncpg reads the address itself: SQLAlchemy would not understand libpq's parameters in it, such as sslmode.
    connect = partial(asyncpg.connect, context.config.attributes["dsn"], timeout=CONNECT_TIMEOUT_S)
    engine = create_async_engine("postgresql+asyncpg://", poolclass=NullPool, async_creator=connect)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_run)
    finally:
        await engine.dispose()


asyncio.run(_migrate())
