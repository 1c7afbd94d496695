"""All of one's jobs as JSON Lines, however many there are."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response

from ingress.cancelling import When
from ingress.http.paced import PacedResponse
from ingress.http.problems import Problem
from ingress.services import CostingUser, Found
from processors.errors import RetryableError
from schemas.request_fields import ProviderName
from sinks.job_export import BEGINNING, END, InvalidPlaceError, JobExport, Page, Place, Position, Wanted
from sinks.postgres import JobRow

router = APIRouter(tags=["jobs"])
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # before a page is asked for again, where Postgres does not answer
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "One job a line, as `GET /jobs/{job_id}` shows it, with `user_id`; a cut one has no end",
          "content": {"application/jsonl": {"schema": {"type": "string"}}}},
    400: {"description": "The cursor is none"},
    429: {"description": "Rate limit, or as many exports as are allowed at once are under way; see Retry-After"},
}  # fmt: skip


@router.get("/jobs/export", response_class=Response, responses=RESPONSES)
async def export(
    user: CostingUser,
    found: Found,
    format: Literal["jsonl"] = "jsonl",  # noqa: A002, ARG001 the parameter's name
    begin: Annotated[When | None, Query(alias="from", description="Accepted then or later")] = None,
    end: Annotated[When | None, Query(alias="to", description="Accepted before")] = None,
    provider: Annotated[ProviderName | None, Query(description="That answered, else was asked last")] = None,
    status: Literal["pending", "completed", "error"] | None = None,
    user_id: Annotated[str | None, Query(max_length=128, description="Whose; for admins, who else get all")] = None,
    cursor: Annotated[
        str | None, Query(max_length=100, description="To go on: `accepted_at/job_id` of the last line")
    ] = None,
) -> Response:
    """Own jobs (an admin's: everybody's, or one user's), the oldest first, as JSON Lines without a bound.

    A connection that breaks off has cut it: go on with `cursor`.
    """
    if user.role != "admin" and user_id not in (None, user.user_id):
        raise Problem(403, "not-allowed", "only admins export other users' jobs: leave `user_id` out")
    whose = user_id if user.role == "admin" else user.user_id
    try:
        after = Place.parse(cursor) if cursor is not None else None
    except InvalidPlaceError as error:
        raise Problem(400, error.code, error.message) from None
    wanted = Wanted(whose, begin or BEGINNING, end or END, provider, status, after)
    found.submissions.count(user)
    exports = found.exports
    exports.begin(user.user_id)
    try:
        first = await exports.jobs.page(wanted, JobExport.start(wanted))  # Postgres away: 503, nothing is begun
    except BaseException:
        exports.end(user.user_id)
        raise
    return PacedResponse(
        _lines(exports.jobs, wanted, first), media_type="application/jsonl",
        headers={"content-disposition": 'attachment; filename="jobs.jsonl"'}, stall_s=exports.stall_s,
        longest_s=exports.longest_s, is_stopping=lambda: found.submissions.draining,
        at_the_end=lambda: exports.end(user.user_id),
    )  # fmt: skip


async def _lines(jobs: JobExport, wanted: Wanted, page: Page) -> AsyncIterator[bytes]:
    """The pages as they are sent; a page is let go before the next one is read."""
    while True:
        if page.jobs:
            chunk = b"".join(map(_line, page.jobs))
            page.jobs.clear()
            yield chunk
            del chunk
        if page.following is None:
            return
        page = await _next(jobs, wanted, page.following)


async def _next(jobs: JobExport, wanted: Wanted, position: Position) -> Page:
    for pause_s in PAUSES_S:
        try:
            return await jobs.page(wanted, position)
        except RetryableError:
            await asyncio.sleep(pause_s)
    return await jobs.page(wanted, position)


def _line(row: JobRow) -> bytes:
    return orjson.dumps({"user_id": row.user_id, **row.view()}, option=orjson.OPT_APPEND_NEWLINE)
