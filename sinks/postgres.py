"""Jobs in Postgres: what the sink writes, and what the ingress reads. Every statement on them lives here.

Of the outcomes of a job the highest run wins; within a run the first in log order stays, but `rate-limited` yields
to any other (a direct publisher's retry may be refused after the first was admitted).
"""

import base64
import binascii
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from processors.errors import PermanentError
from schemas.envelope import Envelope
from schemas.events import JobAdmitted, JobError, JobFinished
from schemas.job_view import job_view
from sinks.pool import REFUSED, Pool
from sinks.webhook_body import due_webhook

logger = logging.getLogger(__name__)

RATE_LIMITED = "rate-limited"
MAX_PAGE = 100

INSERT_PENDING = """
INSERT INTO jobs (job_id, run, user_id, kind, status, metadata, callback_url, accepted_at, expires_at)
SELECT job_id, run, user_id, kind, 'pending', metadata::jsonb, callback_url, accepted_at, expires_at
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[],
            $8::timestamptz[])
     AS r (job_id, run, user_id, kind, metadata, callback_url, accepted_at, expires_at)
ON CONFLICT (job_id) DO NOTHING
"""

UPSERT_OUTCOMES = """
INSERT INTO jobs AS j (job_id, run, user_id, kind, status, result, error, attempts, timings, metadata, callback_url,
                       accepted_at, expires_at, finished_at)
SELECT job_id, run, user_id, kind, status, result::jsonb, error::jsonb, attempts::jsonb, timings::jsonb,
       metadata::jsonb, callback_url, accepted_at, expires_at, finished_at
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[])
     AS r (job_id, run, user_id, kind, status, result, error, attempts, timings, metadata, callback_url, accepted_at,
           expires_at, finished_at)
ON CONFLICT (job_id) DO UPDATE SET
    run = excluded.run, status = excluded.status, result = excluded.result, error = excluded.error,
    attempts = excluded.attempts, timings = excluded.timings, metadata = excluded.metadata,
    callback_url = excluded.callback_url, finished_at = excluded.finished_at
WHERE j.user_id = excluded.user_id
  AND (excluded.run > j.run
       OR excluded.run = j.run AND (j.status = 'pending'
                                    OR j.error->>'code' = 'rate-limited'
                                       AND excluded.error->>'code' IS DISTINCT FROM 'rate-limited'))
RETURNING job_id
"""

INSERT_WEBHOOKS = """
INSERT INTO webhooks (webhook_id, job_id, user_id, url, body)
SELECT * FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[])
ON CONFLICT (webhook_id) DO UPDATE SET
    body = excluded.body, url = excluded.url, state = 'due', due_at = excluded.due_at, lease_id = NULL,
    leased_until = NULL
"""
# Its id exists already only where the outcome replaced one of the same run that was `rate-limited`: whatever was told
# of that, or is being told, is void, and what stays is told anew.

COLUMNS = """job_id, run, user_id, kind, status, result, error, attempts, timings, metadata, accepted_at, expires_at,
             finished_at"""


class PendingSink:
    """`job-admitted` -> a row that says pending."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, envelopes: Sequence[Envelope[JobAdmitted]]) -> None:
        """As `Sink.write`."""
        if not envelopes:
            return
        jobs = {envelope.payload.job.job_id: envelope.payload.job for envelope in envelopes}
        rows = [
            (job.job_id, job.run, job.user_id, job.kind, _json(job.metadata), job.callback_url, job.accepted_at,
             job.expires_at)
            for job in sorted(jobs.values(), key=lambda job: job.job_id)
        ]  # fmt: skip
        async with self._pool.connection() as connection:
            await connection.execute(INSERT_PENDING, *zip(*rows, strict=True))


class OutcomeSink:
    """`job-finished` -> the row's outcome, and the webhook that is due for it, in one transaction."""

    def __init__(self, pool: Pool, *, webhook_due: Callable[[], None] = lambda: None) -> None:
        """`webhook_due`: told after a commit that left webhooks to send."""
        self._pool, self._webhook_due = pool, webhook_due

    async def write(self, envelopes: Sequence[Envelope[JobFinished]]) -> None:
        """As `Sink.write`."""
        if envelopes:
            await self._write(winners([envelope.payload for envelope in envelopes]))

    async def write_poisoned(self, envelope: Envelope[JobFinished]) -> None:
        """As `PoisonableSink.write_poisoned`."""
        finished = envelope.payload
        error = JobError(code="unexpected-error", message="the result could not be stored")
        job = finished.job.model_copy(update={"metadata": {}, "timings": ()})
        untold = job.model_copy(update={"callback_url": None})  # what is refused might be the URL
        for told in (job, untold):
            with contextlib.suppress(PermanentError):
                await self._write([JobFinished.failed(told, error=error, at=finished.finished_at)])
                return
        logger.error("job %s can have no row: its id, user or times are refused too", job.job_id)

    async def _write(self, outcomes: Sequence[JobFinished]) -> None:
        rows = [_row(finished) for finished in outcomes]
        webhooks = {finished.job.job_id: finished for finished in outcomes if finished.job.callback_url}
        async with self._pool.connection() as connection:
            if not webhooks:
                await connection.execute(UPSERT_OUTCOMES, *zip(*rows, strict=True))
                return
            async with connection.transaction():
                written = await connection.fetch(UPSERT_OUTCOMES, *zip(*rows, strict=True))
                due = [due_webhook(webhooks[row["job_id"]]) for row in written if row["job_id"] in webhooks]
                if due:
                    await connection.execute(INSERT_WEBHOOKS, *zip(*due, strict=True))
        if due:
            self._webhook_due()


def winners(outcomes: Sequence[JobFinished]) -> list[JobFinished]:
    """One outcome per job by the rule above, in order of job_id, so that two replicas never wait for each other."""
    kept: dict[UUID, JobFinished] = {}
    for finished in outcomes:
        before = kept.get(finished.job.job_id)
        if before is None or _replaces(finished, before):
            kept[finished.job.job_id] = finished
    return sorted(kept.values(), key=lambda finished: finished.job.job_id)


def _replaces(later: JobFinished, earlier: JobFinished) -> bool:
    if later.job.run != earlier.job.run:
        return later.job.run > earlier.job.run
    return _code(earlier) == RATE_LIMITED and _code(later) != RATE_LIMITED


def _code(finished: JobFinished) -> str | None:
    return finished.error.code if finished.error else None


def _row(finished: JobFinished) -> tuple[Any, ...]:
    job = finished.job
    return (
        job.job_id, job.run, job.user_id, job.kind, finished.status, _json(finished.result),
        _json(finished.error.model_dump(exclude_none=True) if finished.error else None),
        _json([attempt.model_dump(exclude_none=True) for attempt in finished.attempts]),
        _json([timing.model_dump(mode="json") for timing in job.timings]),
        _json(job.metadata), job.callback_url, job.accepted_at, job.expires_at, finished.finished_at,
    )  # fmt: skip


def _json(value: Any) -> str | None:
    """As text: the driver would take a list for one more dimension of the statement's arrays.

    Raises:
        PermanentError: It holds what JSON in Postgres cannot, such as an integer of more than 64 bits.
    """
    try:
        return None if value is None else orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise PermanentError(REFUSED, "it cannot be written as JSON") from error


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it is stored."""

    job_id: UUID
    run: int
    user_id: str
    kind: str
    status: str
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    attempts: list[dict[str, Any]] | None
    timings: list[dict[str, Any]] | None
    metadata: dict[str, str] | None
    accepted_at: datetime
    expires_at: datetime
    finished_at: datetime | None

    def view(self, *, stage: str | None = None, attempts: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """As its user sees it; `stage` and `attempts` of one that still runs."""
        return job_view(
            job_id=self.job_id,
            kind=self.kind,
            status=self.status,
            accepted_at=self.accepted_at,
            finished_at=self.finished_at,
            result=self.result,
            error=self.error,
            metadata=self.metadata,
            stage=stage,
            attempts=self.attempts or attempts,
            timings=self.timings,
        )


class JobStore:
    """Reads jobs. Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, job_id: UUID) -> JobRow | None:
        """One job, whoever's."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(f"SELECT {COLUMNS} FROM jobs WHERE job_id = $1", job_id)  # noqa: S608 constant
        return JobRow(**row) if row else None

    async def finished(self, job_ids: Sequence[UUID]) -> list[JobRow]:
        """Those of them that have ended."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                f"SELECT {COLUMNS} FROM jobs WHERE job_id = ANY($1) AND status <> 'pending'",  # noqa: S608 constant
                list(job_ids),
            )
        return [JobRow(**row) for row in rows]

    async def page(
        self, *, user_id: str | None, status: str | None, limit: int, cursor: str | None
    ) -> tuple[list[JobRow], str | None]:
        """Newest first: at most `limit` (1-100) jobs, and the cursor of those after them.

        Args:
            user_id: Whose; None: everybody's.
            status: Only of this status.
            limit: How many.
            cursor: What the page before gave.

        Raises:
            InvalidCursorError: It is not one of ours.
        """
        at, after = _decode_cursor(cursor) if cursor else (None, None)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT {COLUMNS} FROM jobs
                    WHERE ($1::text IS NULL OR user_id = $1) AND ($2::text IS NULL OR status = $2)
                      AND ($3::timestamptz IS NULL OR (accepted_at, job_id) < ($3, $4::uuid))
                    ORDER BY accepted_at DESC, job_id DESC LIMIT $5""",  # noqa: S608 constant
                user_id, status, at, after, limit + 1,
            )  # fmt: skip
        jobs = [JobRow(**row) for row in rows[:limit]]
        return jobs, _encode_cursor(jobs[-1]) if len(rows) > limit else None

    async def pending(
        self, *, user_id: str, accepted_before: datetime | None, accepted_after: datetime | None, kind: str | None,
        metadata: dict[str, str], limit: int, cursor: str | None,
    ) -> tuple[list[UUID], str | None]:  # fmt: skip
        """A user's pending jobs for which all that is given holds, newest first; the cursor as `page` has it.

        Raises:
            InvalidCursorError: It is not one of ours.
        """
        at, after = _decode_cursor(cursor) if cursor else (None, None)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT {COLUMNS} FROM jobs
                    WHERE user_id = $1 AND status = 'pending'
                      AND ($2::timestamptz IS NULL OR accepted_at < $2)
                      AND ($3::timestamptz IS NULL OR accepted_at > $3)
                      AND ($4::text IS NULL OR kind = $4) AND coalesce(metadata, '{{}}') @> $5::jsonb
                      AND ($6::timestamptz IS NULL OR (accepted_at, job_id) < ($6, $7::uuid))
                    ORDER BY accepted_at DESC, job_id DESC LIMIT $8""",  # noqa: S608 constant
                user_id, accepted_before, accepted_after, kind, metadata, at, after, limit + 1,
            )  # fmt: skip
        jobs = [JobRow(**row) for row in rows[:limit]]
        return [job.job_id for job in jobs], _encode_cursor(jobs[-1]) if len(rows) > limit else None


class InvalidCursorError(PermanentError):
    """The cursor is not one that a page gave."""

    def __init__(self) -> None:
        super().__init__("invalid-cursor", "the cursor is not one that a page gave: leave it out to begin anew")


def _encode_cursor(row: JobRow) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([row.accepted_at.timestamp(), str(row.job_id)])).decode().rstrip("=")


def _decode_cursor(cursor: str) -> tuple[datetime, UUID]:
    try:
        at, job_id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return datetime.fromtimestamp(at, UTC), UUID(job_id)
    except (ValueError, TypeError, AttributeError, OverflowError, OSError, binascii.Error):
        raise InvalidCursorError from None
