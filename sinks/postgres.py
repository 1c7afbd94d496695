"""Jobs in Postgres: what the sink writes, and what the ingress reads. Every statement on them lives here.

Of the outcomes of a job the highest run wins; within a run the first in log order stays, but `rate-limited` and
`quarantined` yield to any other (what was admitted may be delivered, or sent by its publisher, once more, and then be
refused).
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
from pydantic_core import to_json

from processors.errors import PermanentError
from schemas.audio_links import AudioLinks
from schemas.envelope import Envelope
from schemas.events import Job, JobAdmitted, JobError, JobFinished
from schemas.job_view import job_view
from schemas.request_fields import without_unstorable
from sinks.first_outcome import winners
from sinks.pool import REFUSED, Pool
from sinks.webhook_body import due_webhook

logger = logging.getLogger(__name__)

MAX_PAGE = 100
WITHOUT_ROW = ("search",)  # kinds of jobs that are over with the call that waited for them

INSERT_PENDING = """
INSERT INTO jobs (job_id, run, user_id, role, kind, status, request, metadata, callback_url, accepted_at, expires_at)
SELECT job_id, run, user_id, role, kind, 'pending', request::jsonb, metadata::jsonb, callback_url, accepted_at,
       expires_at
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::timestamptz[], $10::timestamptz[])
     AS r (job_id, run, user_id, role, kind, request, metadata, callback_url, accepted_at, expires_at)
ON CONFLICT (job_id) DO NOTHING
"""

UPSERT_OUTCOMES = """
INSERT INTO jobs AS j (job_id, run, user_id, role, kind, status, result, error, attempts, timings, metadata,
                       callback_url, accepted_at, expires_at, finished_at, outcome_id, stream)
SELECT job_id, run, user_id, role, kind, status, result::jsonb, error::jsonb, attempts::jsonb, timings::jsonb,
       metadata::jsonb, callback_url, accepted_at, expires_at, finished_at, outcome_id, stream::jsonb
FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
            $16::text[], $17::text[])
     AS r (job_id, run, user_id, role, kind, status, result, error, attempts, timings, metadata, callback_url,
           accepted_at, expires_at, finished_at, outcome_id, stream)
ON CONFLICT (job_id) DO UPDATE SET
    run = excluded.run, status = excluded.status, request = NULL, result = excluded.result, error = excluded.error,
    attempts = excluded.attempts, timings = excluded.timings, metadata = excluded.metadata,
    callback_url = excluded.callback_url, accepted_at = excluded.accepted_at, expires_at = excluded.expires_at,
    finished_at = excluded.finished_at, outcome_id = excluded.outcome_id, stream = excluded.stream
WHERE j.user_id = excluded.user_id AND j.deleted_at IS NULL
  AND (excluded.run > j.run
       OR excluded.run = j.run AND (j.status = 'pending'
                                    OR j.error->>'code' IN ('rate-limited', 'quarantined')
                                       AND coalesce(excluded.error->>'code', '')
                                           NOT IN ('rate-limited', 'quarantined')))
RETURNING job_id, run, error
"""

# What was put off of a job that has ended goes with its outcome, so that nobody pays for it; in the same statement.
STORE_OUTCOMES = f"""
WITH written AS ({UPSERT_OUTCOMES}), no_longer_due AS (
    DELETE FROM due_events d USING written w
    WHERE d.job_id = w.job_id AND d.run <= w.run
      AND coalesce(w.error->>'code', '') NOT IN ('rate-limited', 'quarantined'))
SELECT job_id FROM written
"""  # noqa: S608 constant

INSERT_WEBHOOKS = """
INSERT INTO webhooks (webhook_id, job_id, user_id, url, body, state)
SELECT *, $6 FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[])
ON CONFLICT (webhook_id) DO UPDATE SET
    body = excluded.body, url = excluded.url, state = excluded.state, due_at = excluded.due_at, lease_id = NULL,
    leased_until = NULL
"""
# Its id exists already only where the outcome replaced one of the same run that yields: whatever was told
# of that, or is being told, is void, and what stays is told anew.

SAY_WHY_GIVEN_UP = """
INSERT INTO webhook_attempts (webhook_id, attempt, at, error)
SELECT webhook_id, 0, now(), $2 FROM unnest($1::text[]) AS r (webhook_id)
ON CONFLICT (webhook_id, attempt) DO NOTHING
"""

COLUMNS = """job_id, run, user_id, kind, status, result, error, attempts, timings, metadata, accepted_at, expires_at,
             finished_at, stream"""
SHOWN = f"SELECT {COLUMNS} FROM jobs WHERE deleted_at IS NULL"  # noqa: S608 constant
AS_JOB = """job_id, run, user_id, role, kind, callback_url, accepted_at, expires_at,
            coalesce(metadata, '{}') AS metadata"""


class PendingSink:
    """`job-admitted` -> a row that says pending, and keeps the request until there is an outcome.

    The request is what a job is begun with again when Kafka has lost it (`assistant recover --kafka`).
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def write(self, envelopes: Sequence[Envelope[JobAdmitted]]) -> None:
        """As `Sink.write`."""
        admitted = {
            envelope.payload.job.job_id: envelope.payload
            for envelope in envelopes if envelope.payload.job.kind not in WITHOUT_ROW
        }  # fmt: skip
        if not admitted:
            return
        rows = [_pending_row(admitted[job_id]) for job_id in sorted(admitted)]
        async with self._pool.connection() as connection:
            await connection.execute(INSERT_PENDING, *zip(*rows, strict=True))


class OutcomeSink:
    """`job-finished` -> the row's outcome, and the webhook that is due for it, in one transaction."""

    def __init__(
        self, pool: Pool, *, webhook_due: Callable[[], None] = lambda: None, give_up_webhooks: str | None = None,
        audio_links: AudioLinks | None = None,
    ) -> None:  # fmt: skip
        """`webhook_due`: told after a commit that left webhooks to send.

        `give_up_webhooks`: why they are not to be sent, where outcomes are stored that were stored before.
        `audio_links`: for the webhooks of jobs that have spoken.
        """
        self._pool, self._webhook_due, self._give_up = pool, webhook_due, give_up_webhooks
        self._audio_links = audio_links

    async def write(self, envelopes: Sequence[Envelope[JobFinished]]) -> None:
        """As `Sink.write`."""
        kept = [envelope for envelope in envelopes if envelope.payload.job.kind not in WITHOUT_ROW]
        if kept:
            await self._write(winners(kept))

    async def write_poisoned(self, envelope: Envelope[JobFinished]) -> None:
        """As `PoisonableSink.write_poisoned`."""
        finished = envelope.payload
        error = JobError(code="unexpected-error", message="the result could not be stored")
        job = finished.job.model_copy(update={"metadata": {}, "timings": ()})
        untold = job.model_copy(update={"callback_url": None})  # what is refused might be the URL
        for told in (job, untold):
            with contextlib.suppress(PermanentError):
                failed = JobFinished.failed(told, error=error, at=finished.finished_at)
                await self._write([Envelope(envelope.attributes, failed)])
                return
        logger.error("job %s can have no row: its id, user or times are refused too", job.job_id)

    async def _write(self, outcomes: Sequence[Envelope[JobFinished]]) -> None:
        rows = [_row(outcome) for outcome in outcomes]
        webhooks = {
            outcome.payload.job.job_id: outcome.payload for outcome in outcomes if outcome.payload.job.callback_url
        }
        async with self._pool.connection() as connection:
            if not webhooks:
                await connection.execute(STORE_OUTCOMES, *zip(*rows, strict=True))
                return
            async with connection.transaction():
                written = await connection.fetch(STORE_OUTCOMES, *zip(*rows, strict=True))
                ended = [webhooks[row["job_id"]] for row in written if row["job_id"] in webhooks]
                due = [due_webhook(finished, audio_links=self._audio_links) for finished in ended]
                if due:
                    state = "due" if self._give_up is None else "given-up"
                    await connection.execute(INSERT_WEBHOOKS, *zip(*due, strict=True), state)
                    if self._give_up is not None:
                        await connection.execute(SAY_WHY_GIVEN_UP, [row[0] for row in due], self._give_up)
        if due:
            self._webhook_due()


def _pending_row(admitted: JobAdmitted) -> tuple[Any, ...]:
    job = admitted.job
    return (
        job.job_id, job.run, job.user_id, job.role, job.kind,
        to_json(admitted.request, exclude_none=True).decode(), _json(job.metadata), job.callback_url,
        job.accepted_at, job.expires_at,
    )  # fmt: skip


def _row(outcome: Envelope[JobFinished]) -> tuple[Any, ...]:
    finished = outcome.payload
    job = finished.job
    return (
        job.job_id, job.run, job.user_id, job.role, job.kind, finished.status, _json(finished.result),
        to_json(finished.error, exclude_none=True).decode() if finished.error else None,
        to_json(finished.attempts, exclude_none=True).decode(), to_json(job.timings).decode(),
        _json(job.metadata), job.callback_url, job.accepted_at, job.expires_at, finished.finished_at,
        without_unstorable(outcome.attributes.event_id),
        finished.stream.model_dump_json() if finished.stream else None,
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
    stream: dict[str, Any] | None = None

    def view(
        self,
        *,
        stage: str | None = None,
        state: str | None = None,
        retry_at: datetime | None = None,
        attempts: list[dict[str, Any]] | None = None,
        document: dict[str, Any] | None = None,
        training: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """As its user sees it; the arguments are of one that still runs: where it is, and how often it was tried."""
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
            state=state,
            retry_at=retry_at,
            attempts=attempts if self.attempts is None else self.attempts,
            document=document,
            training=training,
            timings=self.timings,
        )


class JobStore:
    """Reads jobs. Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, job_id: UUID, *, of: str | None = None) -> JobRow | None:
        """One job, whoever's; `of`: only this user's, and another's takes no longer to miss than none at all."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                f"{SHOWN} AND job_id = $1 AND ($2::text IS NULL OR user_id = $2)", job_id, of
            )
        return JobRow(**row) if row else None

    async def finished(self, job_ids: Sequence[UUID]) -> list[JobRow]:
        """Those of them that have ended."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(f"{SHOWN} AND job_id = ANY($1) AND status <> 'pending'", list(job_ids))
        return [JobRow(**row) for row in rows]

    async def ended_runs(self, runs: Sequence[tuple[UUID, int]]) -> set[tuple[UUID, int]]:
        """Those (job, run) of which nothing is left to do: the run has its outcome, or a later one has begun.

        One that is stored as refused may have been admitted all the same (see above), so it is none. One that was
        deleted is left alone.
        """
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """SELECT r.job_id, r.run
                   FROM unnest($1::uuid[], $2::int[]) AS r (job_id, run) JOIN jobs j USING (job_id)
                   WHERE j.run > r.run
                      OR j.run = r.run AND j.status <> 'pending'
                         AND coalesce(j.error->>'code', '') NOT IN ('rate-limited', 'quarantined')
                      OR j.deleted_at IS NOT NULL""",
                [job_id for job_id, _ in runs], [run for _, run in runs],
            )  # fmt: skip
        return {(row["job_id"], row["run"]) for row in rows}

    async def under_way(self, *, limit: int) -> list[tuple[UUID, str, datetime]]:
        """Jobs that are pending and whose time is not up, with their users and the end of their time."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                """SELECT job_id, user_id, expires_at FROM jobs
                   WHERE status = 'pending' AND expires_at > now() ORDER BY expires_at LIMIT $1""",
                limit,
            )  # fmt: skip
        return [(row["job_id"], row["user_id"], row["expires_at"]) for row in rows]

    async def overdue(self, *, before: datetime, limit: int) -> list[Job]:
        """Jobs that are pending although they expired before then, the oldest first; as much as rows know of them."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT {AS_JOB} FROM jobs WHERE status = 'pending' AND expires_at < $1
                    ORDER BY expires_at LIMIT $2""",  # noqa: S608 constant
                before, limit,
            )  # fmt: skip
        return [Job(**row) for row in rows]

    async def pending_of(self, user_ids: Sequence[str], *, but: Sequence[UUID], limit: int) -> list[Job]:
        """Pending jobs of these users, without those in `but`; as much as rows know of them."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                f"""SELECT {AS_JOB} FROM jobs
                    WHERE status = 'pending' AND user_id = ANY($1) AND NOT job_id = ANY($2)
                    ORDER BY expires_at LIMIT $3""",  # noqa: S608 constant
                list(user_ids), list(but), limit,
            )  # fmt: skip
        return [Job(**row) for row in rows]

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
                f"""{SHOWN} AND ($1::text IS NULL OR user_id = $1) AND ($2::text IS NULL OR status = $2)
                      AND ($3::timestamptz IS NULL OR (accepted_at, job_id) < ($3, $4::uuid))
                    ORDER BY accepted_at DESC, job_id DESC LIMIT $5""",
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
