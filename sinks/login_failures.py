"""Logins that have failed, in Postgres: who, from where, why. Every statement on them lives here."""

import asyncio
import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from processors.loops import repeat
from schemas.request_fields import without_unstorable
from sinks.pool import Pool
from sinks.postgres import InvalidCursorError

Reason = Literal["unknown-user", "wrong-password", "user-disabled", "slowed-down"]
MAX_NAME_CHARS = 128
MAX_KEPT = 1_000_000  # some 150 MB; of more the oldest go before their time
RECENT_S, MAX_RECENT = 120.0, 200
SWEEP_EVERY_S, SWEEP_BATCH = 600.0, 1_000


@dataclass(frozen=True, slots=True)
class LoginFailure:
    """One try. `user_id`: as it was given, whoever that may be; `slowed-down`: and those after it, for a while."""

    id: int
    at: datetime
    user_id: str
    address: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class RecentFailure:
    """A wrong password from an address; `of_the_user`: for the user that was asked about."""

    age_s: float
    of_the_user: bool


class LoginFailures:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, *, user_id: str, address: str, reason: Reason) -> list[RecentFailure]:
        """Write one down. What came from that address lately, whichever replica it came to, this one with it.

        Newest first, at most 200, of the last two minutes; those that were refused for their number are not among them.
        """
        name = without_unstorable(user_id)[:MAX_NAME_CHARS]
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """WITH written AS (
                       INSERT INTO login_failures (user_id, address, reason) VALUES ($1, $2, $3)
                       RETURNING at, user_id, reason)
                   SELECT extract(epoch FROM now() - at)::float8 AS age_s, user_id = $1 AS of_the_user
                   FROM (SELECT at, user_id, reason FROM written
                         UNION ALL
                         SELECT at, user_id, reason FROM login_failures
                         WHERE at > now() - make_interval(secs => $4) AND address = $2) AS found
                   WHERE reason <> 'slowed-down' ORDER BY at DESC LIMIT $5""",
                name, address[:MAX_NAME_CHARS], reason, RECENT_S, MAX_RECENT,
            )  # fmt: skip
        return [RecentFailure(**row) for row in rows]

    async def page(
        self, *, user_id: str | None, address: str | None, since: datetime | None, to: datetime | None, limit: int,
        cursor: str | None,
    ) -> tuple[list[LoginFailure], str | None]:  # fmt: skip
        """Those that fit, newest first, and the cursor of those after them; `to` is exclusive.

        Raises:
            InvalidCursorError: It is not one of ours.
        """
        before = _decode(cursor) if cursor else None
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """SELECT id, at, user_id, address, reason FROM login_failures
                   WHERE ($1::text IS NULL OR user_id = $1) AND ($2::text IS NULL OR address = $2)
                     AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)
                     AND ($5::bigint IS NULL OR id < $5)
                   ORDER BY id DESC LIMIT $6""",
                user_id, address, since, to, before, limit + 1,
            )  # fmt: skip
        found = [LoginFailure(**row) for row in rows[:limit]]
        return found, _encode(found[-1].id) if len(rows) > limit else None

    async def delete_old(self, *, kept_days: int, kept: int = MAX_KEPT) -> int:
        """Those that are too old, or too many; at most 1,000 at once. How many that were."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """DELETE FROM login_failures WHERE id IN (
                       SELECT id FROM login_failures
                       WHERE at < now() - make_interval(days => $1)
                          OR id <= (SELECT max(id) FROM login_failures) - $2
                       ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED)
                   RETURNING id""",
                kept_days, kept, SWEEP_BATCH,
            )  # fmt: skip
        return len(rows)


async def sweep(failures: LoginFailures, *, kept_days: int) -> None:
    """Until cancelled: delete what is too old."""

    async def delete() -> None:
        while await failures.delete_old(kept_days=kept_days) == SWEEP_BATCH:
            await asyncio.sleep(0.1)  # others want the database too

    await repeat(delete, "sweeping login failures", every_s=SWEEP_EVERY_S)


def _encode(last: int) -> str:
    return base64.urlsafe_b64encode(b"%d" % last).decode().rstrip("=")


def _decode(cursor: str) -> int:
    try:
        found = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        raise InvalidCursorError from None
    if not 0 <= found < 2**63:
        raise InvalidCursorError
    return found
