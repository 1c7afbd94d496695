"""API keys in Postgres, as hashes. Every statement on them lives here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from processors.errors import PermanentError
from sinks.pool import Pool

MAX_PER_USER = 100
COLUMNS = "key_id, user_id, name, digest, scopes, created_at, expires_at, last_used_at"


class TooManyKeysError(PermanentError):
    """The user has as many as may be."""

    def __init__(self) -> None:
        super().__init__("too-many-keys", f"you have {MAX_PER_USER} API keys: delete one that is not used any more")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored. `digest`: SHA-256 of its secret; `last_used_at`: to the minute or so."""

    key_id: UUID
    user_id: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class ApiKeyStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(
        self, key_id: UUID, *, user_id: str, name: str, digest: bytes, scopes: Sequence[str],
        expires_at: datetime | None,
    ) -> ApiKey | None:  # fmt: skip
        """A new key; None where its user is gone by now.

        Raises:
            TooManyKeysError: There is no room for it.
        """
        async with self._pool.connection() as connection, connection.transaction():
            # Locked: two at once do not both find the last place free, nor a user who is just being deleted.
            user = await connection.fetchrow(
                "SELECT user_id FROM users WHERE user_id = $1 AND NOT disabled FOR UPDATE", user_id
            )
            if user is None:
                return None
            if await connection.fetchval("SELECT count(*) FROM api_keys WHERE user_id = $1", user_id) >= MAX_PER_USER:
                raise TooManyKeysError
            row = await connection.fetchrow(
                f"""INSERT INTO api_keys (key_id, user_id, name, digest, scopes, expires_at)
                    VALUES ($1, $2, $3, $4, $5, $6) RETURNING {COLUMNS}""",  # noqa: S608 constant
                key_id, user_id, name, digest, list(scopes), expires_at,
            )  # fmt: skip
        return _key(row)

    async def find(self, key_ids: Sequence[UUID]) -> dict[UUID, ApiKey]:
        """Those of them that there are."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(f"SELECT {COLUMNS} FROM api_keys WHERE key_id = ANY($1)", list(key_ids))  # noqa: S608 constant
        return {row["key_id"]: _key(row) for row in rows}

    async def of_user(self, user_id: str) -> list[ApiKey]:
        """All of a user's, the newest first: at most `MAX_PER_USER`."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {COLUMNS} FROM api_keys WHERE user_id = $1 ORDER BY created_at DESC, key_id",  # noqa: S608 constant
                user_id,
            )
        return [_key(row) for row in rows]

    async def delete(self, key_id: UUID, *, user_id: str | None) -> bool:
        """True if it is gone now and was there; `user_id`: only if it is theirs."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                "DELETE FROM api_keys WHERE key_id = $1 AND ($2::text IS NULL OR user_id = $2) RETURNING key_id",
                key_id, user_id,
            )  # fmt: skip
        return row is not None

    async def touch(self, key_ids: Sequence[UUID]) -> None:
        """They were used now; not written more often than once a minute."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """UPDATE api_keys SET last_used_at = now()
                   WHERE key_id = ANY($1)
                     AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')""",
                list(key_ids),
            )


def _key(row: Any) -> ApiKey:
    return ApiKey(**{**row, "scopes": tuple(row["scopes"])})
