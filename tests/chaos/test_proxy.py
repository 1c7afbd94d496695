"""The bad network does what a mode says, and nothing in between."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest

from chaos.proxy import HOST, Proxy
from embedded.ports import free_port
from tests.waiting import until


class Echo:
    """A server that sends back what it gets, and knows what it got."""

    def __init__(self) -> None:
        self.heard = b""
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        with suppress(OSError):
            while chunk := await reader.read(1000):
                self.heard += chunk
                writer.write(chunk)
                await writer.drain()
        writer.close()
        self.open -= 1


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[Proxy, Echo, int]]:
    echo, listen = Echo(), free_port()
    server = await asyncio.start_server(echo.serve, HOST, 0)
    proxy = Proxy(listen, server.sockets[0].getsockname()[1], Random(1))
    await proxy.start()
    try:
        yield proxy, echo, listen
    finally:
        await proxy.stop()
        await until(lambda: not echo.open)
        server.close()
        await server.wait_closed()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes) -> bytes:
    writer.write(text)
    return await reader.readexactly(len(text))


async def test_it_passes_bytes_both_ways() -> None:
    async with scene() as (proxy, _, port):
        reader, writer = await asyncio.open_connection(HOST, port)
        assert await asked(reader, writer, b"x" * 300_000) == b"x" * 300_000
        assert proxy.acts == 0
        writer.close()


@pytest.mark.parametrize("mode", ["reset", "refuse"])
async def test_a_connection_that_is_open_is_reset(mode: str) -> None:
    async with scene() as (proxy, _, port):
        reader, writer = await asyncio.open_connection(HOST, port)
        await asked(reader, writer, b"before")
        proxy.switch(mode)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        proxy.switch("pass")
        reader, writer = await asyncio.open_connection(HOST, port)
        assert await asked(reader, writer, b"after") == b"after"
        writer.close()


async def test_mute_delivers_requests_and_holds_replies_back() -> None:
    async with scene() as (proxy, echo, port):
        reader, writer = await asyncio.open_connection(HOST, port)
        await asked(reader, writer, b"before")
        proxy.switch("mute")
        waiting = asyncio.create_task(asked(reader, writer, b"during"))
        await until(lambda: echo.heard.endswith(b"during"))
        assert not waiting.done()
        proxy.switch("pass")
        assert await asyncio.wait_for(waiting, 5) == b"during"
        writer.close()


async def test_cut_loses_the_reply_of_a_request_that_was_delivered() -> None:
    async with scene() as (proxy, echo, port):
        proxy.switch("cut")
        for number in range(1000):
            reader, writer = await asyncio.open_connection(HOST, port)
            request = b"%06d" % number
            try:
                await asyncio.wait_for(asked(reader, writer, request), 5)
            except (ConnectionResetError, asyncio.IncompleteReadError):
                break
            finally:
                writer.close()
        else:
            pytest.fail("no reply was lost in 1,000")
        await until(lambda: echo.heard.endswith(request))
        assert proxy.acts == 1


async def test_slow_takes_its_time() -> None:
    async with scene() as (proxy, _, port):
        proxy.switch("slow")
        reader, writer = await asyncio.open_connection(HOST, port)
        began = time.monotonic()
        await asked(reader, writer, b"x")
        assert 0.2 <= time.monotonic() - began < 5
        writer.close()
