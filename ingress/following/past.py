"""Reads what is on `completion-streamed` already: a few readers, which many may wait for."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord
from prometheus_client import Counter

from transport.clients import KafkaAccess
from transport.closing import close

logger = logging.getLogger(__name__)

READS = Counter("assistant_stream_past_reads_total", "Reads of what is on completion-streamed already")
READ_WITHIN_S = 30.0
MAX_WAITING = 200


class PastUnreadableError(Exception):
    """The past cannot be read now; the message says why."""


class PastDeltas:
    """A pool of consumers in no group, opened as they are needed and kept."""

    def __init__(
        self, access: KafkaAccess, topic: str, *, readers: int, max_waiting: int = MAX_WAITING,
        within_s: float = READ_WITHIN_S,
    ) -> None:  # fmt: skip
        """Made, not opened.

        Args:
            access: The cluster.
            topic: Full name.
            readers: How many read at once.
            max_waiting: How many more wait for one of them.
            within_s: For waiting and reading together.
        """
        self._access, self._topic, self._within_s = access, topic, within_s
        self._slots, self._max_waiting, self._waiting = asyncio.Semaphore(readers), max_waiting, 0
        self._idle: list[AIOKafkaConsumer] = []

    async def stop(self) -> None:
        """Close those that are idle."""
        while self._idle:
            await _close(self._idle.pop())

    async def read(
        self, partition: int, *, first: int | None, since_ms: float, end: int,
        take: Callable[[ConsumerRecord], None],
    ) -> None:  # fmt: skip
        """Hand out the records of a partition from `first`, or from a time on, up to `end`, which is not among them.

        Raises:
            PastUnreadableError: Kafka does not answer, or too many wait.
        """
        if self._waiting >= self._max_waiting:
            raise PastUnreadableError("too many wait for what was told before")
        self._waiting += 1
        waiting = True
        try:
            async with asyncio.timeout(self._within_s), self._slots:
                self._waiting, waiting = self._waiting - 1, False
                async with self._reader() as reader:
                    await self._read(reader, TopicPartition(self._topic, partition), first, since_ms, end, take)
        except (KafkaError, OSError, TimeoutError) as error:
            logger.warning("answers of the past cannot be read (%s)", type(error).__name__)
            raise PastUnreadableError("what was told before cannot be read now") from error
        finally:
            self._waiting -= waiting

    async def _read(
        self, reader: AIOKafkaConsumer, at: TopicPartition, first: int | None, since_ms: float, end: int,
        take: Callable[[ConsumerRecord], None],
    ) -> None:  # fmt: skip
        READS.inc()
        reader.assign([at])
        end = min(end, (await reader.end_offsets([at]))[at])  # less, in a topic that was made anew
        if first is None:
            found = (await reader.offsets_for_times({at: max(0, int(since_ms))}))[at]
            first = found.offset if found else end
        position = first
        if position < end:
            reader.seek(at, position)
        while position < end:
            for record in (await reader.getmany(at, timeout_ms=1000)).get(at, ()):
                position = record.offset + 1
                if record.offset < end:
                    take(record)
            position = max(position, await reader.position(at))  # past markers, gaps, and what is kept no more

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        if self._idle:
            reader = self._idle.pop()
        else:
            # A short fetch wait: the first fetch of a reader is otherwise a long poll.
            reader = AIOKafkaConsumer(
                **self._access.options(), enable_auto_commit=False, fetch_max_wait_ms=10, auto_offset_reset="earliest"
            )
            try:
                await reader.start()
            except BaseException:
                await _close(reader)
                raise
        try:
            yield reader
        except BaseException:  # nobody knows what state it is in
            await _close(reader)
            raise
        reader.unsubscribe()  # it is not to fetch on
        self._idle.append(reader)


async def _close(reader: AIOKafkaConsumer) -> None:
    with contextlib.suppress(KafkaError, OSError):
        await close(reader.stop)
