"""Who opens connections and says nothing, and who logs in fifty times at once, slow down nobody else."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter, process_time

import psutil
import pytest

from ingress.access.passwords import AT_ONCE, Passwords
from processors.errors import RetryableError
from tests.ingress.http.test_bounded_http import port as port

SLOW, ASKED = 200, 150
WAITING = 4  # fewer than there may be: each takes its time
WHOLE = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
BEGINNINGS = (  # of which each letter more is a letter of it
    b"GET /",
    b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ",
    b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nabc",
    b"",  # it never says anything
)
MB = 1_000_000


@asynccontextmanager
async def slow_connections(port: int, count: int) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """So many, each with the beginning of a request, to which a letter is added again and again."""
    found = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(count)]
    for number, writer in enumerate(found):
        writer.write(BEGINNINGS[number % len(BEGINNINGS)])
    trickling = asyncio.create_task(_trickle(found))
    try:
        yield found
    finally:
        trickling.cancel()
        for writer in found:
            writer.transport.abort()


async def _trickle(writers: list[asyncio.StreamWriter]) -> None:
    while True:
        for number, writer in enumerate(writers):
            if BEGINNINGS[number % len(BEGINNINGS)]:
                writer.write(b"a")
                await asyncio.sleep(0.001)


async def asked(port: int, count: int) -> float:
    """CPU seconds of this process for so many ordinary requests, each on a connection of its own; all are answered."""
    began = process_time()
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE)
        reply = await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)
        assert reply == b"HTTP/1.1 200 OK\r\n"
        writer.close()
    return process_time() - began


async def least(of: Callable[[], Awaitable[float]]) -> float:
    """Of three tries: what else runs on the machine counts once."""
    return min([await of() for _ in range(3)])


async def test_two_hundred_slow_connections_slow_down_no_ordinary_request(port: int) -> None:
    await asked(port, 20)
    alone = await least(lambda: asked(port, ASKED))
    async with slow_connections(port, SLOW) as slow:
        beside = await least(lambda: asked(port, ASKED))
        assert not any(writer.transport.is_closing() for writer in slow), "they are what this is about"
    # What the 200 send and what it takes to read that is in it.
    assert beside < 2 * alone + 0.2, (alone, beside)


@pytest.mark.usefixtures("dear_hashes")
async def test_fifty_logins_at_once_take_the_memory_of_two_and_leave_the_loop_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ingress.access.passwords.MAX_WAITING", WAITING)
    passwords = Passwords()
    stored = await passwords.hash("right")
    process = psutil.Process()
    before, most, done, turns = process.memory_info().rss, 0, threading.Event(), 0

    def look() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, process.memory_info().rss)

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            await asyncio.sleep(0.001)
            turns += 1

    looking = threading.Thread(target=look)
    looking.start()
    turning = asyncio.create_task(others())
    try:
        began = perf_counter()
        found = await asyncio.gather(*(passwords.verify("wrong", stored) for _ in range(50)), return_exceptions=True)
        seconds = perf_counter() - began
    finally:
        done.set()
        looking.join()
        await turning
    assert (most - before) / MB < 200, "two hashes of 64 MiB"
    assert sum(isinstance(each, RetryableError) for each in found) == 50 - AT_ONCE - WAITING
    assert turns > 20 * seconds, "the event loop was held up"
