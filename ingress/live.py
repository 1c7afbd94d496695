"""Hears every piece of every answer: one consumer in no group over `completion-streamed`, filtered in memory."""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import ConsumerRecord

from transport.clients import KafkaAccess

logger = logging.getLogger(__name__)

RETRY_S = 1.0
MAX_BEGUN = 20_000
FIRST_PIECE = b'"sequence":0,'  # within a text its quotes would be escaped

Take = Callable[[ConsumerRecord], None]


class NotFollowedError(Exception):
    """The topic is not read at the moment."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job's pieces lie, and the offset of the next one that is heard of live."""

    partition: int
    next: int


class LiveDeltas:
    """Hands the records of a job to whoever listens; remembers where the newest answers begin."""

    def __init__(self, access: KafkaAccess, topic: str) -> None:
        """`topic`: full name."""
        self._access, self._topic = access, topic
        self._takers: dict[bytes, list[Take]] = {}
        self._next: dict[int, int] = {}  # by partition; kept over a reconnect, so that nothing is missed
        self._begun: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # offset, append time
        self._task: asyncio.Task[None] | None = None
        self.heard_since_ms: float = time.time() * 1000  # whatever has begun later is remembered
        self.problem: str | None = "answers are not followed yet"

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._task = asyncio.create_task(self._follow(), name="deltas")

    async def stop(self) -> None:
        """May be called twice."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @contextmanager
    def listen(self, key: bytes, take: Take) -> Iterator[Place]:
        """Have every record of this job from now on; those before `Place.next` are the past.

        Raises:
            NotFollowedError: The topic has not been reached yet.
        """
        if not self._next:
            raise NotFollowedError(self.problem)
        partitions = sorted(self._next)
        partition: int = DefaultPartitioner()(key, partitions, partitions)
        takers = self._takers.setdefault(key, [])
        takers.append(take)
        try:
            yield Place(partition, self._next[partition])
        finally:
            takers.remove(take)
            if not takers:
                self._takers.pop(key, None)

    def begun_at(self, key: bytes) -> int | None:
        """The offset of the first piece of the job's newest execution, where it was heard of."""
        found = self._begun.get(key)
        return found[0] if found else None

    async def heard(self, partition: int, offset: int) -> None:
        """Return once the record at this offset was handed out."""
        while self._next.get(partition, 0) <= offset:
            await asyncio.sleep(0.01)

    # --- reading ---

    async def _follow(self) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                **self._access.options(), enable_auto_commit=False, max_poll_records=2000, fetch_max_wait_ms=100
            )
            try:
                await consumer.start()
                await self._seek(consumer)
                self.problem = None
                await self._read(consumer)
            except (KafkaError, OSError) as error:
                self.problem = "answers are not followed: Kafka cannot be reached; the ingress keeps trying"
                logger.warning("%s (%s)", self.problem, type(error).__name__)
                await asyncio.sleep(RETRY_S)
            except Exception:  # nobody else would start it again
                self.problem = "answers are not followed: a bug, which the log has; the ingress keeps trying"
                logger.exception("a bug in following answers")
                await asyncio.sleep(RETRY_S)
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    await consumer.stop()

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        await consumer._client.add_topic(self._topic)  # a client knows only the topics that it was told of
        found = consumer.partitions_for_topic(self._topic)
        if not found:
            raise KafkaError(f"the topic {self._topic} is missing: run `assistant topics apply`")
        partitions = [TopicPartition(self._topic, number) for number in sorted(found)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        if not self._next:
            self.heard_since_ms = time.time() * 1000
        # Of a topic that was made anew, offsets begin again.
        self._next = {at.partition: min(self._next.get(at.partition, end), end) for at, end in ends.items()}
        for at in partitions:
            consumer.seek(at, self._next[at.partition])

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                batches = await consumer.getmany(timeout_ms=1000)
            except KafkaError as error:  # positions are kept: nothing is missed when the brokers are back
                if not error.retriable:
                    raise
                await asyncio.sleep(RETRY_S)
                continue
            for records in batches.values():
                for record in records:
                    self._next[record.partition] = record.offset + 1
                    if record.key is not None and record.value is not None:
                        self._hand_out(record)

    def _hand_out(self, record: ConsumerRecord) -> None:
        if FIRST_PIECE in record.value:
            self._begun[record.key] = (record.offset, record.timestamp)
            self._begun.move_to_end(record.key)
            if len(self._begun) > MAX_BEGUN:
                _, (_, at_ms) = self._begun.popitem(last=False)
                self.heard_since_ms = max(self.heard_since_ms, at_ms)
        for take in self._takers.get(record.key, ()):
            take(record)
