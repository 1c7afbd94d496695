"""Jobs in Postgres that have no outcome yet, with all that is needed to begin them again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from schemas.events import Job
from sinks.pool import Pool

# One that waits for its retry as a due row needs nobody: the row outlived Kafka, and is released by itself. A document
# is in many events, and a due row may be one of them: the others are lost.
PAGE = """
SELECT job_id FROM jobs AS j
WHERE status = 'pending' AND ($1::uuid IS NULL OR job_id > $1)
  AND (kind = 'document' OR NOT EXISTS (SELECT FROM due_events AS d WHERE d.job_id = j.job_id))
ORDER BY job_id LIMIT $2
"""

RENEW = """
UPDATE jobs SET expires_at = greatest(expires_at, $2::timestamptz + least(expires_at - accepted_at, $3::interval))
WHERE job_id = ANY($1) AND status = 'pending'
RETURNING job_id, run, user_id, role, kind, callback_url, accepted_at, expires_at, metadata, request,
          cancel_requested_at
"""
# Batches that were on their way to be embedded are lost, and nobody knows which: a document is read again, and those
# that were counted are not paid for again. What was put off of it comes again that way, too.
READ_AGAIN = """
WITH of_documents AS (SELECT job_id, run FROM jobs WHERE job_id = ANY($1) AND status = 'pending' AND kind = 'document'),
no_longer_due AS (DELETE FROM due_events d USING of_documents o WHERE d.job_id = o.job_id)
UPDATE document_versions v SET batches = NULL, updated_at = now() FROM of_documents o
WHERE v.job_id = o.job_id AND v.run = o.run AND v.state = 'ingesting'
"""
LONGEST = timedelta(days=1)  # that a job may wait to be begun


@dataclass(frozen=True, slots=True)
class UnfinishedJob:
    """One as stored. `request`: None of a row that was written before requests were kept."""

    job: Job
    request: dict[str, Any] | None
    is_cancelled: bool


class UnfinishedJobs:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def count(self) -> int:
        """How many there are, for people."""
        async with self._pool.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM jobs WHERE status = 'pending'"))

    async def page(self, *, after: UUID | None, limit: int) -> list[UUID]:
        """Their ids, in order; None for the first page."""
        async with self._pool.connection() as connection:
            return [row["job_id"] for row in await connection.fetch(PAGE, after, limit)]

    async def renew(self, job_ids: Sequence[UUID], *, now: datetime) -> list[UnfinishedJob]:
        """Give each as much time from `now` as it had from its acceptance, and return it; the oldest first."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(READ_AGAIN, list(job_ids))
            rows = await connection.fetch(RENEW, list(job_ids), now, LONGEST)
        return [_unfinished(row) for row in sorted(rows, key=lambda row: row["accepted_at"])]


def _unfinished(row: Any) -> UnfinishedJob:
    job = Job(
        job_id=row["job_id"], run=row["run"], user_id=row["user_id"], role=row["role"], kind=row["kind"],
        callback_url=row["callback_url"], accepted_at=row["accepted_at"], expires_at=row["expires_at"],
        metadata=row["metadata"] or {},
    )  # fmt: skip
    return UnfinishedJob(job, row["request"], row["cancel_requested_at"] is not None)
