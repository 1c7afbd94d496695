"""What is left of documents that nobody sees any more: vectors first, then rows. Every statement for it lives here."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from processors.documents.document_ports import Collection
from sinks.documents import HAS_ERROR
from sinks.pool import Pool

REPLACED_KEPT = timedelta(seconds=60)  # whoever began to search before it was replaced sees it whole
MAX_OLD_VERSIONS, OLD_KEPT = 20, timedelta(days=30)
# Longer than any job is good for: what was asked for before a document was deleted is known as such until then.
DELETED_KEPT = timedelta(hours=25)

FAIL_ENDED = f"""
UPDATE document_versions v SET state = 'failed', updated_at = now(), error_code = ended.code
FROM (SELECT w.version_id, coalesce(j.error->>'code', 'unexpected-error') AS code
      FROM document_versions w LEFT JOIN jobs j USING (job_id)
      WHERE w.state = 'ingesting' AND (
            {HAS_ERROR} AND j.run >= w.run
         OR j.status = 'completed' AND j.run > w.run
         OR j.job_id IS NULL AND w.accepted_at < now() - $2::interval)
      LIMIT $1) ended
WHERE v.version_id = ended.version_id AND v.state = 'ingesting'
"""  # noqa: S608 constant

# Of several outcomes of a job the first in the log is the one that counts, and that is the one which is stored. So
# a version that was done just as its job was cancelled (or ended otherwise, by whoever) is known by it.
SETTLE = """
UPDATE document_versions v SET is_settled = true
FROM document_versions w LEFT JOIN jobs j USING (job_id)
WHERE w.version_id = v.version_id AND w.state = 'active' AND NOT w.is_settled
  AND (j.status = 'completed' AND j.run >= w.run OR j.run > w.run
       OR j.job_id IS NULL AND w.accepted_at < now() - $1::interval)
"""

TO_UNDO = f"""
SELECT v.version_id, v.document_id, j.error->>'code' AS code FROM document_versions v JOIN jobs j USING (job_id)
WHERE v.state = 'active' AND NOT v.is_settled AND j.run = v.run AND {HAS_ERROR} LIMIT $1
"""  # noqa: S608 constant

LOCK = "SELECT FROM documents WHERE document_id = $1 FOR UPDATE"

UNDO = """
UPDATE document_versions SET state = 'failed', error_code = $2, updated_at = clock_timestamp()
WHERE version_id = $1 AND state = 'active' AND NOT is_settled
RETURNING version_id
"""

# What was whole before it. Its vectors are there as long as the version that replaced it is not settled.
BACK = """
WITH before AS (
    UPDATE document_versions SET state = 'active', is_settled = true, updated_at = clock_timestamp()
    WHERE version_id = (
        SELECT version_id FROM document_versions WHERE document_id = $1 AND state = 'replaced' AND has_vectors
        ORDER BY accepted_at DESC, version_id DESC LIMIT 1)
    RETURNING version_id)
UPDATE documents SET active_version = (SELECT version_id FROM before) WHERE document_id = $1
"""

WITH_VECTORS = """
SELECT v.version_id, v.document_id, v.user_id, v.provider, v.model, v.dimensions, v.updated_at FROM document_versions v
WHERE v.has_vectors AND (
    v.state IN ('deleted', 'failed')
    OR v.state = 'replaced' AND v.updated_at < now() - $2::interval AND NOT EXISTS (
        SELECT FROM documents d JOIN document_versions a ON a.version_id = d.active_version
        LEFT JOIN jobs j ON j.job_id = a.job_id
        WHERE d.document_id = v.document_id AND NOT a.is_settled
          AND (j.status <> 'completed' OR j.job_id IS NULL AND a.accepted_at > now() - $3::interval)))
ORDER BY v.updated_at LIMIT $1
"""

# Not where somebody has said meanwhile that there may be some again.
WITHOUT_VECTORS = """
UPDATE document_versions SET has_vectors = false
WHERE version_id = $1 AND updated_at = $2 AND state IN ('deleted', 'failed', 'replaced')
"""

FORGET_DELETED = """
DELETE FROM document_versions WHERE version_id IN (
    SELECT v.version_id FROM document_versions v LEFT JOIN jobs j USING (job_id)
    WHERE v.state = 'deleted' AND NOT v.has_vectors AND (j.job_id IS NULL OR j.status <> 'pending') LIMIT $1)
"""

FORGET_OLD = """
DELETE FROM document_versions WHERE version_id IN (
    SELECT version_id FROM (
        SELECT version_id, updated_at, row_number() OVER (PARTITION BY document_id ORDER BY accepted_at DESC) AS place
        FROM document_versions WHERE state IN ('replaced', 'failed') AND NOT has_vectors
    ) old WHERE place > $2 OR updated_at < now() - $3::interval LIMIT $1)
"""

FORGET_DOCUMENTS = """
DELETE FROM documents WHERE document_id IN (
    SELECT d.document_id FROM documents d
    WHERE NOT EXISTS (SELECT FROM document_versions v WHERE v.document_id = d.document_id)
      AND (d.deleted_at IS NULL OR d.deleted_at < now() - $2::interval)
    LIMIT $1 FOR UPDATE SKIP LOCKED)
"""


@dataclass(frozen=True, slots=True)
class OldVersion:
    """A version whose vectors nobody is to see; `collection`: None where none were ever stored."""

    version_id: UUID
    document_id: UUID
    user_id: str
    collection: Collection | None
    updated_at: datetime


class OldVersions:
    """Several may do it at once. Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def fail_ended(self, *, limit: int = 200) -> int:
        """What is being ingested although its job has ended with an error has failed; how many there were."""
        async with self._pool.connection() as connection:
            done: str = await connection.execute(FAIL_ENDED, limit, DELETED_KEPT)
        return _count(done)

    async def settle(self, *, limit: int = 200) -> int:
        """Versions whose jobs have ended otherwise than with them become failed ones, and those before them are back.

        How many there were.
        """
        undone = 0
        async with self._pool.connection() as connection:
            await connection.execute(SETTLE, DELETED_KEPT)
            for row in await connection.fetch(TO_UNDO, limit):
                async with connection.transaction():
                    await connection.execute(LOCK, row["document_id"])
                    if await connection.fetchval(UNDO, row["version_id"], row["code"]) is not None:
                        await connection.execute(BACK, row["document_id"])
                        undone += 1
        return undone

    async def with_vectors(self, *, limit: int = 100, replaced_kept: timedelta = REPLACED_KEPT) -> list[OldVersion]:
        """Those whose vectors are to be deleted now."""
        async with self._pool.connection() as connection:
            rows = await connection.fetch(WITH_VECTORS, limit, replaced_kept, DELETED_KEPT)
        return [
            OldVersion(
                row["version_id"], row["document_id"], row["user_id"],
                Collection(row["provider"], row["model"], row["dimensions"]) if row["dimensions"] else None,
                row["updated_at"],
            )
            for row in rows
        ]  # fmt: skip

    async def without_vectors(self, version: OldVersion) -> None:
        """Its vectors are deleted."""
        async with self._pool.connection() as connection:
            await connection.execute(WITHOUT_VECTORS, version.version_id, version.updated_at)

    async def forget(self, *, limit: int = 500) -> int:
        """Delete rows of what was deleted, and of old versions beyond 20 of a document and after 30 days."""
        async with self._pool.connection() as connection:
            counts = [
                _count(await connection.execute(FORGET_DELETED, limit)),
                _count(await connection.execute(FORGET_OLD, limit, MAX_OLD_VERSIONS, OLD_KEPT)),
                _count(await connection.execute(FORGET_DOCUMENTS, limit, DELETED_KEPT)),
            ]
        return sum(counts)


def _count(done: str) -> int:
    return int(done.rpartition(" ")[2])
