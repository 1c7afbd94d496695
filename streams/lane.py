"""One stage's work in progress: how many records it has in hand, and the ways in which it handles them."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka.structs import ConsumerRecord

from schemas.envelope import Record
from streams.ledger import Ledger

if TYPE_CHECKING:
    from streams.app import StreamApp

RecordId = tuple[str, int, int, int]  # topic, partition, offset, append time: the same over a rebalance
MAX_LATE = 20_000
SINK_BATCH = 1_000


@dataclass(slots=True, eq=False)
class Batch:
    """What an agent's stream yields: fresh records of one partition, in offset order.

    `envelopes` is parallel to `records` once `serve` has decoded them.
    """

    lane: "Lane"
    ledger: Ledger
    records: list[ConsumerRecord]
    envelopes: list[Any] = field(default_factory=list)

    @property
    def partition(self) -> int:
        """The partition that all of it came from."""
        return int(self.records[0].partition)

    async def settled(self) -> bool:
        """Wait until all before this batch is finished; False if the partition was lost meanwhile."""
        while self.ledger.live and self.ledger.committable().offset < self.records[0].offset:
            await asyncio.sleep(0.005)
        return self.ledger.live


class Work:
    """One record in hand. `left`: its outputs that the brokers have not answered yet."""

    __slots__ = ("id", "ledger", "left", "record")

    def __init__(self, record: ConsumerRecord, ledger: Ledger, left: int = 0) -> None:
        self.id: RecordId = (record.topic, record.partition, record.offset, record.timestamp)
        self.record, self.ledger, self.left = record, ledger, left


AsyncHandler = Callable[[ConsumerRecord, Ledger], Awaitable[None]]
PlainHandler = Callable[[Batch, int], Sequence[Record]]
BatchHandler = Callable[[Sequence[ConsumerRecord]], Awaitable[None]]
Prepare = Callable[[Batch], Awaitable[None]]
Ahead = Callable[[ConsumerRecord], bool]


class Lane:
    """The records that one stage has in hand: at most `limit` at work, a bounded number waiting."""

    def __init__(self, app: "StreamApp", name: str, limit: int) -> None:
        self.app, self.name, self.limit = app, name, limit
        self._slots = asyncio.Semaphore(limit)
        # Delivered and not finished: at this many its topics are not polled until some are.
        self.high_water = max(2 * limit, 500)
        self.pending = 0
        self.unanswered = 0
        self.finished = 0
        self.running: dict[RecordId, Work] = {}
        self._at_work = 0
        self._waiting: deque[tuple[Work, AsyncHandler, Ahead]] = deque()
        self._late: deque[RecordId] = deque(maxlen=MAX_LATE)
        self._queues: dict[tuple[str, int], deque[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Its topics should not be polled now."""
        return self.pending >= self.high_water

    @property
    def is_busy(self) -> bool:
        """Something of it has begun and is not finished."""
        return bool(self.running) or self.unanswered > 0

    # --- many at once ---

    def run_at_once(self, batch: Batch, handle: AsyncHandler, ahead: Ahead = lambda _: False) -> None:
        """Run each record beside the others, in turn; it is finished when its handler returns.

        `ahead`: True of a record that nothing will be done for any more, and that need not wait for its turn.
        """
        for record in batch.records if batch.ledger.live else ():
            work = Work(record, batch.ledger)
            if (still_running := self.running.get(work.id)) is not None:
                still_running.ledger = batch.ledger  # it runs since before a rebalance: adopt that run
            elif work.id in self._late:
                batch.ledger.finish(record.offset)
            else:
                self.pending += 1
                if self._at_work >= self.limit and ahead(record):
                    self._spawn(self._run_one(work, handle, in_turn=False))
                else:
                    self._waiting.append((work, handle, ahead))
                    self._begin()

    def let_pass(self, key: bytes) -> None:
        """Something has changed for this key: those who wait with it are asked again whether they must."""
        for waiting in [found for found in self._waiting if found[0].record.key == key]:
            work, handle, ahead = waiting
            if ahead(work.record):
                self._waiting.remove(waiting)
                self._spawn(self._run_one(work, handle, in_turn=False))

    def _begin(self) -> None:
        while self._waiting and self._at_work < self.limit:
            work, handle, _ = self._waiting.popleft()
            self._at_work += 1
            self._spawn(self._run_one(work, handle, in_turn=True))

    async def _run_one(self, work: Work, handle: AsyncHandler, *, in_turn: bool) -> None:
        try:
            if not work.ledger.live:  # its partition was lost while it waited
                return
            self.running[work.id] = work
            try:
                await handle(work.record, work.ledger)
            finally:
                del self.running[work.id]
            work.ledger.finish(work.record.offset)  # only when the handler returned
            self.finished += 1
            if not work.ledger.live:
                self._late.append(work.id)  # its partition may come back to us: not again
        except Exception as error:
            self.app.fail(work.id, error)
        finally:
            self.pending -= 1
            if in_turn:
                self._at_work -= 1
                self._begin()

    # --- in offset order ---

    def run_in_order(self, batch: Batch, handle: PlainHandler, prepare: Prepare | None = None) -> None:
        """Handle one record after another; each is finished when the brokers have all its outputs.

        The order of handling is kept; that of outputs is not once one of them had to be sent again.
        """
        self._enqueue(batch, (batch, handle, prepare), self._in_order)

    async def _in_order(self, queue: deque[Any]) -> None:
        batch: Batch | None = None
        try:
            while queue:  # what is at work stays in it until it is done
                batch, handle, prepare = queue[0]
                waiting = len(batch.records)
                if prepare is not None and batch.ledger.live:
                    await prepare(batch)
                for index, record in enumerate(batch.records):
                    await self._slots.acquire()
                    if not batch.ledger.live:
                        self._slots.release()
                        break
                    outputs = handle(batch, index)
                    work = Work(record, batch.ledger, len(outputs))
                    self.unanswered += 1
                    waiting -= 1
                    for output in outputs:  # waits only while the producer's buffer is full
                        answer = await self.app.hand_over(output)
                        answer.add_done_callback(partial(self._answered, work, output))
                    if not outputs:
                        self._finish(work)
                self.pending -= waiting
                queue.popleft()
        except Exception as error:
            self.app.fail(batch.records[0].offset if batch else None, error)

    def _answered(self, work: Work, output: Record, answer: "asyncio.Future[Any]") -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._spawn(self._send_again(work, output))
            return
        work.left -= 1
        if work.left <= 0:
            self._finish(work)

    def _finish(self, work: Work) -> None:
        work.ledger.finish(work.record.offset)
        self._slots.release()
        self.unanswered -= 1
        self.pending -= 1
        self.finished += 1

    async def _send_again(self, work: Work, output: Record) -> None:
        try:
            await self.app.publish([output])
            work.left -= 1
            if work.left <= 0:
                self._finish(work)
        except Exception as error:
            self.app.fail(work.id, error)

    # --- many in one call ---

    def run_as_batch(self, batch: Batch, handle: BatchHandler) -> None:
        """One call at a time per partition, with all that waits there (at most 1,000 records)."""
        self._enqueue(batch, batch, partial(self._as_batch, handle=handle))

    async def _as_batch(self, queue: "deque[Batch]", *, handle: BatchHandler) -> None:
        offset: int | None = None
        try:
            while queue:
                taken = [queue[0]]
                size = len(queue[0].records)
                for batch in list(queue)[1:]:
                    if size + len(batch.records) > SINK_BATCH:
                        break
                    taken.append(batch)
                    size += len(batch.records)
                live = [batch for batch in taken if batch.ledger.live]
                records = [record for batch in live for record in batch.records]
                if records:
                    offset = records[0].offset
                    self.unanswered += len(records)
                    try:
                        await handle(records)
                    finally:
                        self.unanswered -= len(records)
                    for batch in live:
                        for record in batch.records:
                            batch.ledger.finish(record.offset)
                    self.finished += len(records)
                self.pending -= size
                for _ in taken:
                    queue.popleft()
        except Exception as error:
            self.app.fail(offset, error)

    # --- shared ---

    def _enqueue(self, batch: Batch, item: Any, worker: Callable[[deque[Any]], Coroutine[Any, Any, None]]) -> None:
        self.pending += len(batch.records)
        queue = self._queues.setdefault((batch.records[0].topic, batch.partition), deque())
        queue.append(item)
        if len(queue) == 1:  # one task per partition, while there is something to do
            self._spawn(worker(queue))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)  # asyncio itself keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        """End what still runs, as after a drain that took too long: nothing of it is acknowledged."""
        self._waiting.clear()
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
