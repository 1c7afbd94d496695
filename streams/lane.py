"""One stage's work in progress: how many records it has in hand, and the ways in which it handles them."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka.structs import ConsumerRecord

from processors.loops import end
from schemas.envelope import Record
from streams import begun
from streams.bad_luck import BadLuck
from streams.batch import (
    Ahead,
    AsyncHandler,
    Batch,
    BatchHandler,
    Begin,
    Handling,
    LookUp,
    PlainHandler,
    Prepare,
    RecordId,
    Work,
    record_id,
)
from streams.few_at_first import JUST_BEGUN_S, FewAtFirst
from streams.held import Held
from streams.in_one_call import in_one_call
from streams.ledger import Ledger
from streams.outbox import Outbox

if TYPE_CHECKING:
    from streams.app import StreamApp

MAX_LATE = 20_000
BREATH = 32  # records
Waiting = tuple[Work, Handling]
SWEEP_S = 5.0  # those who wait for a provider's pace are looked through for those whose time is over
HELD_TICK_S = 0.2  # of what waits while its stage has stopped; up to `limit` records do


class Lane:
    """The records that one stage has in hand: at most `limit` at work, a bounded number waiting."""

    def __init__(
        self, app: "StreamApp", name: str, limit: int, luck: BadLuck, *, is_sink: bool = False,
        is_apart: bool = False,
    ) -> None:  # fmt: skip
        """`is_sink`: its records are not suspected of killing a process, for each is with many others in one call.

        `is_apart`: they are worked on elsewhere, in a child or by a server, and that for hours: neither does a suspect
        wait for them, nor does anything wait for one of them that is suspected.

        `pace`, to be set from outside: asked before each that is run at once; 0: now; else in how many seconds again.
        """
        self.app, self.name, self.limit, self.luck, self.is_sink = app, name, limit, luck, is_sink
        self.is_apart = is_apart
        self._slots = asyncio.Semaphore(limit)
        # Delivered and not finished: at this many its topics are not polled until some are.
        self.high_water = max(2 * limit, 500)
        self.pending = 0
        self.unanswered = 0
        self.finished = 0
        self.running: dict[RecordId, Work] = {}
        self._at_work = 0
        self.pace: Begin | None = None
        self._paced: asyncio.TimerHandle | None = None
        self._swept_at = 0.0
        self._waiting: deque[Waiting] = deque()
        self._few = FewAtFirst()
        self._late: deque[RecordId] = deque(maxlen=MAX_LATE)
        self._queues: dict[tuple[str, int], deque[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        if not (is_sink or is_apart):
            app.quarantine.watch(self)
        self._held = Held()
        self._outbox: Outbox[Work] = Outbox(app, self._spawn, self._answered)

    @property
    def is_full(self) -> bool:
        """Its topics should not be polled now."""
        if self.luck.stopped:  # polled only for the one that is tried, and only where none waits here
            return self.pending > 0 or not self.luck.wants_one
        return self.pending >= self.high_water

    @property
    def is_busy(self) -> bool:
        """Something of it has begun and is not finished."""
        return bool(self.running) or self.unanswered > 0

    # --- many at once ---

    def run_at_once(
        self, batch: Batch, handle: AsyncHandler, *, look_up: LookUp | None = None, ahead: Ahead = lambda _: False,
        over: Ahead = lambda _: False,
    ) -> None:  # fmt: skip
        """Run each record beside the others, in turn; it is finished when its handler returns.

        Args:
            batch: What was delivered.
            handle: Awaited for each.
            look_up: Asked, where an earlier owner may have worked, for the offsets of which nothing is left to do.
            ahead: True of a record that nothing will be done for any more, and that need not wait for its turn.
            over: The same, but asked only now and then of those who wait for long.
        """
        handling = Handling(handle, look_up, ahead, over)
        if look_up is not None and batch.records[0].offset < batch.ledger.zone_end:
            self.pending += len(batch.records)
            self._spawn(self._without_ended(batch, look_up, handling))
        else:
            self._begin_all(batch, handling)

    def let_pass(self, key: bytes) -> None:
        """Something has changed for this key: those who wait with it are asked again whether they must."""
        for waiting in [found for found in self._waiting if found[0].record.key == key]:
            work, handling = waiting
            if handling.ahead(work.record):
                self._waiting.remove(waiting)
                self._spawn(self._run_one(work, handling, in_turn=False))

    async def _without_ended(self, batch: Batch, look_up: LookUp, handling: Handling) -> None:
        try:
            ended = await look_up(batch.without_suspects())
        except Exception as error:
            self.app.fail(batch.records[0].offset, error)
            return
        finally:
            self.pending -= len(batch.records)
        for offset in ended:
            batch.ledger.finish(offset)
        batch.records = [record for record in batch.records if record.offset not in ended]
        self._begin_all(batch, handling)

    def _begin_all(self, batch: Batch, handling: Handling) -> None:
        for record in batch.ledger.likeliest_first(batch.records) if batch.ledger.live else ():
            work = Work(record, batch.ledger)
            if (still_running := self.running.get(work.id)) is not None:
                still_running.ledger = batch.ledger  # it runs since before a rebalance: adopt that run
                batch.ledger.begin(record.offset)
            elif work.id in self._late:
                batch.ledger.finish(record.offset)
            else:
                self.pending += 1
                if batch.ledger.is_suspect(record.offset) and not self.is_apart:
                    self._spawn(self._run_alone(work, handling))
                elif self._at_work + len(self._waiting) >= self.limit and handling.ahead(record):
                    self._spawn(self._run_one(work, handling, in_turn=False))
                else:
                    batch.ledger.lay_down(record.offset)
                    self._waiting.append((work, handling))
                    if not work.has_died:  # those that have begin together
                        self._begin()
        self._begin()

    def _begin(self) -> None:
        few: list[Waiting] = []
        while self._waiting and self._at_work < self.limit:
            if not self._waiting[0][0].ledger.live:  # its partition was lost while it waited
                self._waiting.popleft()
                self.pending -= 1
                continue
            has_died = self._waiting[0][0].has_died
            if has_died and not self._few.has_room_beside(len(few)):
                break
            if self.pace is not None and (wait_s := self.pace()) > 0:  # else it has taken a place
                if self._paced is None:
                    self._paced = asyncio.get_running_loop().call_later(min(wait_s, SWEEP_S), self._begin_paced)
                break
            waiting = self._waiting.popleft()
            self._at_work += 1
            if has_died:
                few.append(waiting)
            else:
                self._spawn(self._run_one(*waiting, in_turn=True))
        if few:
            self._few.begin()
            self._spawn(self._run_few(few))

    async def _run_few(self, few: list[Waiting]) -> None:
        """Run these, of which one may kill the process, once it is written down that they are in hand; then others."""
        await self.app.quarantine.calm()
        works = [work for work, _ in few]
        async with begun.newest(self.app, works):
            tasks = [self._spawn(self._run_one(*waiting, in_turn=True)) for waiting in few]
            _, living = await asyncio.wait(tasks, timeout=JUST_BEGUN_S)
        if living:  # who kills the process now has not just begun
            await begun.tell(self.app, works)
        await self._few.prove(tasks)
        if not any(work.has_died for work, _ in self._waiting):
            self._few.end()
        self._begin()

    def _begin_paced(self) -> None:
        self._paced = None
        now = asyncio.get_running_loop().time()
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            for waiting in [found for found in self._waiting if found[1].over(found[0].record)]:
                self._waiting.remove(waiting)
                self._spawn(self._run_one(*waiting, in_turn=False))
        self._begin()

    async def _run_one(self, work: Work, handling: Handling, *, in_turn: bool) -> None:
        try:
            is_tried = await self._turn(work.ledger, lambda: handling.ahead(work.record))
            try:
                if work.ledger.live:  # else its partition was lost while it waited
                    work.ledger.begin(work.record.offset)
                    await self._handle(work, handling.handle)
            finally:
                if is_tried:
                    self.luck.tried()
        finally:
            self.pending -= 1
            if in_turn:
                self._at_work -= 1
                self._begin()

    async def _run_alone(self, work: Work, handling: Handling) -> None:
        handle, look_up, is_alone = handling.handle, handling.look_up, False
        try:
            async with begun.alone(self.app, work) as is_alone:
                if is_alone:
                    if look_up is not None and await look_up(Batch(self, work.ledger, [work.record])):
                        work.ledger.finish(work.record.offset)
                    else:
                        await self._handle(work, handle)
        except Exception as error:
            self.app.fail(work.id, error)
        if is_alone or work.must_be_alone() or not work.ledger.live:
            self.pending -= 1
        else:  # who killed was found meanwhile, and it was another
            work.ledger.lay_down(work.record.offset)
            self._waiting.append((work, handling))
            self._begin()

    async def _handle(self, work: Work, handle: AsyncHandler) -> None:
        self.running[work.id] = work
        try:
            await handle(work.record, work.ledger)
        except Exception as error:
            work.ledger.blame(work.record.offset)
            self.app.fail(work.id, error)
        else:
            work.ledger.finish(work.record.offset)  # only when the handler returned
            self.finished += 1
            if not work.ledger.live:
                self._late.append(work.id)  # its partition may come back to us: not again
        finally:
            del self.running[work.id]

    def held(self, record: ConsumerRecord) -> AbstractContextManager[None]:
        """Around a long wait of a handler that is at work on this record; see `Held`."""
        return self._held.hold(self.running[record_id(record)])

    def give_back_held(self) -> None:
        """A drain begins."""
        self._held.give_back()

    # --- in offset order ---

    def run_in_order(self, batch: Batch, handle: PlainHandler, prepare: Prepare | None = None) -> None:
        """Handle one record after another; each is finished when the brokers have all its outputs.

        The order of handling is kept; that of outputs is not once one of them had to be sent again.
        """
        for part in batch.in_parts():
            if part.has_died:
                part.lay_down()
            self._enqueue(part, (part, handle, prepare), self._in_order)

    async def _in_order(self, queue: deque[Any]) -> None:
        batch: Batch | None = None
        try:
            while queue:  # what is at work stays in it until it is done
                batch, handle, prepare = queue[0]
                left = len(batch.records)
                if batch.is_suspect:
                    async with begun.alone(self.app, Work(batch.records[0], batch.ledger)) as is_alone:
                        if is_alone:
                            left -= await self._handle_in_order(batch, handle, prepare)
                            await self._until_answered()
                    if not (is_alone or batch.is_suspect):  # who killed was found meanwhile, and it was another
                        continue
                else:
                    await self.app.quarantine.calm()
                    if batch.has_died and await batch.settled():  # a few at a time, and those before are done
                        async with begun.newest(self.app, [Work(one, batch.ledger) for one in batch.records]):
                            left -= await self._handle_in_order(batch, handle, prepare)
                    else:
                        left -= await self._handle_in_order(batch, handle, prepare)
                self.pending -= left
                queue.popleft()
        except Exception as error:
            if batch is not None:
                batch.ledger.blame(batch.at)
            self.app.fail(batch.at if batch else None, error)

    async def _handle_in_order(self, batch: Batch, handle: PlainHandler, prepare: Prepare | None) -> int:
        """How many of them were begun, before the partition was lost."""
        batch.at = batch.records[0].offset
        if prepare is not None and batch.ledger.live:
            await prepare(batch)
        for index, record in enumerate(batch.records):
            await self._slots.acquire()
            if batch.is_suspect:
                is_tried = False
            elif batch.ledger.live and self.app.quarantine.is_calm and self.luck.may_begin():
                is_tried = self.luck.stopped
            else:
                is_tried = await self._turn(batch.ledger)
            if not batch.ledger.live:
                self._slots.release()
                return index
            batch.at = record.offset
            batch.ledger.begin(record.offset)
            outputs = handle(batch, index)
            if is_tried:
                self.luck.tried()
            work = Work(record, batch.ledger, len(outputs))
            self.unanswered += 1
            for output in outputs:
                await self._outbox.put(output, work)
            if not outputs:
                self._finish(work)
            if index % BREATH == BREATH - 1:  # what is put is sent meanwhile
                await asyncio.sleep(0)
        return len(batch.records)

    async def _until_answered(self) -> None:
        while self.unanswered:
            await asyncio.sleep(0.005)

    def _answered(self, held: Sequence[tuple[Work, Record]], error: BaseException | None) -> None:
        for work, output in held:
            if error is not None:
                self._spawn(self._send_again(work, output))
                continue
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
        self._enqueue(batch, batch, partial(in_one_call, self, handle=handle))

    # --- shared ---

    async def _turn(self, ledger: Ledger, need_not_wait: Callable[[], bool] = lambda: False) -> bool:
        """Wait while another is handled alone, and while the stage has stopped for its dead letters.

        Not for a partition that is lost. A suspect waits only for being alone: nothing else could be done meanwhile.

        Returns:
            True if this one is tried by a stage that has stopped: `luck.tried` must follow.
        """
        await self.app.quarantine.calm()
        while ledger.live:
            if self.luck.may_begin():
                return self.luck.stopped
            if need_not_wait():
                break
            await asyncio.sleep(HELD_TICK_S)
            await self.app.quarantine.calm()
        return False

    async def cut(self) -> None:
        """End what has outlasted the drain of a stop: nothing of it is acknowledged, so it comes again elsewhere."""
        self._waiting.clear()
        if self._paced is not None:
            self._paced.cancel()
        await asyncio.gather(*map(end, list(self._tasks)), return_exceptions=True)

    def _enqueue(self, batch: Batch, item: Any, worker: Callable[[deque[Any]], Coroutine[Any, Any, None]]) -> None:
        self.pending += len(batch.records)
        queue = self._queues.setdefault((batch.records[0].topic, batch.partition), deque())
        queue.append(item)
        if len(queue) == 1:  # one task per partition, while there is something to do
            self._spawn(worker(queue))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)  # asyncio itself keeps only weak references
        task.add_done_callback(self._tasks.discard)
        return task
