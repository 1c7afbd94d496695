"""Users in Postgres, with their password hashes; what others need of them is on `user-updated`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from processors.errors import PermanentError
from schemas.envelope import Attributes, Record
from schemas.events import UserUpdated
from schemas.requests import Role
from sinks.pool import Pool

LIFT = """
UPDATE users SET quarantined_until = NULL, incidents_count_from = now(), announced = false WHERE user_id = $1
RETURNING *
"""


class UserExistsError(PermanentError):
    """The name is taken."""

    def __init__(self, user_id: str) -> None:
        super().__init__("user-exists", f"the user {user_id} exists already")


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user as stored. `announced`: `user-updated` has it."""

    user_id: str
    password_hash: str
    role: Role
    disabled: bool
    token_epoch: int
    rate_limit_requests: int | None
    announced: bool
    quarantined_until: datetime | None = None

    def event(self) -> UserUpdated:
        """As the others know it."""
        return UserUpdated(
            user_id=self.user_id,
            role=self.role,
            disabled=self.disabled,
            token_epoch=self.token_epoch,
            rate_limit_requests=self.rate_limit_requests,
            quarantined_until=self.quarantined_until,
        )

    def announcement(self, topic: str, *, source: str = "/ingress") -> Record:
        """The user as a record of `user-updated`; `source`: who says it."""
        attributes = Attributes(f"{self.user_id}/{self.token_epoch}", source, "user-updated")
        return Record(topic, self.user_id.encode(), self.event().model_dump_json().encode(), attributes.headers())


class UserStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def create(self, user_id: str, password_hash: str, role: Role) -> UserRow:
        """A new user, not announced yet.

        Raises:
            UserExistsError: The name is taken.
        """
        async with self._pool.connection() as connection:
            try:
                row = await connection.fetchrow(
                    "INSERT INTO users (user_id, password_hash, role) VALUES ($1, $2, $3) RETURNING *",
                    user_id, password_hash, role,
                )  # fmt: skip
            except asyncpg.UniqueViolationError:
                raise UserExistsError(user_id) from None
        return _user(row)

    async def get(self, user_id: str) -> UserRow | None:
        """One user, or None."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow("SELECT * FROM users WHERE user_id = $1", user_id)
        return _user(row) if row else None

    async def page(self, *, after: str, limit: int) -> list[UserRow]:
        """Users in order of their names, those that come after `after` ("" for the first page)."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT * FROM users WHERE user_id > $1 ORDER BY user_id LIMIT $2", after, limit
            )
        return [_user(row) for row in rows]

    async def unknown(self, user_ids: Sequence[str]) -> list[str]:
        """Those of them that are not here."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT user_id FROM unnest($1::text[]) AS u (user_id) EXCEPT SELECT user_id FROM users", list(user_ids)
            )
        return sorted(row["user_id"] for row in rows)

    @asynccontextmanager
    async def announcing(self, user_id: str) -> AsyncIterator[UserRow | None]:
        """The user as they are now, to be published inside; afterwards it is written down that they were.

        Nobody changes or announces the user meanwhile: of two who tell of them the later one tells the newer state.
        """
        async with self._pool.connection() as connection, connection.transaction():
            row = await connection.fetchrow("SELECT * FROM users WHERE user_id = $1 FOR UPDATE", user_id)
            yield _user(row) if row else None
            await connection.execute("UPDATE users SET announced = true WHERE user_id = $1", user_id)

    async def lift_quarantine(self, user_id: str) -> UserRow | None:
        """End a user's quarantine, if they are in one; what brought them there counts no more. None: no such user."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(LIFT, user_id)
        return _user(row) if row else None

    async def mark_announced(self, user_id: str) -> None:
        """`user-updated` has the user now."""
        async with self._pool.connection() as connection:
            await connection.execute("UPDATE users SET announced = true WHERE user_id = $1", user_id)

    async def set_password_hash(self, user_id: str, password_hash: str) -> None:
        """The same password under newer parameters, or a new one."""
        async with self._pool.connection() as connection:
            await connection.execute("UPDATE users SET password_hash = $2 WHERE user_id = $1", user_id, password_hash)


def _user(row: Any) -> UserRow:
    return UserRow(**{name: row[name] for name in UserRow.__slots__})
