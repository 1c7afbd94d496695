"""Idempotency keys in Postgres: who was first, and which job it made. Every statement on them lives here."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sinks.pool import Pool

SWEEP_ROWS = 1_000

# A row of the job says that its request arrived, also where whoever published it did not live to write that down.
FIND = """
SELECT k.fingerprint, k.job_id, k.publications, k.accepted_at IS NOT NULL OR j.job_id IS NOT NULL AS accepted,
       extract(epoch FROM now() - k.published_at)::float8 AS published_ago_s, j.status, j.result, j.error,
       coalesce(j.expires_at < now() - interval '5 minutes', false) AS is_over
FROM idempotency_keys k LEFT JOIN jobs j ON j.job_id = k.job_id AND j.user_id = k.user_id
WHERE k.user_id = $1 AND k.key = $2 AND k.created_at > now() - interval '24 hours'
"""

# One that has expired is as good as none.
CLAIM = """
INSERT INTO idempotency_keys AS k (user_id, key, fingerprint, job_id) VALUES ($1, $2, $3, $4)
ON CONFLICT (user_id, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, job_id = excluded.job_id, accepted_at = NULL, published_at = now(),
    publications = 1, created_at = now()
WHERE k.created_at <= now() - interval '24 hours'
RETURNING job_id
"""

TAKE_OVER = """
UPDATE idempotency_keys SET published_at = now(), publications = publications + 1
WHERE user_id = $1 AND key = $2 AND job_id = $3 AND accepted_at IS NULL AND publications = $4
RETURNING job_id
"""

FORGET_WITHOUT_A_JOB = """
UPDATE idempotency_keys AS k SET accepted_at = NULL, published_at = to_timestamp(0)
WHERE accepted_at IS NOT NULL AND NOT EXISTS (SELECT FROM jobs AS j WHERE j.job_id = k.job_id)
"""

DELETE_EXPIRED = """
DELETE FROM idempotency_keys WHERE (user_id, key) IN (
    SELECT user_id, key FROM idempotency_keys WHERE created_at <= now() - interval '24 hours'
    ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key that is taken, and what is known of its job.

    Attributes:
        fingerprint: Of the request that took it.
        job_id: What came of that.
        publications: How often the request was, or was about to be, published.
        accepted: The brokers have it.
        published_ago_s: Since the last publication, by the database's clock.
        status: The job's, where it has a row.
        result: As in the row.
        error: As in the row.
        is_over: Whatever has not ended of the job by now never will.
    """

    fingerprint: bytes
    job_id: UUID
    publications: int
    accepted: bool
    published_ago_s: float
    status: str | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    is_over: bool


class IdempotencyStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, user_id: str, key: str) -> KeyRow | None:
        """The key's row, unless it is older than 24 h."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(FIND, user_id, key)
        return KeyRow(**row) if row else None

    async def claim(self, user_id: str, key: str, fingerprint: bytes, job_id: UUID) -> bool:
        """Take a key that is free; True for one of those who try at the same time."""
        async with self._pool.connection() as connection:
            return await connection.fetchval(CLAIM, user_id, key, fingerprint, job_id) is not None

    async def take_over(self, user_id: str, key: str, row: KeyRow) -> bool:
        """Be the one who publishes its request again; True for one of those who try."""
        async with self._pool.connection() as connection:
            won = await connection.fetchval(TAKE_OVER, user_id, key, row.job_id, row.publications)
        return won is not None

    async def accepted(self, user_id: str, key: str, job_id: UUID) -> None:
        """The brokers have it."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """UPDATE idempotency_keys SET accepted_at = now()
                   WHERE user_id = $1 AND key = $2 AND job_id = $3 AND accepted_at IS NULL""",
                user_id, key, job_id,
            )  # fmt: skip

    async def give_back(self, user_id: str, key: str, job_id: UUID) -> None:
        """A publication was not handed over: the key is free, or free to be taken over where it was not the first."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(
                """DELETE FROM idempotency_keys
                   WHERE user_id = $1 AND key = $2 AND job_id = $3 AND publications = 1""",
                user_id, key, job_id,
            )  # fmt: skip
            await connection.execute(
                """UPDATE idempotency_keys SET published_at = to_timestamp(0)
                   WHERE user_id = $1 AND key = $2 AND job_id = $3 AND accepted_at IS NULL""",
                user_id, key, job_id,
            )  # fmt: skip

    async def forget_without_a_job(self) -> int:
        """For a cluster that has lost everything: whose job has no row was accepted by that one, and by this one not.

        Whoever asks again publishes again, under the same job id. Returns how many keys there were.
        """
        async with self._pool.connection() as connection:
            status: str = await connection.execute(FORGET_WITHOUT_A_JOB)
        return int(status.rpartition(" ")[2])

    async def free(self, user_id: str, key: str, job_id: UUID, *, publications: int) -> None:
        """Let the key be used anew, unless its request was published once more meanwhile."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """DELETE FROM idempotency_keys
                   WHERE user_id = $1 AND key = $2 AND job_id = $3 AND publications = $4""",
                user_id, key, job_id, publications,
            )  # fmt: skip

    async def delete_expired(self, limit: int = SWEEP_ROWS) -> int:
        """Delete at most so many that are older than 24 h; how many there were."""
        async with self._pool.connection() as connection:
            status: str = await connection.execute(DELETE_EXPIRED, limit)
        return int(status.rpartition(" ")[2])
