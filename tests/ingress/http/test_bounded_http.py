"""What is no body has a bound, in whatever way it comes; what browsers and libraries send passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import uvicorn

from ingress.http.bounded_http import MAX_HEAD_BYTES, BoundedHttp, bounded_http
from tests.waiting import until

MUCH = 20_000_000


async def _app(scope, receive, send) -> None:
    assert scope["type"] == "http"
    size = 0
    if scope["path"] == "/early":  # it answers before it has heard all
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
    if scope["path"] == "/slow":
        await asyncio.sleep(0.6)
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await send({"type": "http.response.body", "body": b"%8d" % size})


@pytest.fixture
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    http = getattr(request, "param", BoundedHttp)
    server = uvicorn.Server(uvicorn.Config(_app, port=0, http=http, lifespan="off", log_config=None))
    serving = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def exchange(port: int, *parts: bytes, rest: bytes = b"") -> tuple[bytes, int]:
    """Send the parts, then `rest` again and again until somebody has enough; the reply, and how much was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0
    with suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
        while rest and sent < MUCH and not reader.at_eof():
            writer.write(rest)
            sent += len(rest)
            await writer.drain()
            await asyncio.sleep(0)
    reply = b""
    with suppress(ConnectionError):
        reply = await asyncio.wait_for(reader.read(200 if rest else 100_000), 10)
    writer.close()
    return reply, sent


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"


@pytest.mark.parametrize(
    ("begin", "rest"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\nlong: ", b"v" * 65_536),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"many: values\r\n" * 4000),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"n" * 65_536),
        (b"GET /", b"u" * 65_536),
        (CHUNKED + b"0\r\ntrailer: ", b"v" * 65_536),
        (CHUNKED + b"0\r\n", b"many: values\r\n" * 4000),
        (CHUNKED + b"1;extension=", b"e" * 65_536),
        (b"", b"\r\n" * 32_768),
    ],
    ids=["value", "headers", "name", "url", "trailer", "trailers", "extension", "nothing"],
)
async def test_what_has_no_end_is_cut(port: int, begin: bytes, rest: bytes) -> None:
    reply, sent = await exchange(port, begin, rest=rest)
    assert sent < MUCH / 2  # the rest is what the sockets' buffers took
    assert reply == b"" or reply.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 200 "))


async def test_the_refusal_is_a_problem_that_says_what_to_do(port: int) -> None:
    reply, _ = await exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"v" * MAX_HEAD_BYTES + b"\r\n\r\n")
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert b"content-type: application/problem+json" in head
    assert b'"code":"headers-too-large"' in body


async def test_what_is_no_http_is_still_a_400(port: int) -> None:
    reply, _ = await exchange(port, b"NONSENSE\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400 ")


async def test_large_bodies_and_long_lived_connections_pass(port: int) -> None:
    headers = b"cookie: " + b"c" * 15_000
    body = b"x" * 900_000
    reply, _ = await exchange(
        port,
        b"POST / HTTP/1.1\r\nhost: x\r\n%b\r\ncontent-length: %d\r\n\r\n" % (headers, len(body)),
        body[:7],
        body[7:],
    )
    assert reply.endswith(b"  900000")
    chunks = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
    reply, _ = await exchange(port, chunks)
    assert reply.endswith(b"   50000")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(20):  # of one connection, together far over the bound of one request
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n" % headers)
        assert (await asyncio.wait_for(reader.readuntil(b"       0"), 10)).startswith(b"HTTP/1.1 200 ")
    writer.close()


HASTY = bounded_http(head_timeout_s=0.2, body_timeout_s=0.3, max_head_bytes=2000)
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"


async def to_its_end(reader: asyncio.StreamReader) -> bytes:
    """All that came, also where the other side has gone while something was on its way to it."""
    heard = b""
    with suppress(ConnectionError):
        while part := await reader.read(65_536):
            heard += part
    return heard


async def trickled(port: int, begin: bytes, drop: bytes) -> tuple[bytes, float]:
    """Send the beginning, then a drop every 50 ms until the other side has enough; the reply, and how long it took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = asyncio.get_running_loop().time()
    reading = asyncio.create_task(to_its_end(reader))
    with suppress(ConnectionError):
        writer.write(begin)
        while not reading.done() and asyncio.get_running_loop().time() < began + 10:
            await asyncio.wait({reading}, timeout=0.05)
            if not reading.done() and drop:
                writer.write(drop)
                await writer.drain()
    reply = await asyncio.wait_for(reading, 10)
    writer.close()
    return reply, asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("port", [HASTY], indirect=True)
@pytest.mark.parametrize(
    ("begin", "drop", "answer"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n", b"HTTP/1.1 408 "), (b"GET /", b"x", b"HTTP/1.1 408 "),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"", b"HTTP/1.1 408 "), (b"", b"", b""), (b"\r\n", b"\r\n", b""),
        (POST, b"x", b"HTTP/1.1 408 "), (POST, b"", b"HTTP/1.1 408 "),
        (CHUNKED, b"1\r\nx\r\n", b"HTTP/1.1 408 "), (CHUNKED + b"0\r\n", b"a: b\r\n", b"HTTP/1.1 408 "),
    ],
    ids=["headers", "url", "silence", "nothing", "blank lines", "body", "no body", "chunks", "trailers"],
)  # fmt: skip
async def test_what_trickles_is_left_after_its_time(port: int, begin: bytes, drop: bytes, answer: bytes) -> None:
    reply, took_s = await trickled(port, begin, drop)
    assert reply.startswith(answer) or (drop and not reply)  # a drop on its way may take the answer with it
    assert not reply or b'"code":"too-slow"' in reply
    assert 0.15 < took_s < 5


@pytest.mark.parametrize("port", [bounded_http(body_timeout_s=0.3, min_body_bytes_per_s=10_000)], indirect=True)
@pytest.mark.parametrize(("piece", "passes"), [(b"x" * 2_000, True), (b"x" * 100, False)])
async def test_a_body_may_take_long_if_it_comes_at_a_pace(port: int, piece: bytes, passes: bool) -> None:
    size = 20 * len(piece)  # every 50 ms
    begin = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % size
    reply, took_s = await trickled(port, begin, piece)
    if passes:
        assert reply.endswith(b"%8d" % size)
        assert took_s > 0.6  # twice its time
    else:
        assert not reply or reply.startswith(b"HTTP/1.1 408 ")
        assert took_s < 0.9


@pytest.mark.parametrize("port", [HASTY], indirect=True)
async def test_half_an_answer_gets_no_other_one_behind_it(port: int) -> None:
    reply, took_s = await trickled(port, POST.replace(b"POST / ", b"POST /early "), b"")
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.endswith(b"\r\n\r\no")
    assert took_s < 5


@pytest.mark.parametrize("port", [HASTY], indirect=True)
async def test_who_waits_for_an_answer_is_not_slow_whatever_stands_behind_the_request(port: int) -> None:
    request = b"POST /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx"
    for stray in (b"", b"\r\n"):  # some old clients send one line's end too many
        reply, took_s = await trickled(port, request, stray)
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert took_s > 0.5


@pytest.mark.parametrize("port", [HASTY], indirect=True)
async def test_what_trickles_behind_an_answer_is_left_after_its_time_too(port: int) -> None:
    reply, took_s = await trickled(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n")
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert took_s < 5  # uvicorn's own time for an idle connection is put off by each


@pytest.mark.parametrize("port", [HASTY], indirect=True)
async def test_the_time_is_each_requests_own(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(4):  # of one connection, together longer than the time of one
        for part in (b"POST / HTTP/1.1\r\nhost: x\r\n", b"content-length: 1\r\n\r\n", b"x"):
            writer.write(part)
            await asyncio.sleep(0.03)
        assert (await asyncio.wait_for(reader.readuntil(b"       1"), 10)).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("port", [HASTY], indirect=True)
async def test_the_bound_of_a_head_is_the_one_that_was_set(port: int) -> None:
    reply, _ = await exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\nlong: " + b"v" * 2000 + b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert b"over 2000 bytes" in reply


@pytest.mark.parametrize("port", [HASTY], indirect=True)
async def test_many_who_trickle_hold_up_nobody(port: int) -> None:
    slow = [asyncio.create_task(trickled(port, b"GET / HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n")) for _ in range(200)]
    await asyncio.sleep(0.05)
    for _ in range(20):
        reply, _ = await asyncio.wait_for(exchange(port, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), 2)
        assert reply.startswith(b"HTTP/1.1 200 ")
    for reply, took_s in await asyncio.gather(*slow):
        assert not reply or reply.startswith(b"HTTP/1.1 408 ")  # what was on its way may take the answer with it
        assert took_s < 9
