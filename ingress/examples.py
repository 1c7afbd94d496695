"""Examples to learn from: given as jobs, looked at, exported and deleted by whoever gave them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Response
from pydantic import Field

from ingress.chat import JOBS, as_job
from ingress.http.paced import PacedResponse
from ingress.http.problems import not_found
from ingress.services import CostingUser, CurrentUser, Found
from ingress.submitting.idempotency import Key
from processors.errors import RetryableError
from schemas.requests import ExampleRequest
from sinks.examples import ExampleRow, ExampleStore
from sinks.postgres import MAX_PAGE

router = APIRouter(prefix="/instruction", tags=["learning"])
EXPORT_PAGE = 100  # of up to 45,000 characters each
PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0)  # before a page is asked for again, where Postgres does not answer
Words = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
LISTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page, newest first; or with `format=jsonl` all of them, one a line, the oldest first",
        "content": {
            "application/json": {"example": {"items": [{
                "example_id": "...", "instruction": "Translate.", "input": "chat", "output": "cat",
                "created_at": "2026-01-02T03:04:05Z",
            }], "next": None}},
            "application/jsonl": {"schema": {"type": "string"}},
        },
    },
    429: {"description": "Rate limit, or as many exports as are allowed at once are under way; see Retry-After"},
}  # fmt: skip


@router.post("/smart/add", status_code=202, responses=JOBS)
async def add(body: ExampleRequest, user: CostingUser, found: Found, key: Key) -> Response:
    """Give an example, and get a job: refused like a prompt where it is an attack; its result says if it was there."""
    return as_job(*await found.submissions.accepted(user, body, callback_url=None, keyed=key))


@router.get("/examples", response_class=Response, responses=LISTED)
async def examples(
    user: CostingUser,
    found: Found,
    text: Annotated[Words | None, Query(description="Only those that hold it, whatever its letters' size")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    cursor: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
    format: Literal["json", "jsonl"] = "json",  # noqa: A002 the query parameter's name
) -> Response:
    """Your own examples; `next` is the cursor of the page after. The lines of an export are what training reads."""
    if format == "json":
        rows, after = await found.examples.page(
            user.user_id, text=text, before=cursor, limit=found.limits.page(limit)
        )  # fmt: skip
        body = {"items": [row.view() for row in rows], "next": str(after) if after is not None else None}
        return Response(orjson.dumps(body, option=orjson.OPT_UTC_Z), 200, media_type="application/json")
    found.submissions.count(user)
    exports = found.exports
    exports.begin(user.user_id)
    try:
        first = await found.examples.oldest(user.user_id, text=text, after=0, limit=EXPORT_PAGE)
    except BaseException:
        exports.end(user.user_id)
        raise
    return PacedResponse(
        _lines(found.examples, user.user_id, text, first), media_type="application/jsonl",
        headers={"content-disposition": 'attachment; filename="examples.jsonl"'}, stall_s=exports.stall_s,
        longest_s=exports.longest_s, is_stopping=lambda: found.submissions.draining,
        at_the_end=lambda: exports.end(user.user_id),
    )  # fmt: skip


@router.delete("/examples/{example_id}", status_code=204)
async def delete(example_id: UUID, user: CurrentUser, found: Found) -> Response:
    """Delete one of your own; adapters that have learnt from it stay as they are."""
    if not await found.examples.delete(example_id, user_id=user.user_id):
        raise not_found()
    return Response(status_code=204)


async def _lines(
    store: ExampleStore, user_id: str, text: str | None, page: Sequence[ExampleRow]
) -> AsyncIterator[bytes]:
    while page:
        yield b"".join(orjson.dumps(row.lesson(), option=orjson.OPT_APPEND_NEWLINE) for row in page)
        page = await _next(store, user_id, text, page[-1].number) if len(page) == EXPORT_PAGE else []


async def _next(store: ExampleStore, user_id: str, text: str | None, after: int) -> Sequence[ExampleRow]:
    for pause_s in PAUSES_S:
        try:
            return await store.oldest(user_id, text=text, after=after, limit=EXPORT_PAGE)
        except RetryableError:
            await asyncio.sleep(pause_s)
    return await store.oldest(user_id, text=text, after=after, limit=EXPORT_PAGE)
