"""Comparisons in Postgres: a grid of cells, each a job. Every statement on them lives here.

A cell's job has its id in the cell's row before it is published. So whoever goes on after a crash publishes the same
event again, or finds the job's row and does not; and nothing is asked twice.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sinks.comparison_rows import Cell, Claimed, Comparison, Grid, KeyReusedError, Standing, TooManyComparisonsError
from sinks.pool import Pool

AT_WORK = "('published', 'accepted')"

# Per user: else two would see the same count.
ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('compare/' || $1::text, 0))"
FIND_KEY = "SELECT comparison_id, fingerprint FROM comparisons WHERE user_id = $1 AND idempotency_key = $2"
INSERT = """
INSERT INTO comparisons (comparison_id, user_id, prompts, variants, shared, idempotency_key, fingerprint, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, now() + $8::interval)
"""
INSERT_CELLS = "INSERT INTO comparison_cells (comparison_id, cell) SELECT $1, generate_series(0, $2::int - 1)"

GET = """
SELECT comparison_id, user_id, state, prompts, variants, shared, created_at, finished_at,
       cancel_requested_at IS NOT NULL AS is_cancelled, CASE WHEN not_before > now() THEN not_before END AS not_before,
       waits_for
FROM comparisons WHERE comparison_id = $1 AND ($2::text IS NULL OR user_id = $2)
"""

LEASE = """
UPDATE comparisons SET lease_id = $1, leased_until = now() + $2::interval
WHERE comparison_id IN (
    SELECT comparison_id FROM comparisons
    WHERE state = 'running' AND (lease_id IS NULL OR leased_until < now())
    ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED)
RETURNING comparison_id
"""
RENEW = """
UPDATE comparisons SET leased_until = now() + $3::interval
WHERE lease_id = $1 AND comparison_id = ANY($2::uuid[]) AND leased_until > now()
"""
RELEASE = "UPDATE comparisons SET lease_id = NULL, leased_until = NULL WHERE lease_id = $1"

MINE = """
SELECT user_id, cancel_requested_at IS NOT NULL AS is_cancelled, expires_at < now() AS is_expired,
       extract(epoch FROM not_before - now())::float8 AS wait_s
FROM comparisons WHERE comparison_id = $1 AND lease_id = $2 AND leased_until > now() AND state = 'running' FOR UPDATE
"""

# A job that was refused for the user's rate is asked for again as another job: unless it was published twice, for
# then the refusal may be of the second while the first one runs; that outcome yields, and is waited for.
SETTLE = f"""
UPDATE comparison_cells AS c
SET state = CASE WHEN r.again THEN 'waiting' ELSE 'ended' END,
    job_id = CASE WHEN r.again THEN NULL ELSE c.job_id END,
    publications = CASE WHEN r.again THEN 0 ELSE c.publications END,
    rate_limited = c.rate_limited + r.again::int
FROM (
    SELECT job_id, coalesce(error->>'code' = 'rate-limited', false) AS again,
           coalesce((error->>'retry_after_s')::float8, 1) AS retry_after_s,
           expires_at < now() - interval '5 minutes' AS is_over
    FROM jobs WHERE user_id = $2 AND status <> 'pending' AND job_id IN (
        SELECT job_id FROM comparison_cells WHERE comparison_id = $1 AND state IN {AT_WORK})
) AS r
WHERE c.comparison_id = $1 AND c.state IN {AT_WORK} AND c.job_id = r.job_id
  AND (NOT r.again OR c.publications = 1 OR r.is_over)
RETURNING r.again, r.retry_after_s
"""  # noqa: S608 constants

# What was accepted and left no trace for as long as any job may take is not waited for any longer.
LOSE = f"""
UPDATE comparison_cells AS c SET state = 'ended', error = $3
WHERE comparison_id = $1 AND state IN {AT_WORK} AND published_at < now() - $2::interval
  AND NOT EXISTS (SELECT FROM jobs j WHERE j.job_id = c.job_id)
"""  # noqa: S608 constants

COUNT = f"""
SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state IN {AT_WORK}) AS at_work
FROM comparison_cells WHERE comparison_id = $1
"""  # noqa: S608 constants

CELL = """c.cell, c.job_id, p.prompts->>(c.cell / jsonb_array_length(p.variants)) AS prompt,
          p.variants->(c.cell % jsonb_array_length(p.variants)) AS variant, p.shared"""

CLAIM = f"""
WITH mine AS (
    SELECT comparison_id FROM comparisons
    WHERE comparison_id = $1 AND lease_id = $2 AND leased_until > now() AND state = 'running'
      AND cancel_requested_at IS NULL AND expires_at > now() AND coalesce(not_before <= now(), true)
    FOR UPDATE
), chosen AS (
    SELECT comparison_id, cell FROM comparison_cells JOIN mine USING (comparison_id)
    WHERE state = 'waiting'
      AND (SELECT count(*) FROM comparison_cells WHERE comparison_id = $1 AND state IN {AT_WORK}) < $4
    ORDER BY cell LIMIT 1
)
UPDATE comparison_cells AS c SET state = 'published', job_id = $3, publications = 1, published_at = now()
FROM chosen JOIN comparisons p USING (comparison_id)
WHERE c.comparison_id = chosen.comparison_id AND c.cell = chosen.cell AND c.state = 'waiting'
RETURNING {CELL}
"""  # noqa: S608 constants

# Published, as far as is known, and not acknowledged: after so long without a trace the same is published again.
CLAIM_AGAIN = f"""
UPDATE comparison_cells AS c SET publications = publications + 1, published_at = now()
FROM comparisons p
WHERE c.comparison_id = $1 AND c.state = 'published' AND c.published_at < now() - $3::interval
  AND NOT EXISTS (SELECT FROM jobs j WHERE j.job_id = c.job_id)
  AND p.comparison_id = c.comparison_id AND p.lease_id = $2 AND p.leased_until > now()
RETURNING {CELL}
"""  # noqa: S608 constants

END_WAITING = "UPDATE comparison_cells SET state = 'ended', error = $2 WHERE comparison_id = $1 AND state = 'waiting'"
JOBS_AT_WORK = f"SELECT job_id FROM comparison_cells WHERE comparison_id = $1 AND state IN {AT_WORK} ORDER BY cell"  # noqa: S608 constant

FINISH = """
UPDATE comparisons SET state = CASE WHEN cancel_requested_at IS NULL THEN 'completed' ELSE 'cancelled' END,
       finished_at = now(), lease_id = NULL, leased_until = NULL, not_before = NULL, waits_for = NULL
WHERE comparison_id = $1 AND lease_id = $2
  AND NOT EXISTS (SELECT FROM comparison_cells WHERE comparison_id = $1 AND state <> 'ended')
RETURNING state
"""

CELLS = """
SELECT c.cell, c.state, c.job_id, c.rate_limited, coalesce(c.error, j.error) AS error, j.status,
       j.result->>'status' AS said, j.result->>'model' AS model, j.result->'meta'->>'provider' AS provider,
       j.result->'usage' AS usage, j.result->'result'->>'finish_reason' AS finish_reason,
       (j.attempts->-1->>'ms')::float8 AS latency_ms,
       extract(epoch FROM j.finished_at - j.accepted_at)::float8 * 1000 AS total_ms,
       left(coalesce(j.result->'result'->>'text', j.result->>'answer'), $4) AS text
FROM comparison_cells c LEFT JOIN jobs j ON j.job_id = c.job_id AND j.user_id = $5 AND j.deleted_at IS NULL
WHERE c.comparison_id = $1 AND c.cell > $2 ORDER BY c.cell LIMIT $3
"""


class ComparisonStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # --- for whoever asks ---

    async def create(
        self, comparison_id: UUID, user_id: str, grid: Grid, *, limit: int, lifetime: timedelta,
        key: str | None = None, fingerprint: bytes | None = None,
    ) -> tuple[UUID, bool]:  # fmt: skip
        """Store one, and say its id and whether it is new; with a key that was used before, that of the first.

        Raises:
            TooManyComparisonsError: So many of the user's are under way.
            KeyReusedError: The key's fingerprint is another one.
        """
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(ONE_AT_A_TIME, user_id)
            if key is not None and (known := await connection.fetchrow(FIND_KEY, user_id, key)) is not None:
                if known["fingerprint"] != fingerprint:
                    raise KeyReusedError
                return known["comparison_id"], False
            under_way = await connection.fetchval(
                "SELECT count(*) FROM comparisons WHERE user_id = $1 AND state = 'running'", user_id
            )
            if under_way >= limit:
                raise TooManyComparisonsError(limit)
            await connection.execute(
                INSERT, comparison_id, user_id, list(grid.prompts), list(grid.variants), dict(grid.shared), key,
                fingerprint, lifetime,
            )  # fmt: skip
            await connection.execute(INSERT_CELLS, comparison_id, grid.cells)
        return comparison_id, True

    async def get(self, comparison_id: UUID, *, of: str | None = None) -> Comparison | None:
        """One, whoever's; `of`: only this user's, and another's takes no longer to miss than none at all."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(GET, comparison_id, of)
        return Comparison(**row) if row else None

    async def cells(
        self, comparison: Comparison, *, after: int = -1, limit: int = 1000, text_chars: int = 0
    ) -> list[Cell]:
        """Those behind a cell, in order; of their texts so many characters."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                CELLS, comparison.comparison_id, after, limit, text_chars, comparison.user_id
            )  # fmt: skip
        return [Cell(**row) for row in rows]

    async def cancel(self, comparison_id: UUID, error: Mapping[str, Any]) -> list[UUID]:
        """From now on nothing more is asked; the jobs that are at work."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(
                """UPDATE comparisons SET cancel_requested_at = coalesce(cancel_requested_at, now())
                   WHERE comparison_id = $1 AND state = 'running'""",
                comparison_id,
            )  # fmt: skip
            await connection.execute(END_WAITING, comparison_id, dict(error))
            return [row["job_id"] for row in await connection.fetch(JOBS_AT_WORK, comparison_id)]

    # --- for who runs them ---

    async def lease(self, lease_id: UUID, *, for_s: float, limit: int) -> list[UUID]:
        """Take over at most so many that nobody runs."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(LEASE, lease_id, timedelta(seconds=for_s), limit)
        return [row["comparison_id"] for row in rows]

    async def renew(self, lease_id: UUID, comparison_ids: Sequence[UUID], *, for_s: float) -> None:
        """Keep these, but for what was held too long."""
        async with self._pool.connection() as connection:
            await connection.execute(RENEW, lease_id, list(comparison_ids), timedelta(seconds=for_s))

    async def release(self, lease_id: UUID) -> None:
        """Let another one go on at once."""
        async with self._pool.connection() as connection:
            await connection.execute(RELEASE, lease_id)

    async def settle(
        self, comparison_id: UUID, lease_id: UUID, *, lost_after_s: float, lost: Mapping[str, Any]
    ) -> Standing | None:
        """Take in what has become of its jobs; None: it is no longer ours to run.

        Args:
            comparison_id: Which one.
            lease_id: As it was leased.
            lost_after_s: After so long without a row there is no such job.
            lost: The error that is told then.
        """
        async with self._pool.connection() as connection, connection.transaction():
            mine = await connection.fetchrow(MINE, comparison_id, lease_id)
            if mine is None:
                return None
            settled = await connection.fetch(SETTLE, comparison_id, mine["user_id"])
            await connection.execute(LOSE, comparison_id, timedelta(seconds=lost_after_s), dict(lost))
            wait_s = max(0.0, mine["wait_s"] or 0.0)
            if refused := [row["retry_after_s"] for row in settled if row["again"]]:
                wait_s = max(wait_s, *refused)
                await self._put_off(connection, comparison_id, wait_s, "rate-limited")
            counts = await connection.fetchrow(COUNT, comparison_id)
        return Standing(
            mine["user_id"], mine["is_cancelled"], mine["is_expired"], wait_s, counts["waiting"], counts["at_work"]
        )

    async def claim(self, comparison_id: UUID, lease_id: UUID, job_id: UUID, *, in_flight: int) -> Claimed | None:
        """Give the next cell that waits this job; None: none does, or so many are at work, or it is not ours."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(CLAIM, comparison_id, lease_id, job_id, in_flight)
        return Claimed(**row) if row else None

    async def claim_again(self, comparison_id: UUID, lease_id: UUID, *, after_s: float) -> list[Claimed]:
        """Those whose publication nobody knows of after so long: they are published again, as the same jobs."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(CLAIM_AGAIN, comparison_id, lease_id, timedelta(seconds=after_s))
        return [Claimed(**row) for row in rows]

    async def accepted(self, comparison_id: UUID, claimed: Claimed) -> None:
        """The brokers have it."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """UPDATE comparison_cells SET state = 'accepted'
                   WHERE comparison_id = $1 AND cell = $2 AND job_id = $3 AND state = 'published'""",
                comparison_id, claimed.cell, claimed.job_id,
            )  # fmt: skip

    async def give_back(self, comparison_id: UUID, claimed: Claimed, *, is_limited: bool) -> None:
        """It was not handed over: the cell waits as before, with one more refusal where the user's rate was it."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """UPDATE comparison_cells
                   SET state = 'waiting', job_id = NULL, publications = 0, rate_limited = rate_limited + $4::int
                   WHERE comparison_id = $1 AND cell = $2 AND job_id = $3 AND state = 'published'
                     AND publications = 1""",
                comparison_id, claimed.cell, claimed.job_id, int(is_limited),
            )  # fmt: skip

    async def end(self, comparison_id: UUID, claimed: Claimed, error: Mapping[str, Any]) -> None:
        """It was not handed over, and never will be."""
        async with self._pool.connection() as connection:
            await connection.execute(
                """UPDATE comparison_cells SET state = 'ended', job_id = NULL, error = $4
                   WHERE comparison_id = $1 AND cell = $2 AND job_id = $3 AND state = 'published'
                     AND publications = 1""",
                comparison_id, claimed.cell, claimed.job_id, dict(error),
            )  # fmt: skip

    async def put_off(self, comparison_id: UUID, wait_s: float, why: str) -> None:
        """Ask nothing more for so long."""
        async with self._pool.connection() as connection:
            await self._put_off(connection, comparison_id, wait_s, why)

    @staticmethod
    async def _put_off(connection: Any, comparison_id: UUID, wait_s: float, why: str) -> None:
        await connection.execute(
            """UPDATE comparisons SET waits_for = $3, not_before = greatest(not_before, now() + $2::interval)
               WHERE comparison_id = $1""",
            comparison_id, timedelta(seconds=wait_s), why,
        )  # fmt: skip

    async def end_waiting(self, comparison_id: UUID, error: Mapping[str, Any]) -> None:
        """Cells that wait are not asked any more."""
        async with self._pool.connection() as connection:
            await connection.execute(END_WAITING, comparison_id, dict(error))

    async def at_work(self, comparison_id: UUID) -> list[UUID]:
        """Its jobs that have not ended."""
        async with self._pool.connection() as connection:
            return [row["job_id"] for row in await connection.fetch(JOBS_AT_WORK, comparison_id)]

    async def finish(self, comparison_id: UUID, lease_id: UUID) -> bool:
        """True once every cell has ended: nobody runs it any more."""
        async with self._pool.connection() as connection:
            return await connection.fetchval(FINISH, comparison_id, lease_id) is not None
