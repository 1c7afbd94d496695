"""A worker to be killed: one topic, one async stage. Run as a process by test_kill.py.

Environment: BROKER, GROUP, TOPIC; CONSUMER=ours|stock; LOG, a file to which starts and ends are appended.
An event is {"i": n, "s": seconds}; with "x" its handler raises.
"""

import asyncio
import json
import logging
import os
import signal
import tempfile

import faust
from faust.contrib.asgi import faust_app_running

from schemas.envelope import Record
from streams.app import StreamApp
from transport.clients import KafkaAccess

BROKER, GROUP, TOPIC = os.environ["BROKER"], os.environ["GROUP"], os.environ["TOPIC"]
LOG = os.open(os.environ["LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(*words: object) -> None:
    os.write(LOG, (" ".join(map(str, words)) + "\n").encode())


async def work(value: bytes, offset: int) -> None:
    event = json.loads(value)
    note("start", offset)
    await asyncio.sleep(event["s"])
    if event.get("x"):
        raise ValueError("boom")


def ours() -> faust.App:
    # Of one name, so that the heir of a killed one need not wait for the end of its session.
    app = StreamApp("test", KafkaAccess(BROKER), group=GROUP, drain_timeout_s=5, instance_id="ours")
    topic = app.lane(TOPIC, "work", limit=64)

    async def handle(record, ledger):
        await work(record.value, record.offset)
        await app.publish([Record(TOPIC + "-out", record.key or b"", record.value)])
        note("done", record.offset)

    @app.agent(topic)
    async def stage(stream):
        async for batch in stream:
            batch.lane.run_at_once(batch, handle)

    return app


def stock() -> faust.App:
    app = faust.App(
        GROUP, broker=f"kafka://{BROKER}", key_serializer="raw", value_serializer="raw", web_enabled=False,
        datadir=tempfile.gettempdir(),
        topic_disable_leader=True, consumer_auto_offset_reset="earliest", broker_commit_interval=0.25,
        broker_session_timeout=6.0, broker_heartbeat_interval=1.0, worker_redirect_stdouts=False,
    )  # fmt: skip
    topic, out = app.topic(TOPIC), app.topic(TOPIC + "-out")

    @app.agent(topic, concurrency=64)
    async def stage(stream):
        async for event in stream.events():
            await work(event.value, event.message.offset)
            await out.send(key=event.key, value=event.value)
            note("done", event.message.offset)

    return app


async def main() -> None:
    app = ours() if os.environ.get("CONSUMER", "ours") == "ours" else stock()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with faust_app_running(app):
        await stop.wait()


logging.basicConfig(level=logging.WARNING)
asyncio.run(main())
