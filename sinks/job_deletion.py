"""Deletes jobs from Postgres. Every statement for it lives here.

Nothing that was asked or answered stays. The row itself goes 15 days later, a day after Kafka has forgotten the last of
the job: until then it holds whose the job was and how it ended, and is what an outcome that comes once more, a redrive
or `assistant recover --postgres` finds in its place. A row that was simply deleted would be made anew by each of them,
also by one that has looked just before.
"""

import asyncio
from datetime import timedelta
from typing import Literal
from uuid import UUID

from processors.loops import repeat
from sinks.pool import Pool

KEPT = timedelta(days=15)
SWEEP_ROWS, SWEEP_EVERY_S = 1_000, 600.0

FIND = """
SELECT user_id, status FROM jobs
WHERE job_id = $1 AND ($2::text IS NULL OR user_id = $2) AND deleted_at IS NULL FOR UPDATE
"""

# How it ended is asked for by what its document or comparison does next. Whoever pays asks for the run.
EMPTY = """
UPDATE jobs SET deleted_at = now(), request = NULL, result = NULL, metadata = NULL, callback_url = NULL,
    attempts = NULL, timings = NULL, stream = NULL, outcome_id = NULL,
    error = CASE WHEN error IS NOT NULL THEN jsonb_build_object('code', error->'code') END
WHERE job_id = $1
"""

NOTHING_IS_DUE = "DELETE FROM due_events WHERE job_id = $1"
# Each by job and user. Of agents' steps and dead letters the facts stay: vectors of the ones are found by them and
# swept, and the others are how an operator sees what has failed.
OF_A_JOB = (
    "DELETE FROM webhooks WHERE job_id = $1 AND user_id = $2",
    "DELETE FROM payloads WHERE job_id = $1 AND user_id = $2",
    "DELETE FROM idempotency_keys WHERE job_id = $1 AND user_id = $2",
    """UPDATE agent_steps SET is_forgotten = true, goal = '', thought = '', action_input = '{}', observation = NULL
       WHERE job_id = $1 AND user_id = $2""",
    "UPDATE dead_letters SET value = NULL WHERE job_id = $1 AND user_id = $2",
)

DELETE_OLD = """
DELETE FROM jobs WHERE job_id IN (
    SELECT job_id FROM jobs WHERE deleted_at <= now() - $1::interval
    ORDER BY deleted_at LIMIT $2 FOR UPDATE SKIP LOCKED)
"""


class JobDeletion:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def delete(self, job_id: UUID, *, of: str | None) -> Literal["deleted", "pending"] | None:
        """Delete a job that has ended, with all that is only there for it; None where there is none.

        That is what waits of it, its webhooks (those that are due are not sent), images, files and audio, its
        `Idempotency-Key`, what its agent did and remembers of it, and the record of its dead letters. Documents,
        examples and adapters that it has made are their own, and stay; so do incidents.

        `of`: only this user's; None: whoever's.
        """
        async with self._pool.connection() as connection, connection.transaction():
            job = await connection.fetchrow(FIND, job_id, of)
            if job is None:
                return None
            if job["status"] == "pending":
                return "pending"
            await connection.execute(EMPTY, job_id)
            await connection.execute(NOTHING_IS_DUE, job_id)
            for statement in OF_A_JOB:
                await connection.execute(statement, job_id, job["user_id"])
        return "deleted"

    async def is_deleted(self, job_id: UUID) -> bool:
        """True for one that is known to have been."""
        async with self._pool.connection() as connection:
            return bool(
                await connection.fetchval(
                    "SELECT EXISTS (SELECT FROM jobs WHERE job_id = $1 AND deleted_at IS NOT NULL)", job_id
                )
            )

    async def delete_old(self, *, kept: timedelta = KEPT, limit: int = SWEEP_ROWS) -> int:
        """Delete at most so many rows of jobs that were deleted so long ago; how many they were."""
        async with self._pool.connection() as connection:
            done: str = await connection.execute(DELETE_OLD, kept, limit)
        return int(done.rpartition(" ")[2])


async def sweep(deletion: JobDeletion) -> None:
    """Until cancelled: delete what is left of deleted jobs. Several may do it at once."""

    async def delete() -> None:
        while await deletion.delete_old() == SWEEP_ROWS:
            await asyncio.sleep(0.1)  # others want the database too

    await repeat(delete, "sweeping deleted jobs", every_s=SWEEP_EVERY_S)
