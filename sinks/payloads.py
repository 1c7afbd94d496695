"""Payloads in Postgres: what is too large for an event, which carries its id. Every statement on them lives here.

One is written before the event that names it is published. It belongs to a user, and is nobody else's. It goes when
its job has ended for an hour, unless a dead letter may bring the job back or it is what the job has made (audio), and
in any case after 15 days: a day longer than dead letters are kept (docs/adr/0010).
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from processors.errors import PermanentError, RetryableError
from sinks.pool import Pool

logger = logging.getLogger(__name__)

KEPT = timedelta(days=15)
KEPT_AFTER_END = timedelta(hours=1)
SWEEP_ROWS = 50  # of up to 10 MB each
SWEEP_EVERY_S = 60.0

STORE = """
INSERT INTO payloads (payload_id, user_id, job_id, media_type, size, sha256, content, expires_at)
SELECT $1::uuid, $2::text, $3::uuid, $4::text, $5::int, $6::text, $7::bytea, now() + $8::interval
WHERE $5::int + (SELECT coalesce(sum(size), 0) FROM payloads WHERE user_id = $2) <= $9::bigint
ON CONFLICT (payload_id) DO NOTHING
RETURNING expires_at
"""

DELETE_EXPIRED = """
DELETE FROM payloads WHERE payload_id IN (
    SELECT payload_id FROM payloads WHERE expires_at <= now()
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
"""

DELETE_OF_ENDED = """
DELETE FROM payloads WHERE payload_id IN (
    SELECT p.payload_id FROM payloads p JOIN jobs j ON j.job_id = p.job_id
    WHERE j.status <> 'pending' AND j.finished_at <= now() - $2::interval
      AND p.media_type <> 'audio/wav'
      AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.job_id = p.job_id)
    LIMIT $1 FOR UPDATE OF p SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class Payload:
    """One, as it is to be kept. `job_id`: whose end is its own; None: it is there for any job of the user's."""

    payload_id: UUID
    user_id: str
    job_id: UUID | None
    media_type: str
    sha256: str
    content: bytes


@dataclass(frozen=True, slots=True)
class PayloadFacts:
    """What is known of one without its content; `size` in bytes."""

    media_type: str
    size: int
    sha256: str


class PayloadQuotaError(PermanentError):
    """The user has as much as one may have."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(
            "too-many-payloads",
            f"at most {most_bytes} bytes of yours are kept at once: wait until jobs with images have ended for an "
            "hour, or delete payloads with DELETE /payloads/{payload_id}",
        )


class PayloadStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def store(self, payload: Payload, *, user_bytes: int) -> datetime:
        """Return once it is committed: until when it is kept. The same one may be stored again.

        `user_bytes`: as much as a user may have; it is counted before, so that several at once may get over it.

        Raises:
            PayloadQuotaError: The user has that much.
        """
        async with self._pool.connection() as connection:
            until: datetime | None = await connection.fetchval(
                STORE, payload.payload_id, payload.user_id, payload.job_id, payload.media_type, len(payload.content),
                payload.sha256, payload.content, KEPT, user_bytes,
            )  # fmt: skip
            if until is None:
                until = await connection.fetchval(
                    "SELECT expires_at FROM payloads WHERE payload_id = $1 AND user_id = $2",
                    payload.payload_id, payload.user_id,
                )  # fmt: skip
        if until is None:
            raise PayloadQuotaError(user_bytes)
        return until

    async def size(self, payload_id: UUID, *, user_id: str) -> int | None:
        """In bytes; None where the user has no such payload."""
        async with self._pool.connection() as connection:
            size: int | None = await connection.fetchval(
                "SELECT size FROM payloads WHERE payload_id = $1 AND user_id = $2 AND expires_at > now()",
                payload_id, user_id,
            )  # fmt: skip
        return size

    async def load(self, payload_id: UUID, *, user_id: str) -> tuple[str, bytes] | None:
        """Media type and content; None where the user has no such payload."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                """SELECT media_type, content FROM payloads
                   WHERE payload_id = $1 AND user_id = $2 AND expires_at > now()""",
                payload_id, user_id,
            )  # fmt: skip
        return (row["media_type"], row["content"]) if row else None

    async def facts(self, payload_id: UUID, *, user_id: str) -> PayloadFacts | None:
        """What it is; None where the user has no such payload."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                """SELECT media_type, size, sha256 FROM payloads
                   WHERE payload_id = $1 AND user_id = $2 AND expires_at > now()""",
                payload_id, user_id,
            )  # fmt: skip
        return PayloadFacts(row["media_type"], row["size"], row["sha256"]) if row else None

    async def piece(self, payload_id: UUID, *, user_id: str, begin: int, length: int) -> bytes | None:
        """Bytes of its content from `begin` (from 0) on: it is stored plain, so no more of it than that is read."""
        async with self._pool.connection() as connection:
            found: bytes | None = await connection.fetchval(
                "SELECT substring(content FROM $3 FOR $4) FROM payloads WHERE payload_id = $1 AND user_id = $2",
                payload_id, user_id, begin + 1, length,
            )  # fmt: skip
        return found

    async def delete(self, payload_id: UUID, *, user_id: str) -> bool:
        """True if the user had it."""
        async with self._pool.connection() as connection:
            done: str = await connection.execute(
                "DELETE FROM payloads WHERE payload_id = $1 AND user_id = $2", payload_id, user_id
            )
        return done != "DELETE 0"

    async def delete_old(self, *, after_end: timedelta = KEPT_AFTER_END, limit: int = SWEEP_ROWS) -> int:
        """Delete at most so many whose time is over, and so many whose jobs have ended; how many there were."""
        async with self._pool.connection() as connection:
            expired: str = await connection.execute(DELETE_EXPIRED, limit)
            ended: str = await connection.execute(DELETE_OF_ENDED, limit, after_end)
        return int(expired.rpartition(" ")[2]) + int(ended.rpartition(" ")[2])


async def sweep(store: PayloadStore) -> None:
    """Until cancelled: delete what nobody needs any more. Several may do it at once."""
    while True:
        try:
            while await store.delete_old() >= SWEEP_ROWS:
                await asyncio.sleep(0.1)  # others want the database too
        except RetryableError as error:
            logger.debug("old payloads stay for now: %s", error.message)
        await asyncio.sleep(SWEEP_EVERY_S)
