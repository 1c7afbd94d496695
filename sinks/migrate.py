"""Brings the database to the schema of this version."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config

FOLDER = Path(__file__).parent / "migrations"


async def migrate(dsn: str) -> None:
    """Run what is missing of `sinks/migrations`; several processes may call it at once.

    Args:
        dsn: `postgresql://...`

    Raises:
        OSError, sqlalchemy.exc.DBAPIError: The database is away or refuses.
    """
    await asyncio.to_thread(command.upgrade, _config(dsn), "head")


def _config(dsn: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    config.attributes["dsn"] = dsn.replace("postgresql://", "postgresql+asyncpg://", 1)
    return config
