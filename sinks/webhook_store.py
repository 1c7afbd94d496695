"""Webhooks that are due, in Postgres: leased, tried, recorded. Every statement on them lives here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sinks.pool import Pool

LEASE = timedelta(seconds=60)  # longer than an attempt can take


@dataclass(frozen=True, slots=True)
class LeasedWebhook:
    """One attempt that is ours to make. `attempt`: how many were made before."""

    webhook_id: str
    job_id: UUID
    user_id: str
    url: str
    body: str
    attempt: int
    lease_id: UUID


class WebhookStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lease(self, limit: int, *, now: datetime, except_hosts: Sequence[str] = ()) -> list[LeasedWebhook]:
        """Take at most so many that are due and that nobody has; after 60 s they are anybody's again.

        `except_hosts`: those that have enough attempts under way.
        """
        lease_id = uuid4()
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """UPDATE webhooks SET lease_id = $1, leased_until = $3
                   WHERE webhook_id IN (
                       SELECT webhook_id FROM webhooks
                       WHERE state = 'due' AND due_at <= $2 AND (leased_until IS NULL OR leased_until <= $2)
                         AND NOT (lower(substring(url from '^[a-z]+://([^/?#]+)')) = ANY($5::text[]))
                       ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED)
                   RETURNING webhook_id, job_id, user_id, url, body, attempt, lease_id""",
                lease_id, now, now + LEASE, limit, list(except_hosts),
            )  # fmt: skip
        return [LeasedWebhook(**row) for row in rows]

    async def give_back(self, leased: LeasedWebhook) -> None:
        """Not tried after all."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE webhooks SET lease_id = NULL, leased_until = NULL WHERE webhook_id = $1 AND lease_id = $2",
                leased.webhook_id, leased.lease_id,
            )  # fmt: skip

    async def record(
        self, leased: LeasedWebhook, *, at: datetime, status_code: int | None, error: str | None, state: str,
        next_at: datetime | None,
    ) -> bool:  # fmt: skip
        """Write down an attempt; False if the lease was lost meanwhile, when another one has tried."""
        async with self._pool.connection() as connection, connection.transaction():
            ours = await connection.fetchval(
                """UPDATE webhooks SET attempt = attempt + 1, state = $3, due_at = coalesce($4, due_at),
                                       lease_id = NULL, leased_until = NULL
                   WHERE webhook_id = $1 AND lease_id = $2 RETURNING attempt""",
                leased.webhook_id, leased.lease_id, state, next_at,
            )  # fmt: skip
            if ours is None:
                return False
            await connection.execute(
                """INSERT INTO webhook_attempts (webhook_id, attempt, at, status_code, error, next_at)
                   VALUES ($1, $2, $3, $4, $5, $6)""",
                leased.webhook_id, ours, at, status_code, error, next_at,
            )  # fmt: skip
        return True

    async def attempts(self, job_id: UUID) -> list[dict[str, Any]]:
        """Of a job's webhooks, oldest first: `{attempt, at, status_code?, error?, next_at?}`."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """SELECT a.attempt, a.at, a.status_code, a.error, a.next_at
                   FROM webhook_attempts a JOIN webhooks w USING (webhook_id)
                   WHERE w.job_id = $1 ORDER BY a.at, a.attempt LIMIT 100""",
                job_id,
            )
        return [{name: value for name, value in row.items() if value is not None} for row in rows]
