"""Our consumer and producer under Faust: what is delivered, acknowledged and committed.

Stock Faust 0.15.3 acknowledges on exception and on cancel, and commits past events in flight: it loses events on
kill -9. Here a ledger per partition decides, and agents get batches in place of four tasks per message.
docs/adr/0001-own-consumer-under-faust.md says why each override is so; tests/streams/test_kill.py keeps it true.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import uvloop
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, UnknownTopicOrPartitionError
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from schemas.envelope import Record
from streams.batch import Batch
from streams.ledger import MAX_OPEN, Ledger
from transport.partitioner import partition_of
from transport.producer_ids import renew_id

if TYPE_CHECKING:
    from streams.app import StreamApp

logger = logging.getLogger(__name__)
DRAIN_TICK_S = 0.01
COMMIT_RETRY_S = 0.1


class Consumer(driver.Consumer):
    """Delivers batches, commits the lowest unfinished offset of each partition with what is finished above it."""

    app: "StreamApp"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ledgers: dict[TP, Ledger] = {}
        self._committed: dict[TP, OffsetAndMetadata] = {}
        self._drain_until = 0.0
        self.delivered_at = monotonic()

    def _new_consumer_thread(self) -> Any:
        """Faust's, on the loop that the rest of a worker runs on, too: its own costs twice as much for each poll."""
        thread = driver.AIOKafkaConsumerThread(
            self, loop=self.loop, beacon=self.beacon, thread_loop=uvloop.new_event_loop()
        )  # fmt: skip
        thread._close_thread_loop_on_stop = True  # as that of a loop which it had made itself
        return thread

    # --- delivering ---

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        """A poll, straight in the consumer's thread: through Faust's queue of methods it takes four more tasks."""
        thread = self._thread
        consumer = thread._ensure_consumer()
        polling = thread._fetch_records(
            consumer, active_partitions, timeout=timeout, max_records=consumer._max_poll_records
        )  # fmt: skip
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(polling, thread.thread_loop))

    async def _drain_messages(self, fetcher: Any) -> None:
        """Poll and hand out, in place of Faust's loop over single messages."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)
                active = self._get_active_partitions()
                full = {tp for tp in active if self._is_full(tp)}
                if not active - full:
                    await asyncio.sleep(DRAIN_TICK_S)
                    continue
                # Where something is full it is asked again soon, for the poll itself cannot be interrupted.
                records = await self._getmany(active - full, timeout=0.02 if full else 1.0)
                generation = self.app.consumer_generation_id
                if not self.flow_active:  # a rebalance began: hold the records until it is over
                    await self.wait(self.can_resume_flow)
                if generation == self.app.consumer_generation_id and not self.should_stop:
                    await self._deliver(records)  # else positions were reset: these records come again
        except (*self.consumer_stopped_errors, asyncio.CancelledError):
            if not self.app.should_stop:
                raise

    def _is_full(self, tp: TP) -> bool:
        return self.app.lanes[tp.topic].is_full or (tp in self.ledgers and len(self.ledgers[tp].open) >= MAX_OPEN)

    async def _deliver(self, records: Mapping[TP, Sequence[ConsumerRecord]]) -> None:
        if records:  # a poll that gives nothing while records wait is what the watchdog looks for
            self.delivered_at = monotonic()
        new = [tp for tp in records if tp not in self.ledgers]
        for tp in new:
            lane = self.app.lanes[tp.topic]
            self.ledgers[tp] = Ledger(
                records[tp][0], self._committed.get(tp), end=self.highwater(tp) or 0,
                at_once=0 if lane.is_sink else lane.limit,
            )  # fmt: skip
        fresh = {tp: (self.ledgers[tp], self.ledgers[tp].deliver(found)) for tp, found in records.items()}
        # That they are worked on is written down before anything of them begins.
        if named := [tp for tp, (ledger, found) in fresh.items() if tp in new or ledger.names_any(found)]:
            await self.commit_begun(named)
        for tp, (ledger, found) in fresh.items():
            if found and ledger.live:
                batch = Batch(self.app.lanes[tp.topic], ledger, found)
                for channel in self.app.topics._tp_index[tp]:  # one queue operation per batch
                    channel.queue.put_nowait(batch)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Called by Faust after an assignment, before the flow resumes; keeps the metadata for the ledgers."""
        consumer = self._thread._ensure_consumer()

        async def seek() -> dict[Any, OffsetAndMetadata]:  # runs in the consumer's own thread
            found: dict[Any, OffsetAndMetadata] = await consumer._coordinator.fetch_committed_offsets(
                consumer.assignment()
            )
            for partition in found.keys() & consumer.assignment():
                consumer.seek(partition, found[partition].offset)
            return found

        found = await self._thread.call_thread(seek)
        self._committed = {ensure_TP(partition): at for partition, at in found.items()}
        return {tp: at.offset for tp, at in self._committed.items()}

    # --- committing ---

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002 Faust's signature
        """Commit what moved; True if anything was."""
        assigned = self.assignment()
        offsets = {tp: ledger.committable() for tp, ledger in self.ledgers.items() if tp in assigned}
        offsets = {tp: at for tp, at in offsets.items() if at != self._committed.get(tp)}
        return bool(offsets) and await self._commit(offsets)

    async def commit_begun(self, tps: Sequence[TP]) -> bool:
        """Return once the brokers know what of these partitions is in hand; False where one of them is leaving."""
        while not self.should_stop and all(tp in self.ledgers and self.ledgers[tp].live for tp in tps):
            if await self._commit({tp: self.ledgers[tp].committable() for tp in tps}):
                return True
            await asyncio.sleep(COMMIT_RETRY_S)
        return False

    async def acquit(self) -> None:
        """What killed is found: nothing else is suspected of that, and the brokers know it before anything begins."""
        if acquitted := [tp for tp, ledger in self.ledgers.items() if ledger.live and ledger.acquit()]:
            await self.commit_begun(acquitted)

    async def _commit(self, offsets: Mapping[TP, OffsetAndMetadata]) -> bool:
        try:
            await self._thread.call_thread(
                self._thread._ensure_consumer().commit,
                {driver.ensure_aiokafka_TP(tp): at for tp, at in offsets.items()},
            )
        except (CommitFailedError, IllegalStateError):
            return False  # the group has rebalanced: the next owner begins at what was committed
        except KafkaError as error:
            if not error.retriable:
                await self.crash(error)
            return False  # the next commit tries again
        except Exception as error:
            await self.crash(error)
            return False
        self._committed.update(offsets)
        self._thread.tp_last_committed_at.update(dict.fromkeys(offsets, monotonic()))
        return True

    def finished_up_to(self, tp: TP) -> int:
        """The lowest offset of a partition that is not finished."""
        if ledger := self.ledgers.get(tp):
            return ledger.lowest_unfinished()
        committed = self._committed.get(tp)
        return max(0, int(committed.offset)) if committed else 0

    async def backlog(self) -> dict[TP, tuple[int, int]]:
        """Of each partition owned: how many records are not finished, and how many of these could be delivered now.

        Asked of the brokers themselves: what the consumer knows of a partition's end stands still when its fetching
        does.
        """
        consumer = self._thread._ensure_consumer()

        async def look() -> dict[Any, int]:  # runs in the consumer's own thread
            subscription = consumer._subscription.subscription
            assignment = subscription.assignment if subscription else None
            if assignment is None or not assignment.tps:
                return {}
            ends = await consumer.end_offsets(assignment.tps)
            states = {tp: assignment.state_value(tp) for tp in ends}
            return {
                tp: max(0, ends[tp] - state.position)
                for tp, state in states.items()
                if state is not None and state.has_valid_position
            }

        found: dict[TP, tuple[int, int]] = {}
        for partition, waiting in (await self._thread.call_thread(look)).items():
            tp = ensure_TP(partition)
            in_hand = self.ledgers[tp].unfinished if tp in self.ledgers else 0
            found[tp] = (waiting + in_hand, 0 if self._is_full(tp) else waiting)
        return found

    # --- leaving ---

    async def wait_empty(self) -> None:
        """The drain. Called by Faust with the flow stopped, on revoke and (twice) on stop."""
        seconds = self.app.drain_timeout_s if self.app.should_stop else self.app.revoke_drain_s
        for ledger in self.ledgers.values():
            if ledger.live:  # one deadline, however often it is called
                ledger.live, self._drain_until = False, monotonic() + seconds
        for lane in self.app.lanes.values():
            lane.give_back_held()
        while monotonic() < self._drain_until and any(lane.is_busy for lane in self.app.lanes.values()):
            await asyncio.sleep(DRAIN_TICK_S)
        await self.maybe_wait_for_commit_to_finish()
        await self.commit()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Called in a rebalance, before the partitions go."""
        if self._active_partitions is not None:
            self._active_partitions.difference_update(revoked)
        self._paused_partitions.difference_update(revoked)
        if self.app.should_stop:
            # Others wait for us in this rebalance, and Faust would close the consumer under the drain.
            self._drain_until = min(self._drain_until, monotonic() + self.app.revoke_drain_s)
        else:
            await self._on_partitions_revoked(revoked)
        await self.wait_empty()
        for tp in revoked & self.ledgers.keys():
            self.ledgers.pop(tp).live = False


class Producer(driver.Producer):
    """Idempotent: Faust has no setting for it outside exactly_once."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._partitions: dict[str, tuple[int, ...]] = {}

    async def know(self, topic: str) -> None:
        """Ask for a topic's partitions. Raises KafkaError while they cannot be had."""
        self._partitions[topic] = tuple(sorted(await self._ensure_producer().partitions_for(topic)))

    def partition_of(self, record: Record) -> int | None:
        """Where it goes; None until its topic is known."""
        if record.partition is not None:
            return record.partition
        partitions = self._partitions.get(record.topic)
        return partition_of(record.key, partitions, partitions) if partitions else None

    def new_batch(self) -> Any:
        """To be filled and sent by `send_batch`."""
        return self._ensure_producer().create_batch()

    async def send_batch(self, batch: Any, topic: str, partition: int) -> "asyncio.Future[Any]":
        """Hand over a batch; the future is the brokers' answer to all of it."""
        batch.close()
        await self.know(topic)  # it may have more partitions than it had
        answer: asyncio.Future[Any] = await self._ensure_producer().send_batch(batch, topic, partition=partition)
        return answer

    async def send_alone(self, record: Record) -> "asyncio.Future[Any]":
        """Hand over in a batch of its own: brokers refuse a whole batch for one record in it."""
        await self.know(record.topic)
        partition = self.partition_of(record)
        if partition is None:
            raise UnknownTopicOrPartitionError(record.topic)
        batch = self.new_batch()
        batch.append(timestamp=None, key=record.key, value=record.value, headers=record.headers)
        return await self.send_batch(batch, record.topic, partition)

    def renew_id(self) -> None:
        """After a refusal; see `transport.producer_ids`."""
        renew_id(self._ensure_producer())
