"""Publishes batches of chunks before their stage ends: so many at once are on their way to the brokers, and no more."""

import asyncio
from dataclasses import replace

from processors.loops import end
from schemas.envelope import Attributes
from schemas.events import ChunksPrepared
from streams.app import StreamApp
from streams.cause import CAUSE
from streams.encode import Encoder

STAGE = "partition_document"
OUTSTANDING = 8  # of up to some 600 KB each


class ChunkTopic:
    """`ChunkWriter` of one run of a stage: see `ChunkWriters`."""

    def __init__(self, app: StreamApp, encoder: Encoder) -> None:
        self._app, self._encoder = app, encoder
        self._under_way: set[asyncio.Task[None]] = set()

    async def write(self, event: ChunksPrepared) -> None:
        """See `ChunkWriter.write`.

        Raises:
            TooLargeError: It fits into no record.
        """
        while len(self._under_way) >= OUTSTANDING:
            done, _ = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
            self._look_at(done)
        cause = CAUSE.get()
        # Of the version, not of the event that the stage has in hand: a retry is another event.
        origin = Attributes(str(event.version_id), f"/assistant/{STAGE}", "document-received", trace=cause.trace)
        record = self._encoder.event(event, cause=origin, stage=STAGE, index=event.batch)
        told = [
            (name, cause.event_id.encode() if name == "ce_causationid" else value) for name, value in record.headers
        ]
        record = replace(record, headers=told)
        self._under_way.add(asyncio.create_task(self._app.publish([record]), name="chunks"))

    async def flush(self) -> None:
        """See `ChunkWriter.flush`."""
        if self._under_way:
            done, _ = await asyncio.wait(self._under_way)
            self._look_at(done)

    def _look_at(self, done: "set[asyncio.Task[None]]") -> None:
        self._under_way -= done
        for task in done:
            task.result()

    async def aclose(self) -> None:
        """The stage has ended, however it has: nothing is left under way."""
        await asyncio.gather(*map(end, list(self._under_way)), return_exceptions=True)
