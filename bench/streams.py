"""Answers piece by piece: how much later a first piece comes than from the provider itself, and what listeners cost."""

import argparse
import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from random import Random
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from bench.measure import Row, percentiles, resident_mb
from bench.place import Place, place
from tests.deployment import PASSWORD, Deployment, Process, client_of, plain_client
from tests.pipeline.test_streams import asking, words
from tests.sse import Sse


@asynccontextmanager
async def session(ingress: Process) -> AsyncIterator[aiohttp.ClientSession]:
    """A logged-in client that is cheap enough not to be what is measured."""
    async with plain_client(base_url=ingress.http) as client:
        reply = await client.post("/auth/login", json={"user_id": "root", "password": PASSWORD})
    headers = {"authorization": f"Bearer {reply.json()['access_token']}"}
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(ingress.http, connector=connector, headers=headers, timeout=timeout) as found:
        yield found


async def first_piece_s(http: aiohttp.ClientSession, url: str, body: dict[str, Any], mark: bytes) -> float:
    """From asking to the first piece of text; the stream is then read to its end."""
    began, first = time.perf_counter(), None
    async with http.post(url, json=body) as reply:
        reply.raise_for_status()
        rest = b""
        async for part in reply.content.iter_any():
            rest = (rest + part)[-4096:] if first is None else b""
            if first is None and mark in rest:
                first = time.perf_counter() - began
    if first is None:
        raise RuntimeError("no text came")
    return first


async def times_to_first_piece(ingress: Process, api_url: str, *, streams: int, tokens: int, pace: float) -> list[Row]:
    """So many streams at once, directly and through the product, begun over a second.

    Rounds follow each other, and the first one is not counted: a broker and processes that have just been started, or
    have done nothing for some seconds, take two or three times as long.
    """
    async with session(ingress) as http:

        async def one(n: int, *, direct: bool) -> float:
            await asyncio.sleep(n / streams)
            prompt = asking(tokens, pace=pace)["prompt"]
            if direct:
                body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": True}
                return await first_piece_s(http, f"{api_url}/chat/completions", body, b'"content": "1w0')
            return await first_piece_s(http, "/chat/", {"prompt": prompt, "stream": True}, b"event: delta")

        async def each(*, direct: bool) -> list[float]:
            return await asyncio.gather(*(one(n, direct=direct) for n in range(streams)))

        async def rounds(*, direct: bool) -> tuple[float, float]:
            found = [await each(direct=direct) for _ in range(1 + ROUNDS)]
            return percentiles([seconds for one_round in found[1:] for seconds in one_round])

        direct, through = await rounds(direct=True), await rounds(direct=False)
    told = f"p50 +{through[0] - direct[0]:.1f} ms, p95 +{through[1] - direct[1]:.1f} ms"
    return [(f"first piece over the direct call, {streams} streams of {1 / pace:.0f} tokens/s", told, "30 / 80 ms")]


async def late_join(deployment: Deployment, ingress: Process, *, records: int) -> list[Row]:
    """The first byte of a finished answer of 2,000 tokens, with so many records in its topic."""
    topic = deployment.prefix + "completion-streamed"
    async with client_of(ingress) as client:
        heard = await Sse().listen(client, ask=asking(2000, pace=0.001))
        async with AIOKafkaProducer(
            bootstrap_servers=deployment.kafka.bootstrap, linger_ms=20, max_batch_size=512 * 1024
        ) as producer:
            value = b'{"job_id":"%b","user_id":"u","execution":"%b","sequence":7,"text":"some words of an answer"}'
            keys = [str(uuid.uuid4()).encode() for _ in range(records // 50 + 1)]
            for n in range(records):
                await producer.send(topic, value % (keys[n // 50], keys[n // 50]), key=keys[n // 50])
            await producer.flush()
        seconds = []
        for _ in range(20):
            again, began = Sse(), time.perf_counter()
            await again.listen(client, f"/jobs/{heard.job_id}/stream", until=lambda again=again: bool(again.text))  # type: ignore[misc]
            seconds.append(time.perf_counter() - began)
            await again.listen(client)
            if again.text != words(2000):
                raise RuntimeError("the text is another one")
    p50, p95 = percentiles(seconds)
    return [(f"late join, {records} records in the topic", f"p50 {p50:.0f} ms, p95 {p95:.0f} ms", "300 ms")]


async def memory(ingress: Process, *, listeners: int) -> list[Row]:
    """What the ingress holds with so many listeners, each to a job of its own."""
    before = resident_mb(ingress)
    async with session(ingress) as http, AsyncExitStack() as stack:

        async def one() -> None:
            body = {"prompt": f"[held] {uuid.uuid4()}", "stream": True, "timeout": 120}
            reply = await stack.enter_async_context(http.post("/chat/", json=body))
            reply.raise_for_status()

        for _ in range(0, listeners, 50):
            await asyncio.gather(*(one() for _ in range(50)))
        held = resident_mb(ingress)
    return [(f"{listeners} listeners", f"{held:.0f} MB resident ({before:.0f} MB before)", "250 MB")]


async def cuts(ingresses: list[Process], *, streams: int, seed: int) -> list[Row]:
    """Streams that are cut at random and resumed at any replica; each must be whole in the end."""
    connections = 0
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(ingress)) for ingress in ingresses]
        at_once = asyncio.Semaphore(25)

        async def one(number: int) -> None:
            nonlocal connections
            dice = Random(seed + number)
            async with at_once:
                heard = await Sse().listen(clients[0], ask=asking(80), cut_after_bytes=dice.randrange(1, 1500))
                while heard.body is None:
                    await heard.listen(dice.choice(clients), cut_after_bytes=dice.randrange(1, 1500))
            if heard.text != words(80) or "restart" in heard.names:
                raise RuntimeError(f"stream {number} is not whole")
            connections += heard.connections

        await asyncio.gather(*(one(number) for number in range(streams)))
    return [(f"{streams} streams cut and resumed", f"all whole, over {connections} connections", "all whole")]


@dataclass(frozen=True)
class Sizes:
    """How much of each."""

    streams: int = 100
    cuts: int = 200
    records: int = 1_000_000
    listeners: int = 1000
    seed: int = 1


ROUNDS = 3
ALL = ("first", "cuts", "late", "memory")


async def measure(deployment: Deployment, api_url: str, wanted: Sequence[str], given: Sizes) -> list[Row]:
    """What was asked for, in the order of the table."""
    ingresses = [deployment.start("ingress") for _ in range(2 if "cuts" in wanted else 1)]
    deployment.worker("gate,sink")
    deployment.worker("completion")
    await deployment.ready()
    rows: list[Row] = []
    if "first" in wanted:
        rows += await times_to_first_piece(ingresses[0], api_url, streams=given.streams, tokens=100, pace=0.02)
    if "cuts" in wanted:
        rows += await cuts(ingresses, streams=given.cuts, seed=given.seed)
    if "late" in wanted:
        rows += await late_join(deployment, ingresses[0], records=given.records)
    if "memory" in wanted:
        rows += await memory(ingresses[0], listeners=given.listeners)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams")
    parser.add_argument("what", nargs="*", help="first, cuts, late, memory; all of them where none is named")
    for size in fields(Sizes):
        parser.add_argument(f"--{size.name}", type=int, default=size.default)
    given = parser.parse_args()
    sizes = Sizes(**{size.name: getattr(given, size.name) for size in fields(Sizes)})

    async def measured(there: Place) -> list[Row]:
        async with there.deployment(COMPLETION_CONCURRENCY="2000") as deployment:
            return await measure(deployment, there.api_url, given.what or ALL, sizes)

    with place() as there:
        rows = asyncio.run(measured(there))
    table = Table(title="Streams")
    for column in ("what", "measured", "aim"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
