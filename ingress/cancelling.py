"""Cancelling jobs: one by its id, or many by what they have in common."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Response
from pydantic import AwareDatetime, Field

from ingress.http.problems import Problem, not_found
from ingress.jobs import is_known_without_row, seen_by
from ingress.publisher import NotAcceptedError, OutcomeUnknownError
from ingress.services import CurrentUser, Found, Services
from ingress.submitting.cancel_requests import ended_as
from processors.errors import RetryableError
from schemas.events import UserUpdated
from schemas.request_fields import Metadata, RequestBody, UserId
from schemas.requests import JobKind
from sinks.postgres import InvalidCursorError

router = APIRouter()
MAX_AT_ONCE = 1000
RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {"description": "`cancelling`: it is on its way", "content": {"application/json": {"example": {
        "job_id": "...", "status": "cancelling"}}}},
    200: {"description": "It has ended: `cancelled`, or `already-finished`"},
    404: {"description": "There is no such job, or it is somebody else's"},
}  # fmt: skip
# Times that a database and every time zone can hold.
When = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 2, tzinfo=UTC), le=datetime(2999, 1, 1, tzinfo=UTC))]


class CancelBody(RequestBody):
    """Body of `POST /jobs/cancel`: which of the pending jobs; all that is given must fit."""

    status: Literal["pending"] = "pending"
    accepted_before: When | None = None
    accepted_after: When | None = None
    kind: JobKind | None = None
    metadata: Annotated[Metadata | None, Field(description="A job with these, and whatever else")] = None
    user_id: Annotated[UserId | None, Field(description="Admins only: whose; your own otherwise")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_AT_ONCE)] = MAX_AT_ONCE
    cursor: Annotated[str | None, Field(max_length=200, description="What `next` said")] = None


@router.post("/jobs/cancel", tags=["jobs"], status_code=202)
async def cancel_many(body: CancelBody, user: CurrentUser, found: Found) -> Response:
    """Cancel pending jobs, newest first, at most 1000 at once; `next` is the cursor to go on from."""
    whose = body.user_id or user.user_id
    if whose != user.user_id and user.role != "admin":
        raise Problem(403, "not-allowed", "only admins may cancel the jobs of others")
    try:
        job_ids, after = await found.jobs.pending(
            user_id=whose, accepted_before=body.accepted_before, accepted_after=body.accepted_after, kind=body.kind,
            metadata=body.metadata or {}, limit=body.limit, cursor=body.cursor,
        )  # fmt: skip
    except InvalidCursorError as error:
        raise Problem(400, error.code, error.message) from None
    statuses = await _cancel(job_ids, user, found)
    items = [{"job_id": str(job_id), "status": status} for job_id, status in zip(job_ids, statuses, strict=True)]
    return _json(202, {"items": items, "next": after})


@router.post("/jobs/{job_id}/cancel", tags=["jobs"], status_code=202, responses=RESPONSES)
async def cancel(job_id: UUID, user: CurrentUser, found: Found) -> Response:
    """Cancel a job; may be asked again: 202 `cancelling`, then 200 `cancelled`, or `already-finished`."""
    status = await _ended(job_id, user, found)
    if status is None:
        (status,) = await _cancel([job_id], user, found)
    return _json(202 if status == "cancelling" else 200, {"job_id": str(job_id), "status": status})


async def _ended(job_id: UUID, user: UserUpdated, found: Services) -> str | None:
    """How the job has ended, None while it is known to run or to wait.

    Raises:
        Problem: It is none of the user's, or Postgres is away and nothing else tells whose it is.
    """
    try:
        row = await found.jobs.get(job_id, of=seen_by(user))
        if row is None and is_known_without_row(job_id, user, found) and not await found.deletion.is_deleted(job_id):
            return None
    except RetryableError:
        if is_known_without_row(job_id, user, found):
            return None
        raise
    if row is None:
        raise not_found()
    return None if row.status == "pending" else ended_as(row.error["code"] if row.error else None)


async def _cancel(job_ids: Sequence[UUID], user: UserUpdated, found: Services) -> list[str]:
    try:
        return await found.cancel_requests.cancel(job_ids, user.user_id)
    except NotAcceptedError as error:
        detail = f"{error}; nothing is cancelled by this, try again"
        raise Problem(503, "not-accepted", detail, headers={"Retry-After": "2"}) from None
    except OutcomeUnknownError:
        detail = "the request to cancel may have arrived: it does no harm to send it again"
        raise Problem(504, "outcome-unknown", detail) from None


def _json(status: int, body: Any) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
