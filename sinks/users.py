"""Users in Postgres, with their password hashes; what others need of them is on `user-updated`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from processors.errors import PermanentError
from schemas.envelope import Attributes, Record
from schemas.events import UserUpdated
from schemas.request_fields import Role
from sinks.pool import Pool

CHANGEABLE = (
    "role", "disabled", "password_hash", "rate_limit_requests", "tokens_per_minute", "max_in_flight", "max_pending",
)  # fmt: skip
LIFT = """
UPDATE users SET quarantined_until = NULL, incidents_count_from = now(), announced = false WHERE user_id = $1
RETURNING *
"""


class UserExistsError(PermanentError):
    """The name is taken, or was once."""

    def __init__(self, user_id: str) -> None:
        super().__init__("user-exists", f"the user {user_id} exists already, or did: no name is given twice")


class LastAdminError(PermanentError):
    """Nobody would be left who may change users."""

    def __init__(self) -> None:
        detail = "this is the last admin who is not disabled: make somebody else an admin before"
        super().__init__("last-admin", detail)


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user as stored. `announced`: `user-updated` has the user as they are here."""

    user_id: str
    password_hash: str
    role: Role
    disabled: bool
    token_epoch: int
    rate_limit_requests: int | None
    announced: bool
    tokens_per_minute: int | None = None
    max_in_flight: int | None = None
    max_pending: int | None = None
    created_at: datetime | None = None
    deleted_at: datetime | None = None
    quarantined_until: datetime | None = None

    def event(self) -> UserUpdated:
        """As the others know it."""
        return UserUpdated(
            user_id=self.user_id,
            role=self.role,
            disabled=self.disabled,
            token_epoch=self.token_epoch,
            rate_limit_requests=self.rate_limit_requests,
            tokens_per_minute=self.tokens_per_minute,
            max_in_flight=self.max_in_flight,
            max_pending=self.max_pending,
            quarantined_until=self.quarantined_until,
        )

    def announcement(self, topic: str, *, source: str = "/ingress") -> Record:
        """The user as a record of `user-updated`; `source`: who says it."""
        attributes = Attributes(f"{self.user_id}/{self.token_epoch}", source, "user-updated")
        return Record(topic, self.user_id.encode(), self.event().model_dump_json().encode(), attributes.headers())


class UserStore:
    """Every method raises RetryableError while Postgres is away.

    A user who is deleted stays as a row that is disabled for ever, so that nobody else gets the name with its jobs.
    """

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
        """One user, also one that is deleted, or None."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow("SELECT * FROM users WHERE user_id = $1", user_id)
        return _user(row) if row else None

    async def page(self, *, after: str, limit: int, with_deleted: bool = True) -> list[UserRow]:
        """Users in order of their names, those that come after `after` ("" for the first page)."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """SELECT * FROM users WHERE user_id > $1 AND ($3 OR deleted_at IS NULL)
                   ORDER BY user_id LIMIT $2""",
                after, limit, with_deleted,
            )  # fmt: skip
        return [_user(row) for row in rows]

    async def unknown(self, user_ids: Sequence[str]) -> list[str]:
        """Those of them that are not here."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT user_id FROM unnest($1::text[]) AS u (user_id) EXCEPT SELECT user_id FROM users", list(user_ids)
            )
        return sorted(row["user_id"] for row in rows)

    async def change(
        self, user_id: str, changes: Mapping[str, Any], *, revoke: bool = False, password_was: str | None = None
    ) -> UserRow | None:
        """The user as changed, not announced yet; None where there is none, or none with that hash.

        Whoever is disabled, or gets another password or role, loses every token that was issued before.

        Args:
            user_id: Whose.
            changes: New values by column, of `CHANGEABLE`.
            revoke: Tokens lose their worth whatever is changed.
            password_was: Only if this is the hash that is stored: nobody has changed it meanwhile.

        Raises:
            LastAdminError: No admin would be left.
        """
        async with self._pool.connection() as connection, connection.transaction():
            if changes.get("disabled") or changes.get("role", "admin") != "admin":
                await _leave_an_admin(connection, user_id)
            row = await connection.fetchrow(
                "SELECT * FROM users WHERE user_id = $1 AND deleted_at IS NULL FOR UPDATE", user_id
            )
            if row is None or (password_was is not None and row["password_hash"] != password_was):
                return None
            names = [name for name in CHANGEABLE if name in changes]
            revokes = (
                revoke
                or "password_hash" in changes
                or (changes.get("disabled") is True and not row["disabled"])
                or changes.get("role", row["role"]) != row["role"]
            )
            given = "".join(f", {name} = ${place}" for place, name in enumerate(names, start=3))
            row = await connection.fetchrow(
                f"""UPDATE users SET announced = false, token_epoch = token_epoch + $2{given}
                    WHERE user_id = $1 RETURNING *""",  # noqa: S608 names are ours
                user_id, int(revokes), *(changes[name] for name in names),
            )  # fmt: skip
        return _user(row)

    async def delete(self, user_id: str) -> bool:
        """The user is gone for everybody, and with them their password and their API keys; False where there is none.

        Raises:
            LastAdminError: No admin would be left.
        """
        async with self._pool.connection() as connection, connection.transaction():
            await _leave_an_admin(connection, user_id)
            row = await connection.fetchrow(
                """UPDATE users SET announced = false, token_epoch = token_epoch + 1, disabled = true, role = 'user',
                                    password_hash = '', deleted_at = now()
                   WHERE user_id = $1 AND deleted_at IS NULL RETURNING user_id""",
                user_id,
            )
            if row is not None:
                await connection.execute("DELETE FROM api_keys WHERE user_id = $1", user_id)
        return row is not None

    @asynccontextmanager
    async def announcing(self, user_id: str) -> AsyncIterator[UserRow | None]:
        """The user, whom nobody else changes or announces meanwhile; announced once the block has ended well.

        So what is on `user-updated` last is what is stored, whichever replica said it.
        """
        async with self._pool.connection() as connection, connection.transaction():
            row = await connection.fetchrow("SELECT * FROM users WHERE user_id = $1 FOR UPDATE", user_id)
            yield _user(row) if row else None
            await connection.execute("UPDATE users SET announced = true WHERE user_id = $1 AND NOT announced", user_id)

    async def lift_quarantine(self, user_id: str) -> UserRow | None:
        """End a user's quarantine, if they are in one; what brought them there counts no more. None: no such user."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(LIFT, user_id)
        return _user(row) if row else None

    async def unannounced(self, *, limit: int) -> list[str]:
        """Users whose newest state is not on `user-updated` yet, as far as is known."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                "SELECT user_id FROM users WHERE NOT announced ORDER BY user_id LIMIT $1", limit
            )
        return [row["user_id"] for row in rows]

    async def set_password_hash(self, user_id: str, password_hash: str, *, instead_of: str) -> None:
        """The same password under newer parameters; nothing happens where it is another one by now."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE users SET password_hash = $2 WHERE user_id = $1 AND password_hash = $3",
                user_id, password_hash, instead_of,
            )  # fmt: skip


async def _leave_an_admin(connection: Any, user_id: str) -> None:
    """Lock all admins, in one order for everybody: of two who would each leave the other one, one is refused."""
    rows = await connection.fetch(
        "SELECT user_id FROM users WHERE role = 'admin' AND NOT disabled ORDER BY user_id FOR UPDATE"
    )
    if [row["user_id"] for row in rows] == [user_id]:
        raise LastAdminError


def _user(row: Any) -> UserRow:
    return UserRow(**{name: row[name] for name in UserRow.__slots__})
