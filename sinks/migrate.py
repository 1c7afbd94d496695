"""Brings the database to the schema of this version."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

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


def _config(dsn: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["dsn"] = dsn
    return config
