"""Incidents, for admins: who tried what, when, and from where; and an end to somebody's quarantine."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import Field

from ingress.cancelling import When
from ingress.http.paced import PacedResponse
from ingress.http.problems import Problem, not_found
from ingress.services import Admin, Found, UserAdmin
from ingress.users import tell
from processors.errors import RetryableError
from sinks.incidents import Filter, IncidentRow, IncidentStore
from sinks.postgres import MAX_PAGE, InvalidCursorError

router = APIRouter(tags=["incidents"])
EXPORT_PAGE = 500
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # before a page is asked for again, where Postgres does not answer
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]
Cursor = Annotated[str, Field(max_length=600)]
Whose = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\s/\x00]+$")]
EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "One incident a line, the oldest first; a cut one has no end",
          "content": {"application/jsonl": {"schema": {"type": "string"}}}},
    429: {"description": "As many exports as are allowed at once are under way; see Retry-After"},
}  # fmt: skip


@router.get("/admin/incidents")
async def incidents(
    user: Admin,  # noqa: ARG001 an admin must ask
    found: Found,
    user_id: Whose | None = None,
    reason: Word | None = None,
    job_id: UUID | None = None,
    since: Annotated[When | None, Query(alias="from")] = None,
    to: When | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Cursor | None = None,
) -> Response:
    """Incidents, newest first; `to` is exclusive, `next` is the cursor of the page after."""
    wanted = Filter(user_id=user_id, reason=reason, job_id=job_id, since=since, to=to)
    try:
        rows, after = await found.incidents.page(wanted, limit=found.limits.page(limit), cursor=cursor)
    except InvalidCursorError as error:
        raise Problem(400, error.code, error.message) from None
    return _json({"items": [row.view() for row in rows], "next": after})


@router.get("/admin/incidents/export", response_class=Response, responses=EXPORTED)
async def export(
    user: Admin,
    found: Found,
    user_id: Whose | None = None,
    reason: Word | None = None,
    job_id: UUID | None = None,
    since: Annotated[When | None, Query(alias="from")] = None,
    to: When | None = None,
) -> Response:
    """All of them that fit, the oldest first, as JSON Lines without a bound."""
    wanted = Filter(user_id=user_id, reason=reason, job_id=job_id, since=since, to=to)
    exports = found.exports
    exports.begin(user.user_id)
    try:
        first = await found.incidents.oldest(wanted, limit=EXPORT_PAGE, after=None)
    except BaseException:
        exports.end(user.user_id)
        raise
    return PacedResponse(
        _lines(found.incidents, wanted, first), media_type="application/jsonl",
        headers={"content-disposition": 'attachment; filename="incidents.jsonl"'}, stall_s=exports.stall_s,
        longest_s=exports.longest_s, is_stopping=lambda: found.submissions.draining,
        at_the_end=lambda: exports.end(user.user_id),
    )  # fmt: skip


@router.post("/users/{user_id}/lift-quarantine", tags=["users"])
async def lift_quarantine(user_id: str, user: UserAdmin, found: Found) -> Response:  # noqa: ARG001 as above
    """Take a user's requests again at once; what put them in quarantine counts no more. May be asked again."""
    row = await found.users.lift_quarantine(user_id) if "\x00" not in user_id else None
    if row is None:
        raise not_found()
    await tell(found, user_id)
    return _json({"user_id": user_id, "quarantined_until": None})


async def _lines(store: IncidentStore, wanted: Filter, page: list[IncidentRow]) -> AsyncIterator[bytes]:
    while page:
        yield b"".join(orjson.dumps(row.view(), option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z) for row in page)
        page = await _next(store, wanted, page[-1].cursor) if len(page) == EXPORT_PAGE else []


async def _next(store: IncidentStore, wanted: Filter, after: str) -> list[IncidentRow]:
    for pause_s in PAUSES_S:
        try:
            return await store.oldest(wanted, limit=EXPORT_PAGE, after=after)
        except RetryableError:
            await asyncio.sleep(pause_s)
    return await store.oldest(wanted, limit=EXPORT_PAGE, after=after)


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), 200, media_type="application/json")
