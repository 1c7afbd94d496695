"""Documents as their users see them, and their deletion. Every statement for it lives here."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from sinks.pool import Pool
from sinks.postgres import InvalidCursorError

# `a`: the version that is seen, None before the first; `n`: the newest one. A deleted document has none.
DOCUMENTS = """
SELECT d.document_id, d.user_id, d.source, d.created_at, (d.active_version IS NOT NULL) AS is_ready,
       coalesce(a.version_id, n.version_id) AS version_id, coalesce(a.job_id, n.job_id) AS job_id,
       coalesce(a.chunks, n.chunks) AS chunks, coalesce(a.pages, n.pages) AS pages, coalesce(a.size, n.size) AS size,
       coalesce(a.sha256, n.sha256) AS sha256, coalesce(a.media_type, n.media_type) AS media_type,
       coalesce(a.provider, n.provider) AS provider, coalesce(a.model, n.model) AS model,
       greatest(a.updated_at, n.updated_at) AS updated_at, n.state AS newest_state, n.job_id AS newest_job,
       n.error_code, (n.version_id IS DISTINCT FROM d.active_version) AS is_changing,
       (SELECT count(*) FROM document_versions v WHERE v.document_id = d.document_id AND v.state <> 'deleted')
           AS versions
FROM documents d
LEFT JOIN document_versions a ON a.version_id = d.active_version
JOIN LATERAL (
    SELECT * FROM document_versions v WHERE v.document_id = d.document_id AND v.state <> 'deleted'
    ORDER BY v.accepted_at DESC, v.version_id DESC LIMIT 1) n ON true
WHERE {which} ORDER BY d.created_at DESC, d.document_id DESC LIMIT $1
"""
PAGE = DOCUMENTS.format(which="""($2::text IS NULL OR d.user_id = $2)
    AND ($3::timestamptz IS NULL OR (d.created_at, d.document_id) < ($3, $4::uuid))""")  # fmt: skip
ONE = DOCUMENTS.format(which="($2::text IS NULL OR d.user_id = $2) AND d.document_id = $3")

VERSIONS = """
SELECT version_id, job_id, state, chunks, pages, size, sha256, media_type, provider, model, error_code, created_at,
       updated_at
FROM document_versions WHERE document_id = $1 AND state <> 'deleted' ORDER BY accepted_at DESC, version_id DESC LIMIT 50
"""

# Jobs whose rows were rebuilt after a disaster, of documents that were not.
LOST = """
SELECT user_id, count(DISTINCT result->>'document_id') AS lost FROM jobs j
WHERE kind = 'document' AND status = 'completed' AND deleted_at IS NULL AND result ? 'document_id'
  AND NOT EXISTS (SELECT FROM documents d WHERE d.document_id::text = j.result->>'document_id')
GROUP BY user_id
"""

LOCK = """
SELECT user_id FROM documents d
WHERE document_id = $1 AND ($2::text IS NULL OR user_id = $2)
  AND EXISTS (SELECT FROM document_versions v WHERE v.document_id = d.document_id AND v.state <> 'deleted')
FOR UPDATE
"""
# With its name goes the last that its user has written; the rest tells jobs that are under way that it is gone.
DELETE_DOCUMENT = """
UPDATE documents SET active_version = NULL, deleted_at = clock_timestamp(), deleted_number = nextval('document_order'),
    source = document_id::text
WHERE document_id = $1
"""
DELETE_VERSIONS = """
UPDATE document_versions SET state = 'deleted', updated_at = clock_timestamp()
WHERE document_id = $1 AND state <> 'deleted'
"""
DELETE_PAYLOADS = """
DELETE FROM payloads p USING document_versions v
WHERE v.document_id = $1 AND p.payload_id = v.payload_id AND p.user_id = v.user_id
"""
DELETE_BATCHES = """
DELETE FROM document_batches b USING document_versions v WHERE v.document_id = $1 AND b.version_id = v.version_id
"""


class DocumentLists:
    """Every method raises RetryableError while Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def lost(self) -> dict[str, int]:
        """How many documents of each user jobs have stored that are not here, be it that they were deleted."""
        async with self._pool.connection() as connection:
            return {row["user_id"]: row["lost"] for row in await connection.fetch(LOST)}

    async def page(
        self, *, user_id: str | None, limit: int, cursor: str | None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Newest first: at most `limit` documents, and the cursor of those after them.

        Args:
            user_id: Whose; None: everybody's.
            limit: How many.
            cursor: What the page before gave.

        Raises:
            InvalidCursorError: It is not one of ours.
        """
        at, after = _decoded(cursor) if cursor else (None, None)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(PAGE, limit + 1, user_id, at, after)
        shown = rows[:limit]
        return [_view(row) for row in shown], _encoded(shown[-1]) if len(rows) > limit else None

    async def get(self, document_id: UUID, *, of: str | None) -> dict[str, Any] | None:
        """One with its newest versions; `of`: only this user's."""
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(ONE, 1, of, document_id)
            if row is None:
                return None
            versions = await connection.fetch(VERSIONS, document_id)
        return _view(row) | {"history": [_version_view(version) for version in versions]}

    async def delete(self, document_id: UUID, *, of: str | None) -> bool:
        """From now on nobody finds anything of it: its rows say so, its files are gone. False where there is none.

        Its vectors are deleted by whoever works on documents (see `document_sweep`).
        """
        async with self._pool.connection() as connection, connection.transaction():
            if await connection.fetchval(LOCK, document_id, of) is None:
                return False
            await connection.execute(DELETE_PAYLOADS, document_id)
            for statement in (DELETE_BATCHES, DELETE_VERSIONS, DELETE_DOCUMENT):
                await connection.execute(statement, document_id)
        return True


def _view(row: Any) -> dict[str, Any]:
    status = "ready" if row["is_ready"] else "failed" if row["newest_state"] == "failed" else "ingesting"
    view: dict[str, Any] = {
        "document_id": str(row["document_id"]), "user_id": row["user_id"], "source": row["source"], "status": status,
        "chunks": row["chunks"], "pages": row["pages"], "size": row["size"], "sha256": row["sha256"],
        "media_type": row["media_type"], "provider": row["provider"], "model": row["model"],
        "versions": row["versions"], "job_id": str(row["job_id"]), "created_at": _iso(row["created_at"]),
        "updated_at": _iso(row["updated_at"]),
    }  # fmt: skip
    if row["newest_state"] == "failed":
        view["error"] = {"code": row["error_code"], "job_id": str(row["newest_job"])}
    elif row["newest_state"] == "ingesting" and row["is_ready"]:
        view["next_version"] = {"status": "ingesting", "job_id": str(row["newest_job"])}
    return {name: value for name, value in view.items() if value is not None}


def _version_view(row: Any) -> dict[str, Any]:
    view = {
        "version_id": str(row["version_id"]), "job_id": str(row["job_id"]), "state": row["state"],
        "chunks": row["chunks"], "pages": row["pages"], "size": row["size"], "sha256": row["sha256"],
        "media_type": row["media_type"], "provider": row["provider"], "model": row["model"],
        "error": {"code": row["error_code"]} if row["error_code"] else None, "created_at": _iso(row["created_at"]),
        "updated_at": _iso(row["updated_at"]),
    }  # fmt: skip
    return {name: value for name, value in view.items() if value is not None}


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _encoded(row: Any) -> str:
    place = orjson.dumps([row["created_at"].isoformat(), str(row["document_id"])])
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _decoded(cursor: str) -> tuple[datetime, UUID]:
    try:
        at, document = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        found = datetime.fromisoformat(at), UUID(document)
        if found[0].tzinfo is None:
            raise InvalidCursorError
    except (ValueError, TypeError, AttributeError, OverflowError, binascii.Error):
        raise InvalidCursorError from None
    return found
