"""Events that are due later, in Postgres: kept, leased, taken away. Every statement on them lives here."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from processors.ports import DueEvent
from schemas.envelope import Headers, Record
from sinks.clock import by_postgres
from sinks.pool import Pool

LEASE = timedelta(seconds=15)  # publishing takes milliseconds; what outlasts it is published twice, with one id

INSERT = f"""
INSERT INTO due_events (due_id, job_id, run, stage, code, attempts, topic, key, headers, value, due_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, {by_postgres("$11::timestamptz", shown="$12::timestamptz")})
ON CONFLICT (due_id) DO NOTHING
"""  # noqa: S608 constant

# What yields to any other outcome of its run (see `sinks.postgres`) has ended nothing: it still runs.
ENDED = """
    EXISTS (SELECT FROM jobs j WHERE j.job_id = d.job_id AND j.status <> 'pending' AND j.run >= d.run
                                 AND (coalesce(j.error->>'code', '') NOT IN ('rate-limited', 'quarantined')
                                      OR j.deleted_at IS NOT NULL))
"""

DELETE_ENDED = f"""
DELETE FROM due_events WHERE due_id IN (
    SELECT due_id FROM due_events d WHERE due_at <= coalesce($1::timestamptz, now()) AND {ENDED}
    ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED)
"""  # noqa: S608 constant

TAKE_LEASES = f"""
UPDATE due_events AS e SET lease_id = $1, leased_until = coalesce($2::timestamptz, now()) + $3::interval
FROM (SELECT due_id FROM due_events d
      WHERE due_at <= coalesce($2, now()) AND (leased_until IS NULL OR leased_until <= coalesce($2, now()))
        AND NOT {ENDED}
      ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED) AS ours
WHERE e.due_id = ours.due_id
RETURNING e.due_id, topic, key, headers, value
"""  # noqa: S608 constant

# What is locked is being taken away by whoever stores its job's outcome; waiting for it might be a deadlock.
DELETE_RELEASED = """
DELETE FROM due_events WHERE due_id IN (
    SELECT due_id FROM due_events WHERE due_id = ANY($1) AND lease_id = $2 FOR UPDATE SKIP LOCKED)
"""


OWNERS = """
SELECT DISTINCT d.job_id, j.user_id FROM due_events d JOIN jobs j USING (job_id)
WHERE d.job_id = ANY($1) AND d.due_at > coalesce($2::timestamptz, now())
"""


@dataclass(frozen=True, slots=True)
class Leased:
    """What is ours to publish, and then to delete."""

    lease_id: UUID
    records: dict[str, Record]  # by due_id


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a job waits for."""

    stage: str
    code: str
    attempts: list[dict[str, Any]]
    due_at: datetime


class DueStore:
    """See `DueWriter`. Every method raises RetryableError while Postgres is away.

    What is due is so by Postgres's clock, unless a caller says by which time (`now`).
    """

    def __init__(self, pool: Pool, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """`clock`: this worker's, by which `DueEvent.due_at` was reckoned."""
        self._pool, self._clock = pool, clock

    async def add(self, event: DueEvent) -> None:
        """See `DueWriter.add`."""
        record = event.record
        headers = [[name, base64.b64encode(value or b"").decode()] for name, value in record.headers]
        attempts = [attempt.model_dump(exclude_none=True) for attempt in event.attempts]
        async with self._pool.connection() as connection:
            await connection.execute(
                INSERT, event.due_id, event.job_id, event.run, event.stage, event.code, attempts, record.topic,
                record.key, headers, record.value, event.due_at, self._clock(),
            )  # fmt: skip

    async def lease(self, limit: int, *, now: datetime | None = None) -> Leased:
        """Take at most so many that are due and that nobody has; after 15 s they are anybody's again.

        Those of jobs that have ended are taken away instead: nobody pays for them.
        """
        lease_id = uuid4()
        async with self._pool.connection() as connection:
            await connection.execute(DELETE_ENDED, now, limit)
            rows = await connection.fetch(TAKE_LEASES, lease_id, now, LEASE, limit)
        return Leased(lease_id, {row["due_id"]: _record(row) for row in rows})

    async def delete(self, leased: Leased, due_ids: Sequence[str]) -> None:
        """Those of ours that were published. One whose lease ran out is somebody else's."""
        async with self._pool.connection() as connection:
            await connection.execute(DELETE_RELEASED, list(due_ids), leased.lease_id)

    async def give_back(self, leased: Leased) -> None:
        """What is left of ours is anybody's at once."""
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE due_events SET lease_id = NULL, leased_until = NULL WHERE lease_id = $1", leased.lease_id
            )

    async def owners(self, job_ids: Sequence[UUID], *, now: datetime | None = None) -> dict[UUID, str]:
        """Whose those of these jobs are that wait for an event which is not due yet."""
        async with self._pool.connection() as connection:
            return {row["job_id"]: row["user_id"] for row in await connection.fetch(OWNERS, list(job_ids), now)}

    async def make_due(self, job_ids: Sequence[UUID], *, now: datetime | None = None) -> None:
        """What waits of these jobs is due now."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """UPDATE due_events SET due_at = coalesce($2::timestamptz, now())
                   WHERE job_id = ANY($1) AND due_at > coalesce($2, now())""",
                list(job_ids), now,
            )  # fmt: skip

    async def next_due_at(self, *, clock: datetime | None = None) -> datetime | None:
        """When the next one of those that nobody has is due; None where there is none.

        `clock`: what the caller's shows now; then the time is by that one.
        """
        async with self._pool.connection() as connection:
            at: datetime | None = await connection.fetchval(
                """SELECT due_at + coalesce($1::timestamptz - now(), interval '0') FROM due_events
                   WHERE leased_until IS NULL ORDER BY due_at LIMIT 1""",
                clock,
            )
        return at

    async def of_job(self, job_id: UUID) -> Waiting | None:
        """What a job waits for, if it does."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                """SELECT stage, code, attempts, due_at FROM due_events WHERE job_id = $1
                   ORDER BY run DESC, due_at LIMIT 1""",
                job_id,
            )
        return Waiting(**row) if row else None


def _record(row: Any) -> Record:
    headers: Headers = [(name, base64.b64decode(value)) for name, value in row["headers"]]
    return Record(row["topic"], row["key"], row["value"], headers)
