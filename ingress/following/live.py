"""Hears every piece of every answer: one consumer in no group over `completion-streamed`, filtered in memory."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord

from transport.clients import KafkaAccess
from transport.following import Following
from transport.partitioner import partition_of

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
        self._topic = topic
        self._following = Following(
            access, (topic,), lambda record: self._hand_out(record), what="answers", begun=self._begin,
        )  # fmt: skip
        self._takers: dict[bytes, list[Take]] = {}
        self._begun: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # offset, append time
        self.heard_since_ms: float = time.time() * 1000  # whatever has begun later is remembered

    @property
    def problem(self) -> str | None:
        """Why nothing is heard of answers now."""
        return self._following.problem

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._following.start()

    async def stop(self) -> None:
        """May be called twice."""
        await self._following.stop()

    @contextmanager
    def listen(self, key: bytes, take: Take) -> Iterator[Place]:
        """Have every record of this job from now on; those before `Place.next` are the past.

        Raises:
            NotFollowedError: The topic has not been reached yet.
        """
        if not self._following.next:
            raise NotFollowedError(self.problem)
        partitions = sorted(at.partition for at in self._following.next)
        partition = partition_of(key, partitions, partitions)
        takers = self._takers.setdefault(key, [])
        takers.append(take)
        try:
            yield Place(partition, self._following.next[TopicPartition(self._topic, partition)])
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
        while self._following.next.get(TopicPartition(self._topic, partition), 0) <= offset:
            await asyncio.sleep(0.01)

    def _begin(self) -> None:
        self.heard_since_ms = time.time() * 1000

    def _hand_out(self, record: ConsumerRecord) -> None:
        if FIRST_PIECE in record.value:
            self._begun[record.key] = (record.offset, record.timestamp)
            self._begun.move_to_end(record.key)
            if len(self._begun) > MAX_BEGUN:
                _, (_, at_ms) = self._begun.popitem(last=False)
                self.heard_since_ms = max(self.heard_since_ms, at_ms)
        for take in self._takers.get(record.key, ()):
            take(record)
