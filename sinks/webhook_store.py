"""Webhooks that are due, in Postgres: leased, tried, recorded. Every statement on them lives here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sinks.clock import by_postgres
from sinks.pool import Pool

LEASE = timedelta(seconds=60)  # longer than an attempt can take

# Of those that are due longest, as many per host as it has room for; two senders at once never take the same.
TAKE_LEASES = """
WITH due AS (
    SELECT webhook_id, host, row_number() OVER (PARTITION BY host ORDER BY due_at) AS place
    FROM (SELECT webhook_id, due_at, host
          FROM webhooks, coalesce(lower(substring(url from '^[A-Za-z]+://([^/?#]+)')), '') AS host
          WHERE state = 'due' AND due_at <= coalesce($2::timestamptz, now())
            AND (leased_until IS NULL OR leased_until <= coalesce($2, now()))
            AND NOT host = ANY($7::text[])
          ORDER BY due_at LIMIT $4) AS oldest),
ours AS (
    SELECT webhook_id, host
    FROM webhooks JOIN due USING (webhook_id) LEFT JOIN unnest($5::text[], $6::int[]) AS b (host, busy) USING (host)
    WHERE place <= $8 - coalesce(busy, 0)
      AND state = 'due' AND (leased_until IS NULL OR leased_until <= coalesce($2, now()))
    FOR UPDATE OF webhooks SKIP LOCKED)
UPDATE webhooks AS w SET lease_id = $1, leased_until = coalesce($2, now()) + $3::interval FROM ours
WHERE w.webhook_id = ours.webhook_id
RETURNING w.webhook_id, job_id, user_id, url, host, body, attempt, lease_id, coalesce($2, now()) AS at
"""

RECORD = f"""
UPDATE webhooks SET attempt = attempt + 1, state = $3, lease_id = NULL, leased_until = NULL,
    due_at = coalesce({by_postgres("$4::timestamptz", shown="$5::timestamptz")}, due_at)
WHERE webhook_id = $1 AND lease_id = $2 RETURNING attempt, due_at
"""  # noqa: S608 constant

# One that is being tried now stays as it is: that attempt is the new one. A lease that ran out is void, and fenced.
SEND_AGAIN = """
UPDATE webhooks SET state = 'due', due_at = now(), lease_id = NULL, leased_until = NULL
WHERE webhook_id = ANY($1::text[]) AND (leased_until IS NULL OR leased_until <= now())
"""


@dataclass(frozen=True, slots=True)
class LeasedWebhook:
    """One attempt that is ours to make.

    `host`: with its port; `attempt`: how many were made before; `at`: when it was taken, as `lease` knows the time.
    """

    webhook_id: str
    job_id: UUID
    user_id: str
    url: str
    host: str
    body: str
    attempt: int
    lease_id: UUID
    at: datetime


class WebhookStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lease(
        self, limit: int, *, per_host: int, busy: Mapping[str, int], now: datetime | None = None
    ) -> list[LeasedWebhook]:  # fmt: skip
        """Take at most so many that are due and that nobody has; after 60 s they are anybody's again.

        `busy`: attempts under way per host, which count towards `per_host`; `now`: None: by Postgres's clock.
        """
        full = [host for host, attempts in busy.items() if attempts >= per_host]
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                TAKE_LEASES, uuid4(), now, LEASE, limit, list(busy), list(busy.values()), full, per_host
            )
        return [LeasedWebhook(**row) for row in rows]

    async def record(
        self, leased: LeasedWebhook, *, at: datetime, status_code: int | None, error: str | None, state: str,
        next_at: datetime | None, clock: datetime | None = None,
    ) -> bool:  # fmt: skip
        """Write down an attempt; False if the lease was lost meanwhile, when another one has tried.

        `clock`: what that one shows now by which `next_at` was reckoned; None: it is Postgres's.
        """
        async with self._pool.connection() as connection, connection.transaction():
            row = await connection.fetchrow(RECORD, leased.webhook_id, leased.lease_id, state, next_at, clock)
            if row is None:
                return False
            ours, next_at = row["attempt"], row["due_at"] if next_at is not None else None
            await connection.execute(
                """INSERT INTO webhook_attempts (webhook_id, attempt, at, status_code, error, next_at)
                   VALUES ($1, $2, $3, $4, $5, $6)""",
                leased.webhook_id, ours, at, status_code, error, next_at,
            )  # fmt: skip
        return True

    async def attempts(self, job_id: UUID) -> list[dict[str, Any]]:
        """The newest 100 of a job's webhooks, oldest first: `{attempt, at, status_code?, error?, next_at?}`."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """SELECT a.attempt, a.at, a.status_code, a.error, a.next_at
                   FROM webhook_attempts a JOIN webhooks w USING (webhook_id)
                   WHERE w.job_id = $1 ORDER BY a.at DESC, a.attempt DESC LIMIT 100""",
                job_id,
            )
        return [{name: value for name, value in row.items() if value is not None} for row in reversed(rows)]

    async def send_again(self, job_id: UUID) -> bool:
        """Have the webhook of a job's last run sent again at once, as it is stored; False if there is none."""
        async with self._pool.connection() as connection, connection.transaction():
            webhook_id = await connection.fetchval(
                "SELECT webhook_id FROM webhooks WHERE job_id = $1 ORDER BY created_at DESC LIMIT 1", job_id
            )
            if webhook_id is None:
                return False
            await connection.execute(SEND_AGAIN, [webhook_id])
        return True

    async def send_all_again(
        self, *, begin: datetime, end: datetime, user_id: str | None, state: str | None, limit: int,
        after: tuple[datetime, str] | None,
    ) -> list[tuple[UUID, str, datetime]]:  # fmt: skip
        """The same for at most `limit` of those stored in a time, oldest first.

        Args:
            begin: Stored then or later.
            end: Stored before.
            user_id: Whose; None: everybody's.
            state: Only of this state.
            limit: How many.
            after: Only those behind this one: its time and id.

        Returns:
            Job, id and time of each, in order.
        """
        async with self._pool.connection() as connection, connection.transaction():
            rows = await connection.fetch(
                """SELECT job_id, webhook_id, created_at FROM webhooks
                   WHERE created_at >= $1 AND created_at < $2 AND ($3::text IS NULL OR user_id = $3)
                     AND ($4::text IS NULL OR state = $4)
                     AND ($5::timestamptz IS NULL OR (created_at, webhook_id) > ($5, $6::text))
                   ORDER BY created_at, webhook_id LIMIT $7""",
                begin, end, user_id, state, *(after or (None, None)), limit,
            )  # fmt: skip
            await connection.execute(SEND_AGAIN, [row["webhook_id"] for row in rows])
        return [(row["job_id"], row["webhook_id"], row["created_at"]) for row in rows]
