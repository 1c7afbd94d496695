"""A webhook's two ends: a sender whose clock is moved by hand, and somebody's endpoint."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from aiohttp import web

from schemas.envelope import Attributes, Envelope
from sinks.pool import Pool
from sinks.postgres import OutcomeSink
from sinks.webhook_signing import WebhookSecrets
from sinks.webhooks import WebhookSender
from tests.conftest import SECRET
from tests.factories import job, job_finished


class Receiver:
    """Somebody's webhook endpoint. `answers`: what to do with each call, the last one for ever."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[web.Response | str] = [web.Response(status=200)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        answer = self.answers[min(len(self.calls), len(self.answers)) - 1]
        if answer == "hang":
            await asyncio.sleep(3600)
        if answer == "close":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        assert isinstance(answer, web.Response)
        return web.Response(status=answer.status, headers=answer.headers)


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield receiver, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


class Bench:
    """A sender with its database, and a clock that is moved by hand."""

    def __init__(self, pool: Pool, timeout_s: float = 2.0) -> None:
        self.pool, self.clock = pool, Clock()
        self.secrets = WebhookSecrets(pool, masters=[SECRET])
        self.sender = self.another(timeout_s)

    def another(self, timeout_s: float = 2.0) -> WebhookSender:
        return WebhookSender(
            self.pool, self.secrets, allow_private=True, timeout_s=timeout_s, now=self.clock, random=Random(1)
        )  # fmt: skip

    async def due(self, url: str, count: int = 1):
        finished = [job_finished(job=job(callback_url=url)) for _ in range(count)]
        await OutcomeSink(self.pool).write([Envelope(Attributes("e", "/s", "t"), each) for each in finished])
        self.clock.now = datetime.now(UTC) + timedelta(seconds=1)
        return finished[0].job.job_id

    async def send(self) -> int:
        begun = await self.sender.send_due()
        await self.sender.settle()
        return begun


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    pool = Pool(database, size=6)
    bench = Bench(pool)
    yield bench
    await bench.sender.close()
    await pool.close()
