"""Own documents: which there are, how far they are, and away with them."""

from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response

from ingress.http.problems import Problem, not_found
from ingress.jobs import seen_by, shown_of
from ingress.services import CurrentUser, Found
from processors.errors import PermanentError
from sinks.postgres import MAX_PAGE, InvalidCursorError

router = APIRouter(prefix="/documents", tags=["documents"])
EXAMPLE = {
    "document_id": "...", "user_id": "alice", "source": "handbook.pdf", "status": "ready", "chunks": 42, "pages": 17,
    "size": 190_211, "sha256": "...", "media_type": "application/pdf", "provider": "local",
    "model": "multilingual-e5-small", "versions": 1, "job_id": "...", "created_at": "2026-01-02T03:04:05Z",
    "updated_at": "2026-01-02T03:04:21Z",
}  # fmt: skip
ONE: dict[int | str, dict[str, Any]] = {
    200: {"description": "`status` is `ready` (a version of it can be found), `ingesting`, or `failed` with `error`; "
          "`history` are its newest versions", "content": {"application/json": {"example": EXAMPLE | {"history": []}}}},
}  # fmt: skip
MANY: dict[int | str, dict[str, Any]] = {
    200: {"description": "A page", "content": {"application/json": {"example": {"items": [EXAMPLE], "next": None}}}},
    400: {"description": "The cursor is none"},
}


@router.get("", responses=MANY, response_class=Response)
async def documents(
    user: CurrentUser,
    found: Found,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    user_id: Annotated[str | None, Query(max_length=128, description="Whose; for admins, who else get all")] = None,
) -> Response:
    """Own documents (an admin's view: everybody's, or one user's), newest first; `next` is the next page's cursor."""
    whose = shown_of(user, user_id, what="documents")
    try:
        items, after = await found.documents.page(user_id=whose, limit=found.limits.page(limit), cursor=cursor)
    except InvalidCursorError as error:
        raise Problem(400, error.code, error.message) from None
    except PermanentError:  # nobody has a name that the database does not take
        items, after = [], None
    return _json({"items": items, "next": after})


@router.get("/{document_id}", responses=ONE, response_class=Response)
async def document(document_id: UUID, user: CurrentUser, found: Found) -> Response:
    """One document, with its newest versions."""
    view = await found.documents.get(document_id, of=seen_by(user))
    if view is None:
        raise not_found()
    return _json(view)


@router.delete("/{document_id}", status_code=204)
async def delete(document_id: UUID, user: CurrentUser, found: Found) -> Response:
    """Delete one, also while it is being ingested: it is found no more at once, and nothing is left within seconds."""
    if not await found.documents.delete(document_id, of=seen_by(user)):
        raise not_found()
    return Response(status_code=204)


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), 200, media_type="application/json")
