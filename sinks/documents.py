"""Which documents there are, and how far they are: the ledger of the stages that make them. See `DocumentLedger`.

A version becomes the active one in one transaction, which locks its document's row; until then, and from the moment
in which another one does, searches leave its vectors out. So whoever searches sees one version whole, or another.

    ingesting -> active -> replaced        deleted: by its user, in any state
        └─────-> failed                    failed: its job ended with an error; replaced: a later one was there first
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from processors.documents.document_ports import (
    BatchState,
    ChunkSize,
    Collection,
    HeldFile,
    Same,
    Version,
    VersionState,
)
from processors.errors import PermanentError
from schemas.events import ChunksPrepared, DocumentProgress, Job
from schemas.ids import document_id, document_version_id
from sinks.pool import Pool

# Of jobs `j`. The two codes yield to whatever else becomes of a job, which may be under way.
HAS_ERROR = "j.status = 'error' AND coalesce(j.error->>'code', '') NOT IN ('rate-limited', 'quarantined')"

VERSION = """
SELECT v.document_id, v.version_id, v.user_id, d.source, v.state, v.pages, v.chunks, v.batches, v.chunking
FROM document_versions v JOIN documents d USING (document_id) WHERE v.version_id = $1
"""

# Locks the document's row, so that those who begin, finish or delete a version of it do so one after another.
HAVE_DOCUMENT = """
INSERT INTO documents (document_id, user_id, source) VALUES ($1, $2, $3)
ON CONFLICT (document_id) DO UPDATE SET
    source = excluded.source,
    created_at = CASE WHEN documents.deleted_at IS NULL OR EXISTS (
        SELECT FROM document_versions v WHERE v.document_id = documents.document_id AND v.state <> 'deleted'
    ) THEN documents.created_at ELSE now() END
RETURNING deleted_at, deleted_number
"""

# As if it were made by this job: of a version that is still on its way and was asked for earlier, it is the newer one;
# and what becomes of the job that made it is no matter any more. How older versions were cut is not known.
ADOPT_SAME = """
UPDATE document_versions v SET accepted_at = greatest(v.accepted_at, $2), is_settled = true
FROM documents d
WHERE d.document_id = $1 AND v.version_id = d.active_version
  AND v.sha256 = $3 AND v.provider = $4 AND v.model = $5 AND coalesce(v.chunking, $6) = $6
RETURNING v.document_id, v.version_id, v.pages, v.chunks
"""

INSERT_VERSION = """
INSERT INTO document_versions
    (version_id, document_id, user_id, job_id, run, payload_id, state, sha256, size, media_type, provider, model,
     accepted_at, chunking)
VALUES ($1, $2, $3, $4, $5, $6, 'ingesting', $7, $8, $9, $10, $11, $12, $13)
"""

PARTITIONED = """
UPDATE document_versions SET chunks = $2, batches = $3, pages = $4, pages_read = coalesce($4, pages_read),
    updated_at = now()
WHERE version_id = $1 AND state = 'ingesting'
"""

WANTED = """
SELECT v.state, v.model, EXISTS (
    SELECT FROM document_batches b WHERE b.version_id = v.version_id AND b.batch = $2) AS is_counted
FROM document_versions v WHERE v.version_id = $1
"""

# Whoever asks may just have stored vectors of it, and may not have come to say so.
LOOK_AGAIN = """
UPDATE document_versions SET has_vectors = true, updated_at = clock_timestamp()
WHERE version_id = $1 AND state IN ('deleted', 'failed') AND dimensions IS NOT NULL
"""

STORING = """
UPDATE document_versions SET dimensions = coalesce(dimensions, $2) WHERE version_id = $1 RETURNING state, dimensions
"""

COUNT_BATCH = """
WITH version AS (SELECT version_id, state FROM document_versions WHERE version_id = $1),
counted AS (
    INSERT INTO document_batches (version_id, batch, chunks)
    SELECT version_id, $2, $3 FROM version WHERE state = 'ingesting' ON CONFLICT DO NOTHING)
SELECT state FROM version
"""

PROGRESS = """
SELECT v.state, v.pages_read, v.pages, v.chunks,
       (SELECT coalesce(sum(b.chunks), 0) FROM document_batches b WHERE b.version_id = v.version_id)::int AS embedded
FROM document_versions v WHERE v.version_id = $1
"""

READ_SO_FAR = """
UPDATE document_versions SET pages_read = greatest(pages_read, $2), pages = coalesce($3, pages)
WHERE version_id = $1 AND state = 'ingesting'
"""

IS_WHOLE = """
SELECT batches IS NOT NULL AND batches <= (SELECT count(*) FROM document_batches b WHERE b.version_id = v.version_id)
FROM document_versions v WHERE v.version_id = $1
"""

# Nobody is told of a job that was cancelled and of its document at once. What comes after this is for the sweep.
HAS_FAILED = f"""
SELECT EXISTS (SELECT FROM document_versions v JOIN jobs j USING (job_id)
               WHERE v.version_id = $1 AND j.run >= v.run AND {HAS_ERROR})
"""  # noqa: S608 constant

ORDER_OF_FILE = "SELECT order_number, job_id FROM payloads WHERE payload_id = $1 AND user_id = $2"
IS_KNOWN = "SELECT EXISTS (SELECT FROM documents WHERE document_id = $1)"

HIDDEN = "SELECT version_id FROM document_versions WHERE user_id = $1 AND state <> 'active' AND has_vectors"

COLLECTIONS = """
SELECT DISTINCT provider, model, dimensions FROM document_versions
WHERE user_id = $1 AND state = 'active' AND dimensions IS NOT NULL
"""


class PostgresDocuments:
    """See `DocumentLedger`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(
        self, job: Job, *, source: str, payload_id: UUID, file: HeldFile, provider: str, model: str, size: ChunkSize
    ) -> Version | Same:  # fmt: skip
        """See `DocumentLedger.begin`."""
        document = document_id(job.user_id, source)
        version_id = document_version_id(document, job.job_id, job.run)
        async with self._pool.connection() as connection, connection.transaction():
            deletion = await connection.fetchrow(HAVE_DOCUMENT, document, job.user_id, source)
            if (known := await _version(connection, version_id)) is not None:
                return known
            if deletion["deleted_at"] is not None and await _was_before(connection, job, payload_id, deletion):
                raise _deleted()
            chunking = _chunking(size)
            same = await connection.fetchrow(
                ADOPT_SAME, document, job.accepted_at, file.sha256, provider, model, chunking
            )  # fmt: skip
            if same is not None:
                return Same(**same)
            await connection.execute(
                INSERT_VERSION, version_id, document, job.user_id, job.job_id, job.run, payload_id, file.sha256,
                file.size, file.media_type, provider, model, job.accepted_at, chunking,
            )  # fmt: skip
        return Version(document, version_id, job.user_id, source, size=size)

    async def partitioned(self, version: Version, *, chunks: int, batches: int, pages: int | None) -> Version:
        """See `DocumentLedger.partitioned`."""
        async with self._pool.connection() as connection:
            await connection.execute(PARTITIONED, version.version_id, chunks, batches, pages)
            return _there(await _version(connection, version.version_id))

    async def wanted(self, event: ChunksPrepared, *, model: str) -> BatchState:
        """See `DocumentLedger.wanted`."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(WANTED, event.version_id, event.batch)
            if row is None:
                if await connection.fetchval(IS_KNOWN, event.document_id):
                    return "deleted"
                raise _lost()
            if row["state"] in ("deleted", "failed"):
                await connection.execute(LOOK_AGAIN, event.version_id)
        state: VersionState = row["state"]
        if state == "active":
            return "counted"
        if state != "ingesting":
            return state
        if row["is_counted"]:
            return "counted"
        if row["model"] != model:
            raise _changed(f"the model {row['model']}, and is now to have some of {model}")
        return "wanted"

    async def storing(self, event: ChunksPrepared, *, collection: Collection) -> VersionState:
        """See `DocumentLedger.storing`."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(STORING, event.version_id, collection.dimensions)
        if row is None:
            return "deleted"
        if row["dimensions"] != collection.dimensions:
            raise _changed(f"{row['dimensions']} numbers, and is now to have some of {collection.dimensions}")
        state: VersionState = row["state"]
        return state

    async def embedded(self, event: ChunksPrepared) -> tuple[VersionState, DocumentProgress]:
        """See `DocumentLedger.embedded`."""
        async with self._pool.connection() as connection:
            state: VersionState | None = await connection.fetchval(
                COUNT_BATCH, event.version_id, event.batch, len(event.chunks)
            )
            row = await connection.fetchrow(PROGRESS, event.version_id)
            if state in ("deleted", "failed"):
                await connection.execute(LOOK_AGAIN, event.version_id)
        if state is None or row is None:
            return "deleted", DocumentProgress()
        return state, _progress(row)

    async def finish(self, version_id: UUID) -> Version | None:
        """See `DocumentLedger.finish`."""
        async with self._pool.connection() as connection:
            version = _there(await _version(connection, version_id))
            if version.state != "ingesting":
                return version
            if not await connection.fetchval(IS_WHOLE, version_id):
                return None
            async with connection.transaction():
                await _activate(connection, version)
                return _there(await _version(connection, version_id))

    async def progress(
        self, version_id: UUID, *, pages: int | None = None, pages_total: int | None = None
    ) -> DocumentProgress:
        """See `DocumentLedger.progress`."""
        async with self._pool.connection() as connection:
            if pages is not None:
                await connection.execute(READ_SO_FAR, version_id, pages, pages_total)
            row = await connection.fetchrow(PROGRESS, version_id)
        if row is None or row["state"] == "deleted":
            raise _deleted()
        if row["state"] == "failed":
            raise _ended()
        return _progress(row)

    async def hidden(self, user_id: str) -> Sequence[UUID]:
        """See `DocumentLedger.hidden`."""
        async with self._pool.connection() as connection:
            return [row["version_id"] for row in await connection.fetch(HIDDEN, user_id)]

    async def collections(self, user_id: str) -> Sequence[Collection]:
        """See `DocumentLedger.collections`."""
        async with self._pool.connection() as connection:
            return [Collection(**row) for row in await connection.fetch(COLLECTIONS, user_id)]


async def _version(connection: Any, version_id: UUID) -> Version | None:
    row = await connection.fetchrow(VERSION, version_id)
    if row is None:
        return None
    if row["state"] == "deleted":
        raise _deleted()
    if row["state"] == "failed":
        raise _ended()
    told = dict(row)
    chunking: str | None = told.pop("chunking")
    size = None if chunking is None else ChunkSize(*map(int, chunking.split("+")))
    return Version(**told, size=size)


def _chunking(size: ChunkSize) -> str:
    return f"{size.max_tokens}+{size.overlap_tokens}"


async def _was_before(connection: Any, job: Job, payload_id: UUID, deletion: Any) -> bool:
    """Whether the job was asked for before its document was deleted.

    A file that is the job's own was claimed by it just before it was published: that and the deletion have numbers of
    one sequence. One that was put up for any job of its user's may have been there long before; of it alone the clocks
    of brokers and database have to tell, unless it was put up after the deletion.
    """
    file = await connection.fetchrow(ORDER_OF_FILE, payload_id, job.user_id)
    deleted_number = deletion["deleted_number"]
    if file is not None and file["order_number"] is not None and deleted_number is not None:
        if file["order_number"] > deleted_number:
            return False
        if file["job_id"] == job.job_id:
            return True
    return bool(job.accepted_at <= deletion["deleted_at"])


def _there(version: Version | None) -> Version:
    if version is None:
        raise _deleted()
    return version


async def _activate(connection: Any, version: Version) -> None:
    """In place of the one that is active, unless that was asked for later."""
    active = await connection.fetchval(
        "SELECT active_version FROM documents WHERE document_id = $1 FOR UPDATE", version.document_id
    )
    is_newer, state = await connection.fetchrow(
        """SELECT a.version_id IS NULL OR (v.accepted_at, v.version_id) > (a.accepted_at, a.version_id), v.state
           FROM document_versions v LEFT JOIN document_versions a ON a.version_id = $2 WHERE v.version_id = $1""",
        version.version_id, active,
    )  # fmt: skip
    if state != "ingesting":  # while we waited for the row
        return
    if await connection.fetchval(HAS_FAILED, version.version_id):
        raise _ended()
    replaced, states = [version.version_id], "UPDATE document_versions SET state = $2, updated_at = now()"
    if is_newer:
        await connection.execute(f"{states} WHERE version_id = $1", version.version_id, "active")
        await connection.execute(
            "UPDATE documents SET active_version = $2 WHERE document_id = $1", version.document_id, version.version_id
        )
        replaced = [active] if active else []
    await connection.execute(f"{states} WHERE version_id = ANY($1)", replaced, "replaced")
    await connection.execute("DELETE FROM document_batches WHERE version_id = $1", version.version_id)


def _deleted() -> PermanentError:
    return PermanentError("document-deleted", "the document was deleted while it was being ingested")


def _lost() -> PermanentError:
    return PermanentError(
        "document-lost", "nothing is known of the document any more: the database was restored; ingest the file again"
    )


def _ended() -> PermanentError:
    return PermanentError("document-ended", "the job that ingests it had ended before: ingest the file again")


def _changed(what: str) -> PermanentError:
    return PermanentError(
        "document-model-changed",
        f"the document has vectors of {what}, which do not go together: the provider's embedding model was changed "
        "meanwhile; ingest the file again",
    )


def _progress(row: Any) -> DocumentProgress:
    is_over = row["state"] in ("active", "replaced")  # its batches are counted no more
    return DocumentProgress(
        pages=row["pages_read"], pages_total=row["pages"],
        chunks=row["chunks"] or 0 if is_over else row["embedded"], chunks_total=row["chunks"],
    )  # fmt: skip
