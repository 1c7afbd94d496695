"""Answers without an end in sight, over a real connection: readers who are slow, who leave, and who never read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from ingress.http.bounded_http import BoundedHttp
from ingress.http.paced import PacedResponse
from processors.errors import RetryableError
from tests.waiting import until

CHUNK = b"x" * 65_536


class Source:
    """Makes chunks. `made`: how many; `ended`: how often the response was over."""

    def __init__(self, count: int | None, *, fails: bool = False) -> None:
        self.count, self.fails, self.made, self.ended, self.closed = count, fails, 0, 0, False
        self.stopping = False

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            while self.count is None or self.made < self.count:
                self.made += 1
                yield CHUNK
                await asyncio.sleep(0.001)  # what is read is held by the reader of a test
            if self.fails:
                raise RetryableError("postgres-unavailable", "Postgres does not answer")
        finally:
            self.closed = True

    def end(self) -> None:
        self.ended += 1


@asynccontextmanager
async def served(source: Source, *, stall_s: float = 30, longest_s: float = 30) -> AsyncIterator[tuple[str, int]]:
    async def app(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        response = PacedResponse(
            source.chunks(), media_type="application/jsonl", headers={"x-own": "1"}, stall_s=stall_s,
            longest_s=longest_s, is_stopping=lambda: source.stopping, at_the_end=source.end,
        )  # fmt: skip
        await response(scope, receive, send)

    config = uvicorn.Config(app, port=0, http=BoundedHttp, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[:2]
    server.should_exit = server.force_exit = True
    await serving


async def ask(address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*address, limit=1024)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    return reader, writer


async def whole(address: tuple[str, int]) -> bytes:
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.get(f"http://{address[0]}:{address[1]}/")
    assert reply.headers["x-own"] == "1"
    assert "content-length" not in reply.headers
    return reply.content


async def test_all_of_it_arrives_and_its_place_is_free_again() -> None:
    source = Source(50)
    async with served(source) as address:
        assert await whole(address) == CHUNK * 50
        await until(lambda: source.ended == 1)
    assert source.closed


async def test_who_does_not_read_is_not_read_for_and_is_dropped() -> None:
    source = Source(None)
    async with served(source, stall_s=0.5) as address:
        _, writer = await ask(address)
        await until(lambda: source.ended == 1, within_s=5)
        assert source.made * len(CHUNK) < 20_000_000  # what the two sockets hold
        assert source.closed
        # Nothing of it is left here: the other end's next word is answered with a reset.
        await until(lambda: _is_reset(writer), within_s=5)


async def _is_reset(writer: asyncio.StreamWriter) -> bool:
    writer.write(b"x")
    await asyncio.sleep(0.05)
    return writer.transport.is_closing()


async def test_who_leaves_is_not_read_for_any_more() -> None:
    source = Source(None)
    async with served(source) as address:
        reader, writer = await ask(address)
        await reader.readexactly(100_000)
        assert source.ended == 0
        writer.transport.abort()
        await until(lambda: source.ended == 1 and source.closed, within_s=5)


@pytest.mark.parametrize("why", ["failed", "stopping", "too long"])
async def test_what_is_cut_has_no_proper_end(why: str, caplog: pytest.LogCaptureFixture) -> None:
    source = Source(20 if why == "failed" else None, fails=why == "failed")
    async with served(source, longest_s=0.3 if why == "too long" else 3600) as address:
        asking = asyncio.create_task(whole(address))
        await until(lambda: source.made > 5)
        source.stopping = why == "stopping"
        with pytest.raises(httpx.HTTPError):
            await asyncio.wait_for(asking, 10)
        await until(lambda: source.ended == 1)
        assert "an answer was cut" in caplog.text
        assert "Traceback" not in caplog.text
