"""Receivers that are down, or are not who they say, while others get theirs."""

import asyncio
import ssl
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web

from embedded.ports import free_port
from sinks.webhook_store import WebhookStore
from sinks.webhooks import JITTER, SCHEDULE_S
from tests.sinks.conftest import Bench, Receiver
from tests.sinks.test_egress import certificate_of
from tests.waiting import until

pytestmark = pytest.mark.integration


async def listening(
    receiver: Receiver, port: int, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> web.AppRunner:
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    return runner


async def test_a_receiver_that_is_down_for_an_hour_gets_its_webhook_by_the_schedule(bench: Bench) -> None:
    port, there = free_port(), Receiver()
    job_id = await bench.due(f"http://127.0.0.1:{port}/hook")
    began, runner = bench.clock(), None
    while not there.calls:
        if runner is None and bench.clock() - began > timedelta(hours=1):
            runner = await listening(there, port)
        await bench.send()
        bench.clock.now += timedelta(seconds=2)
        assert bench.clock() - began < timedelta(hours=4), "it never came"
    assert runner is not None
    await runner.cleanup()
    attempts = await WebhookStore(bench.pool).attempts(job_id)
    assert [attempt["attempt"] for attempt in attempts] == [1, 2, 3, 4, 5]
    assert {attempt["error"] for attempt in attempts[:4]} == {"not delivered: ConnectError"}
    assert attempts[4].keys() == {"attempt", "at", "status_code"}
    for wait, (before, after) in zip(SCHEDULE_S[1:], pairwise(attempts), strict=False):
        waited = (after["at"] - before["at"]).total_seconds()
        assert wait * (1 - JITTER) <= waited <= wait * (1 + JITTER) + 3
        assert timedelta(0) <= after["at"] - before["next_at"] <= timedelta(seconds=3)
    ((headers, body),) = there.calls
    assert headers["webhook-id"].startswith("msg_")
    assert str(job_id) in body.decode()


async def test_a_wrong_certificate_is_said_and_tried_again(bench: Bench, tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_bytes(certificate_of("somebody.example"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    port, there = free_port(), Receiver()
    runner = await listening(there, port, tls=tls)
    job_id = await bench.due(f"https://127.0.0.1:{port}/hook")
    await bench.send()
    await runner.cleanup()
    (attempt,) = await WebhookStore(bench.pool).attempts(job_id)
    assert attempt["error"] == "not delivered: its certificate is not valid"
    assert attempt["next_at"] > bench.clock()
    assert there.calls == []


async def test_a_redirect_is_not_followed_and_tried_again(bench: Bench) -> None:
    elsewhere, there = Receiver(), Receiver()
    other = await listening(elsewhere, port := free_port())
    there.answers = [web.Response(status=302, headers={"location": f"http://127.0.0.1:{port}/"}), web.Response()]
    runner = await listening(there, own := free_port())
    job_id = await bench.due(f"http://127.0.0.1:{own}/hook")
    await bench.send()
    bench.clock.now += timedelta(seconds=6)
    await bench.send()
    attempts = await WebhookStore(bench.pool).attempts(job_id)
    assert [attempt["status_code"] for attempt in attempts] == [302, 200]
    assert "redirects are not followed" in attempts[0]["error"]
    assert elsewhere.calls == []
    await other.cleanup()
    await runner.cleanup()


async def test_slow_receivers_delay_no_quick_one(bench: Bench) -> None:
    """Eleven hosts of which each hangs until the timeout, with more webhooks than may be tried at once."""
    slow, quick = Receiver(), Receiver()
    slow.answers = ["hang"]
    slow_runner, quick_runner = (
        await listening(slow, at := free_port(), host="0.0.0.0"),
        await listening(quick, port := free_port()),
    )
    for n in range(10):  # each name is a host of its own
        await bench.due(f"http://127.0.1.{n + 1}:{at}/slow", count=1)
        await bench.due(f"http://localhost:{at}/slow", count=30)
    await bench.due(f"http://127.0.0.1:{port}/hook", count=40)
    running = asyncio.create_task(bench.sender.run())
    began = time.monotonic()
    await until(lambda: len(quick.calls) == 40, within_s=10)
    assert time.monotonic() - began < 2.0  # the timeout of the slow ones
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await slow_runner.cleanup()
    await quick_runner.cleanup()
