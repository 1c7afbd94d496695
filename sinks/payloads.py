"""Payloads in Postgres: what is too large for an event, which carries its id. Every statement on them lives here.

One is written before the event that names it is published. It belongs to a user, and is nobody else's. It goes when
its job has ended for an hour, unless a dead letter may bring the job back or it is what the job has made (audio), and
in any case after 15 days: a day longer than dead letters are kept (docs/adr/0010).

An image is in its row. A file is in parts of 1 MiB, written as they come; until it is complete nobody sees it, and if
it never is, it goes ten minutes after its last part.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from processors.errors import PermanentError
from processors.loops import repeat
from sinks.pool import Pool

logger = logging.getLogger(__name__)

KEPT = timedelta(days=15)
KEPT_AFTER_END = timedelta(hours=1)
UNFINISHED_KEPT = timedelta(minutes=10)
UNCLAIMED_KEPT = timedelta(hours=1)  # of a file whose job is not published yet
PART_BYTES = 1_048_576
SWEEP_ROWS = 50
SWEEP_BYTES = 300_000_000  # in one statement, of which Postgres deletes about 1 GB/s
SWEEP_EVERY_S = 60.0

STORE = """
INSERT INTO payloads (payload_id, user_id, job_id, media_type, size, sha256, content, expires_at)
SELECT $1::uuid, $2::text, $3::uuid, $4::text, $5::int, $6::text, $7::bytea, now() + $8::interval
WHERE $5::int + (SELECT coalesce(sum(size), 0) FROM payloads WHERE user_id = $2) <= $9::bigint
ON CONFLICT (payload_id) DO NOTHING
RETURNING expires_at
"""

# So many rows, and no more of them than are so many bytes, but for the first.
_DELETE = """
WITH found AS ({found}),
counted AS (SELECT payload_id, sum(size) OVER (ORDER BY payload_id) - size AS before FROM found)
DELETE FROM payloads WHERE payload_id IN (
    SELECT p.payload_id FROM payloads p JOIN counted c USING (payload_id) WHERE c.before < {most}
    FOR UPDATE OF p SKIP LOCKED)
"""
DELETE_EXPIRED = _DELETE.format(most=SWEEP_BYTES, found="""
    SELECT payload_id, size FROM payloads WHERE expires_at <= now() ORDER BY expires_at LIMIT $1
""")  # fmt: skip
DELETE_OF_ENDED = _DELETE.format(most=SWEEP_BYTES, found="""
    SELECT p.payload_id, p.size FROM payloads p JOIN jobs j ON j.job_id = p.job_id
    WHERE j.status <> 'pending' AND j.finished_at <= now() - $2::interval
      AND p.media_type <> 'audio/wav'
      AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.job_id = p.job_id)
    LIMIT $1
""")  # fmt: skip

BEGIN_FILE = """
INSERT INTO payloads (payload_id, user_id, media_type, size, sha256, is_complete, expires_at)
VALUES ($1, $2, $3, 0, '', false, now() + $4::interval)
"""

ADD_PART = """
WITH file AS (
    UPDATE payloads SET size = size + octet_length($4::bytea), expires_at = now() + $5::interval
    WHERE payload_id = $1 AND user_id = $2 AND NOT is_complete
      AND (SELECT sum(size) FROM payloads WHERE user_id = $2) + octet_length($4::bytea) <= $6::bigint
    RETURNING payload_id)
INSERT INTO payload_parts (payload_id, part, content) SELECT payload_id, $3, $4 FROM file
"""

COMPLETE_FILE = """
UPDATE payloads SET is_complete = true, sha256 = $3, expires_at = now() + $4::interval,
    order_number = nextval('document_order')
WHERE payload_id = $1 AND user_id = $2 AND NOT is_complete
RETURNING expires_at
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
class FileFacts:
    """What is known of one without its content; `size` in bytes."""

    size: int
    sha256: str
    media_type: str


class PayloadQuotaError(PermanentError):
    """The user has as much as one may have."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(
            "too-many-payloads",
            f"at most {most_bytes} bytes of yours are kept at once: wait until jobs with images and files have ended "
            "for an hour, or delete payloads with DELETE /payloads/{payload_id}",
        )


class PayloadStore:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def close(self) -> None:
        """Close its connections, where nobody else has them."""
        await self._pool.close()

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
        """Of an image, in bytes; None where the user has no such payload."""
        async with self._pool.connection() as connection:
            size: int | None = await connection.fetchval(
                """SELECT size FROM payloads
                   WHERE payload_id = $1 AND user_id = $2 AND expires_at > now() AND content IS NOT NULL""",
                payload_id, user_id,
            )  # fmt: skip
        return size

    async def load(self, payload_id: UUID, *, user_id: str) -> tuple[str, bytes] | None:
        """Media type and content of an image; None where the user has no such payload."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                """SELECT media_type, content FROM payloads
                   WHERE payload_id = $1 AND user_id = $2 AND expires_at > now() AND content IS NOT NULL""",
                payload_id, user_id,
            )  # fmt: skip
        return (row["media_type"], row["content"]) if row else None

    async def facts(self, payload_id: UUID, *, user_id: str) -> FileFacts | None:
        """What it is; None where the user has no such payload."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                """SELECT media_type, size, sha256 FROM payloads
                   WHERE payload_id = $1 AND user_id = $2 AND expires_at > now()""",
                payload_id, user_id,
            )  # fmt: skip
        return FileFacts(row["size"], row["sha256"], row["media_type"]) if row else None

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

    # --- files ---

    async def begin_file(self, payload_id: UUID, *, user_id: str, media_type: str) -> None:
        """Have a place for a file that is to come part by part."""
        async with self._pool.connection() as connection:
            await connection.execute(BEGIN_FILE, payload_id, user_id, media_type, UNFINISHED_KEPT)

    async def add_part(self, payload_id: UUID, part: int, content: bytes, *, user_id: str, user_bytes: int) -> None:
        """Store the next part, of at most `PART_BYTES`.

        Raises:
            PayloadQuotaError: With it the user has more than `user_bytes`; or the file's time was over.
        """
        async with self._pool.connection() as connection:
            done: str = await connection.execute(
                ADD_PART, payload_id, user_id, part, content, UNFINISHED_KEPT, user_bytes
            )
        if done == "INSERT 0 0":
            raise PayloadQuotaError(user_bytes)

    async def complete_file(
        self, payload_id: UUID, *, user_id: str, sha256: str, kept: timedelta = KEPT
    ) -> datetime | None:
        """All parts are there, and from now on it is a payload like others; until when. None: its time was over."""
        async with self._pool.connection() as connection:
            until: datetime | None = await connection.fetchval(COMPLETE_FILE, payload_id, user_id, sha256, kept)
        return until

    async def claim_file(self, payload_id: UUID, *, user_id: str, job_id: UUID) -> bool:
        """It goes with this job from now on; False where there is none."""
        async with self._pool.connection() as connection:
            done: str = await connection.execute(
                """UPDATE payloads SET job_id = $3, expires_at = now() + $4::interval,
                       order_number = nextval('document_order')
                   WHERE payload_id = $1 AND user_id = $2 AND is_complete AND expires_at > now()""",
                payload_id, user_id, job_id, KEPT,
            )  # fmt: skip
        return done == "UPDATE 1"

    async def file(self, payload_id: UUID, *, user_id: str) -> FileFacts | None:
        """What is known of a file; None where the user has no such payload that is complete."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                """SELECT size, sha256, media_type FROM payloads
                   WHERE payload_id = $1 AND user_id = $2 AND is_complete AND content IS NULL AND expires_at > now()""",
                payload_id, user_id,
            )  # fmt: skip
        return FileFacts(**row) if row else None

    async def parts(self, payload_id: UUID, *, user_id: str) -> AsyncIterator[bytes]:
        """The parts of a file, one after another; each is a question of its own, so that no connection is kept."""
        part = 0
        while True:
            async with self._pool.connection() as connection:
                content: bytes | None = await connection.fetchval(
                    """SELECT t.content FROM payload_parts t JOIN payloads p USING (payload_id)
                       WHERE t.payload_id = $1 AND t.part = $2 AND p.user_id = $3 AND p.is_complete""",
                    payload_id, part, user_id,
                )  # fmt: skip
            if content is None:
                return
            yield content
            part += 1

    # --- what nobody needs ---

    async def delete_old(self, *, after_end: timedelta = KEPT_AFTER_END, limit: int = SWEEP_ROWS) -> int:
        """Delete at most so many whose time is over, and so many whose jobs have ended; how many there were."""
        async with self._pool.connection() as connection:
            expired: str = await connection.execute(DELETE_EXPIRED, limit)
            ended: str = await connection.execute(DELETE_OF_ENDED, limit, after_end)
        return int(expired.rpartition(" ")[2]) + int(ended.rpartition(" ")[2])


async def sweep(store: PayloadStore) -> None:
    """Until cancelled: delete what nobody needs any more. Several may do it at once."""

    async def delete() -> None:
        while await store.delete_old():
            await asyncio.sleep(0.1)  # others want the database too

    await repeat(delete, "sweeping payloads", every_s=SWEEP_EVERY_S)
