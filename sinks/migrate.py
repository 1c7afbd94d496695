"""Brings the database to the schema of this version."""

import asyncio
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from sinks.pool import CONNECT_TIMEOUT_S

FOLDER = Path(__file__).parent / "migrations"


async def migrate(dsn: str) -> None:
    """Run what is missing of `sinks/migrations`; several processes may call it at once.

    Args:
        dsn: `postgresql://...`

    Raises:
        OSError: The database is away, lets nobody in, refuses a statement, or another process migrates for over 60 s.
    """
    try:
        await asyncio.to_thread(command.upgrade, _config(dsn), "head")
    except DBAPIError as error:
        raise OSError(f"Postgres refuses: {error.orig}") from error


async def revision(dsn: str) -> str | None:
    """The database's revision; None where it has no schema of ours.

    Raises:
        OSError: The database is away, or lets nobody in.
    """
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise OSError(f"Postgres does not answer: {error or type(error).__name__}") from error
    try:
        found: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    finally:
        await connection.close()
    return found


def head_revision() -> str:
    """The revision that this version needs."""
    head = ScriptDirectory.from_config(_config("")).get_current_head()
    if head is None:
        raise RuntimeError("there are no migrations")
    return head


def _config(dsn: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["dsn"] = dsn
    return config
