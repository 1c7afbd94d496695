"""The same pipeline on stock Faust's own consumer: what the suite must find losses in.

Agents, stages, topics and sinks are the product's. Only what is below the agents is Faust's: it acknowledges a
message when the loop body is left, and its offset tracker decides what is committed. An agent's batch is one event.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import faust
from aiokafka.structs import ConsumerRecord
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streams.app import StreamApp
from streams.ledger import Ledger

CONCURRENCY = {"gate": 1, "completion": 64, "sink": 1}


class StockConsumer(driver.Consumer):  # type: ignore[misc]  # untyped
    """Faust's, untouched; with the facts that the rest of a worker asks for."""

    @property
    def delivered_at(self) -> float:
        """Never stalled."""
        return monotonic()

    async def backlog(self) -> dict[TP, tuple[int, int]]:
        """Nothing to say: nobody is refused, and nobody is ended, for what Faust has not done yet."""
        return {}

    def finished_up_to(self, tp: TP) -> int:
        """What Faust would commit."""
        return int(self._committed_offset.get(tp) or 0)


@dataclass
class OneEvent:
    """A `Batch` of one record, and its own lane: what is to be done with it is kept until the stream goes on."""

    app: StreamApp
    records: list[ConsumerRecord]
    envelopes: list[Any] = field(default_factory=list)
    work: Callable[[], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self.lane = self
        self.ledger = Ledger(self.records[0])
        self.partition = self.records[0].partition

    async def settled(self) -> bool:
        """All before it is finished: there is one at a time."""
        return True

    def run_in_order(self, batch: Any, handle: Any, prepare: Any = None) -> None:
        """As `Lane.run_in_order`."""

        async def work() -> None:
            if prepare is not None:
                await prepare(batch)
            await self.app.publish(handle(batch, 0))

        self.work = work

    def run_at_once(self, batch: Any, handle: Any, **_: Any) -> None:
        """As `Lane.run_at_once`."""
        self.work = lambda: handle(batch.records[0], batch.ledger)

    def run_as_batch(self, batch: Any, handle: Any) -> None:
        """As `Lane.run_as_batch`."""
        self.work = lambda: handle(batch.records)


class StockApp(StreamApp):
    """`StreamApp` with Faust's own consumer."""

    def agent(self, *args: Any, **options: Any) -> Any:
        """Faust's, with single events handed on as batches of one."""
        decorate = super().agent(*args, concurrency=CONCURRENCY[self.role], **options)

        def declare(function: Any) -> Any:
            async def on_stock_stream(stream: Any) -> None:
                await function(self._one_by_one(stream))

            return decorate(on_stock_stream)

        return declare

    async def _one_by_one(self, stream: Any) -> AsyncIterator[OneEvent]:
        async for event in stream.events():  # Faust acknowledges when it is asked for the next one
            batch = OneEvent(self, [_record(event.message)])
            yield batch
            if batch.work is not None:
                await batch.work()

    def _new_transport(self) -> Any:
        transport = faust.App._new_transport(self)
        transport.Consumer = StockConsumer
        return transport


def _record(message: Any) -> ConsumerRecord:
    return ConsumerRecord(
        message.topic, message.partition, message.offset, round(message.timestamp * 1000), message.timestamp_type,
        message.key, message.value, None, -1, -1, tuple(message.headers or ()),
    )  # fmt: skip


def install() -> None:
    """Have every worker of this process run on stock Faust."""
    from streams import composition

    if vars(composition).get("StreamApp") is not StreamApp:
        raise RuntimeError("a worker's apps are not made where they were: nothing would be stock Faust's")
    composition.StreamApp = StockApp  # type: ignore[attr-defined]  # where the worker looks it up
