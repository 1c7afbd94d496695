"""Listening to an answer as it comes, by server-sent events: `GET /jobs/{job_id}/stream`, `POST /chat/` with `stream`.

Source: HTML Living Standard, "Server-sent events".
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.types import Receive, Scope, Send

from ingress.following.channels import TooManyListenersError, TooManyOfUserError
from ingress.following.listener import DROPPED, Listener
from ingress.following.live import NotFollowedError
from ingress.http.bounded_http import abort
from ingress.http.problems import Problem
from ingress.jobs import visible
from ingress.services import CurrentUser, Found, Services, require, until_revoked
from schemas.events import UserUpdated

router = APIRouter()

STALL_S = 20.0  # a connection that takes nothing for so long is dead, or as good as that
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
EXAMPLE = """retry: 1000
event: progress
data: {"job_id":"..."}

id: 4-118
event: delta
data: {"text":"Air scatters blue"}

id: 4-121
event: delta
data: {"text":" light more than red."}

event: finished
data: {"job_id":"...","status":"completed","result":{"model":"gpt-4o-mini"}}
"""
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `progress`, `delta` with `{text}`, `restart` (the text so far is void), "
        "at the end `finished` or `error` with the job as polled; `error` with the code `access-revoked` where the "
        "token or key is no longer good. A connection that ends before goes on where it was "
        "with `Last-Event-ID`, at any replica.",
        "content": {"text/event-stream": {"example": EXAMPLE}},
    },
    429: {"description": "You have as many listeners as you may have; see Retry-After"},
    503: {"description": "This replica has too many listeners, or is not ready; see Retry-After"},
}
LastEventId = Annotated[str | None, Header(max_length=64, description="The `id` of the last event that you have")]


@router.get("/jobs/{job_id}/stream", tags=["jobs"], responses=STREAM, response_class=Response)
async def job_stream(
    job_id: UUID,
    user: CurrentUser,
    found: Found,
    request: Request,
    last_event_id: LastEventId = None,
    cancel_on_disconnect: Annotated[bool, Query(description="To leave before the end is to cancel the job")] = False,
) -> Response:
    """A job's answer from its first word on, or from where you were; while it comes, and as long as it is kept."""
    if cancel_on_disconnect:
        require("jobs", request.state.session)
    since_ms = await visible(job_id, user, found)
    listening = listen(found, job_id, user, after=last_event_id, since_ms=since_ms)
    on_left = canceller(found, user, job_id) if cancel_on_disconnect else None
    return EventStream(listening, job_id, on_left=on_left)


class Listening:
    """A listener from before its job is published until its connection has ended; `close` may be called twice."""

    def __init__(self, context: AbstractContextManager[Listener]) -> None:
        self._stack = ExitStack()
        self.listener = self._stack.enter_context(context)

    def close(self) -> None:
        """They listen no more."""
        self._stack.close()


def listen(found: Services, job_id: UUID, user: UserUpdated, *, after: str | None, since_ms: float | None) -> Listening:
    """Begin to listen; `since_ms`: as `Channels.listen`.

    Raises:
        Problem: Not here, not now.
    """
    again = {"Retry-After": "2", "Location": f"/jobs/{job_id}"}
    if found.submissions.draining:
        raise Problem(503, "not-ready", "this replica is stopping; try again", headers=again)
    try:
        most = found.limits.listeners_of(user)
        listener = found.channels.listen(
            job_id, after=after or None, since_ms=since_ms, user_id=user.user_id, most=most
        )  # fmt: skip
        return Listening(listener)
    except TooManyOfUserError:
        detail = f"you listen to as many answers as you may at once ({most}); end one of them, or poll the job"
        again["Retry-After"] = "5"
        raise Problem(
            429, "too-many-listeners", detail, headers=again, job_id=str(job_id), retry_after_s=5
        ) from None  # fmt: skip
    except TooManyListenersError:
        detail = "too many listen at this replica; try again, or poll the job"
        raise Problem(503, "too-many-listeners", detail, headers=again, job_id=str(job_id)) from None
    except NotFollowedError as error:
        raise Problem(503, "not-ready", f"{error}; try again, or poll the job", headers=again) from None


def canceller(found: Services, user: UserUpdated, job_id: UUID) -> Callable[[], Awaitable[None]]:
    """What is done where the caller wants a job only while they listen."""

    async def cancel() -> None:
        if found.channels.listeners(job_id) <= 1:
            await found.submissions.cancel_unless_needed(user, job_id)

    return cancel


class EventStream(Response):
    """Writes a listener's events for as long as they take them."""

    media_type = "text/event-stream"
    charset = "utf-8"

    def __init__(
        self, listening: Listening, job_id: UUID, *, headers: Mapping[str, str] | None = None,
        on_left: Callable[[], Awaitable[None]] | None = None, stall_s: float = STALL_S,
    ) -> None:  # fmt: skip
        """`on_left`: awaited where they leave before the end; being too slow is not leaving."""
        super().__init__(headers={**HEADERS, "location": f"/jobs/{job_id}", **(headers or {})})
        del self.headers["content-length"]
        self._listening, self._on_left, self._stall_s = listening, on_left, stall_s
        self._first = b"retry: 1000\nevent: progress\ndata: %b\n\n" % orjson.dumps({"job_id": str(job_id)})

    async def told(self) -> AsyncGenerator[bytes, None]:
        """What is written; the answer begins with the first of it."""
        yield self._first
        async with contextlib.aclosing(self._listening.listener.events()) as events:
            async for chunk in events:
                yield chunk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        listener = self._listening.listener
        leaving = asyncio.create_task(_left(receive, listener))
        try:
            try:
                async with contextlib.aclosing(self.told()) as chunks:
                    with until_revoked(scope, listener.revoke):
                        await self._tell(send, chunks)
            except TimeoutError:
                DROPPED.labels("stalled").inc()
                abort(scope)
                return
            if listener.gone and not listener.finished and self._on_left is not None:
                await self._on_left()
        finally:
            leaving.cancel()
            self._listening.close()

    async def _tell(self, send: Send, chunks: AsyncGenerator[bytes, None]) -> None:
        has_begun = False
        async for chunk in chunks:
            if not has_begun:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                has_begun = True
            await self._send(send, chunk)
        if has_begun:  # else they have left before
            await self._send(send, b"", more=False)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        async with asyncio.timeout(self._stall_s):
            await send({"type": "http.response.body", "body": body, "more_body": more})


async def _left(receive: Receive, listener: Listener) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    listener.leave()
