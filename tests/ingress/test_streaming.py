"""A connection that listens: what is written to it, and what happens when it takes nothing, or goes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import uvicorn

from ingress.following.listener import Listener
from ingress.http.bounded_http import ABORT, BoundedHttp
from ingress.streaming import EventStream, Listening
from tests.waiting import until

JOB = uuid4()


class FakeListener(Listener):
    """Has `chunks`; then waits, or ends where `ends`."""

    def __init__(self, *chunks: bytes, ends: bool = False) -> None:
        self.chunks, self.ends = list(chunks), ends
        self.wake = asyncio.Event()
        self.gone = self.finished = False
        self.closed = 0

    async def events(self, *, comment_every_s: float = 15) -> AsyncIterator[bytes]:  # type: ignore[override]
        for chunk in self.chunks:
            if self.gone:
                return
            yield chunk
        if self.ends:
            self.finished = True
        else:
            await self.wake.wait()

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        yield self
        self.closed += 1


class Connection:
    """As an ASGI server offers one. `stuck`: it takes nothing more after so many messages."""

    def __init__(self, *, stuck_after: int | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self.left, self.aborted = asyncio.Event(), False
        self._stuck_after = stuck_after
        self.scope = {"type": "http", "extensions": {ABORT: {"call": self._abort}}}

    def _abort(self) -> None:
        self.aborted = True

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self._stuck_after is not None and len(self.sent) >= self._stuck_after:
            await asyncio.Event().wait()
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


def stream(listener: FakeListener, **options: Any) -> EventStream:
    return EventStream(Listening(listener.listening()), JOB, **options)


async def test_events_are_written_and_the_response_ends() -> None:
    listener, connection = FakeListener(b"a\n\n", b"b\n\n", ends=True), Connection()
    await stream(listener, headers={"RateLimit": "r"})(connection.scope, connection.receive, connection.send)
    head = dict(connection.sent[0]["headers"])
    assert head[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert head[b"cache-control"] == b"no-store"
    assert head[b"location"] == f"/jobs/{JOB}".encode()
    assert head[b"ratelimit"] == b"r"
    assert b"content-length" not in head
    assert connection.body.startswith(b"retry: 1000\nevent: progress\n")
    assert connection.body.endswith(b"a\n\nb\n\n")
    assert connection.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert listener.closed == 1


@pytest.mark.parametrize(("ends", "cancelled"), [(False, 1), (True, 0)])
async def test_leaving_before_the_end_is_told_where_that_is_wanted(ends: bool, cancelled: int) -> None:
    told: list[int] = []

    async def on_left() -> None:
        told.append(1)

    listener, connection = FakeListener(b"a\n\n", ends=ends), Connection()
    running = asyncio.create_task(
        stream(listener, on_left=on_left)(connection.scope, connection.receive, connection.send)
    )
    await asyncio.sleep(0.01)
    connection.left.set()
    await asyncio.wait_for(running, 5)
    assert len(told) == cancelled
    assert listener.closed == 1


@pytest.mark.parametrize(("finished", "gone"), [(False, False), (True, True)])
async def test_one_who_is_sent_away_or_goes_after_the_end_has_not_left_early(finished: bool, gone: bool) -> None:
    async def on_left() -> None:
        raise AssertionError("they have not left")

    class Ended(FakeListener):
        async def events(self, *, comment_every_s: float = 15) -> AsyncIterator[bytes]:  # type: ignore[override]
            yield b": you are too far behind\n\n"
            self.finished, self.gone = finished, gone

    connection = Connection()
    await stream(Ended(), on_left=on_left)(connection.scope, connection.receive, connection.send)
    assert not connection.sent[-1]["more_body"]


async def test_a_connection_that_takes_nothing_is_cut_and_cancels_nothing() -> None:
    async def on_left() -> None:
        raise AssertionError("they have not left")

    listener, connection = FakeListener(b"a\n\n"), Connection(stuck_after=2)
    response = stream(listener, on_left=on_left, stall_s=0.02)
    await asyncio.wait_for(response(connection.scope, connection.receive, connection.send), 5)
    assert connection.aborted
    assert listener.closed == 1


async def test_a_real_connection_whose_other_side_reads_nothing_is_cut() -> None:
    listener = FakeListener(*[b"x" * 65_536] * 1000)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await stream(listener, stall_s=0.2)(scope, receive, send)

    config = uvicorn.Config(app, http=BoundedHttp, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    accepting = socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve(sockets=[accepting]))
    with socket.create_connection(accepting.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: listener.closed == 1, within_s=10)
        await until(lambda: not server.server_state.connections, within_s=5)  # what was unsent is not kept
    server.should_exit = True
    await serving
