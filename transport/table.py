"""A compacted topic as a dictionary: read whole before use, then followed."""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any, Generic, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from processors.loops import Loop, end
from schemas.events import Event
from transport.clients import KafkaAccess
from transport.closing import close
from transport.resting import BRISK_MS, rest

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)
RETRY_S, MAX_WAIT_S = 1.0, 10.0


class NotStartedError(Exception):
    """The table is not followed yet, or no more."""


class CompactedTable(Generic[E]):
    """The latest event by key of a topic, in no group, so that every process has all of it."""

    def __init__(
        self,
        access: KafkaAccess,
        topic: str,
        event: type[E],
        *,
        on_change: Callable[[str, E | None], None] | None = None,
        forget: Callable[[E], bool] | None = None,
    ) -> None:
        """`on_change`: told each event, None for one that is gone; `forget`: True of one that is of no use any more."""
        self._forget = forget
        self._access, self._topic, self._event, self._on_change = access, topic, event, on_change
        self._consumer: AIOKafkaConsumer | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop = Loop(f"following {topic}, which is read again from its beginning", max_wait_s=MAX_WAIT_S)
        self._reached_end = False
        self._positions: dict[TopicPartition, int] = {}
        # While it is read anew: what was read so far, and up to where; what was true long ago is not taken for true.
        self._anew: dict[str, E | None] | None = None
        self._anew_until: dict[TopicPartition, int] = {}
        self._moved = asyncio.Condition()
        self.values: dict[str, E] = {}
        self._appended_ms: dict[str, int] = {}
        self._newest_ms, self._newest_read_at = 0, monotonic()

    @property
    def is_running(self) -> bool:
        """It was read to its end, and is followed."""
        return self._reached_end and self._consumer is not None and self._task is not None and not self._task.done()

    def age_s(self, key: str) -> float:
        """How long ago a key's event was appended, by the brokers' clock: what ours says is not asked.

        The newest record of the topic is taken to be as old as it is long read; so it needs one that is written often.
        """
        behind_ms = self._newest_ms - self._appended_ms.get(key, 0)
        return behind_ms / 1000 + monotonic() - self._newest_read_at

    async def start(self) -> None:
        """Read the topic to its end; then follow it until `stop`, whatever happens.

        Raises:
            KafkaError: The cluster or the topic is not there.
        """
        self._consumer = await self._open()
        self._task = asyncio.create_task(self._run(), name=f"table {self._topic}")
        try:
            await self.reach_end()
        except BaseException:
            await self.stop()
            raise
        self._reached_end = True

    async def stop(self) -> None:
        """May be called twice."""
        if self._task is not None:
            await end(self._task)
            self._task = None
        if self._consumer is not None:
            await close(self._consumer.stop)
            self._consumer = None

    async def reach_end(self) -> None:
        """Return once all that is in the topic now has been read.

        Raises:
            NotStartedError: It is not followed yet, or no more.
            KafkaError: The cluster did not tell where the end is.
        """
        if self._task is None:
            raise NotStartedError
        async with self._moved:
            await self._moved.wait_for(lambda: self._consumer is not None)
        consumer = self._consumer
        if consumer is None:
            raise NotStartedError
        ends = await consumer.end_offsets(list(self._positions))
        async with self._moved:
            await self._moved.wait_for(lambda: all(self._positions[at] >= end for at, end in ends.items()))

    async def _open(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(**self._access.options(), enable_auto_commit=False, fetch_max_wait_ms=BRISK_MS)
        try:
            await consumer.start()
            partitions = [TopicPartition(self._topic, number) for number in await self._partitions(consumer)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            self._positions = {partition: await consumer.position(partition) for partition in partitions}
            rest(consumer)
        except BaseException:
            await close(consumer.stop)
            raise
        return consumer

    async def _run(self) -> None:
        """Follow; after what nobody has foreseen begin anew, for nobody else would."""
        while True:
            try:
                if self._consumer is None:
                    consumer = await self._open()
                    try:
                        self._anew_until = await consumer.end_offsets(list(self._positions))
                    except BaseException:
                        await close(consumer.stop)
                        raise
                    self._anew = {}
                    async with self._moved:
                        self._consumer = consumer
                        self._moved.notify_all()
                await self._follow(self._consumer)
            except Exception as error:  # whatever it is: without its follower a table is wrong from now on
                wait_s = self._loop.met(error)
                broken, self._consumer = self._consumer, None
                if broken is not None:
                    await close(broken.stop)
                await asyncio.sleep(wait_s)

    async def _partitions(self, consumer: AIOKafkaConsumer) -> list[int]:
        # Asked for by name: a client knows only the topics that it was told of.
        await consumer._client.add_topic(self._topic)
        found = consumer.partitions_for_topic(self._topic)
        if not found:
            raise KafkaError(f"the topic {self._topic} is missing: run `assistant topics apply`")
        return sorted(found)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                batches = await consumer.getmany(timeout_ms=1000)
            except KafkaError as error:  # the cluster is away: what is known stays true until it is back
                logger.warning("%s is not followed at the moment: %s", self._topic, type(error).__name__)
                await asyncio.sleep(RETRY_S)
                continue
            for records in batches.values():
                for record in records:
                    self._take(record)
            async with self._moved:
                for partition in self._positions:
                    self._positions[partition] = await consumer.position(partition)  # past markers and gaps
                self._take_over()
                if self._anew is None:
                    self._loop.went_well()
                self._moved.notify_all()

    def _take(self, record: Any) -> None:
        key = (record.key or b"").decode(errors="replace")
        self._appended_ms[key] = record.timestamp
        if record.timestamp >= self._newest_ms:
            self._newest_ms, self._newest_read_at = record.timestamp, monotonic()
        event: E | None = None
        if record.value is None:
            del self._appended_ms[key]
        else:
            try:
                event = self._event.model_validate_json(record.value)
            except ValidationError:
                logger.warning("%s: the record at offset %d does not parse and is ignored", self._topic, record.offset)
                return
        if self._anew is not None:
            self._anew[key] = event
        else:
            self._apply(key, event)

    def _take_over(self) -> None:
        """Once it has been read anew to its end: what stands there last is true, and told again."""
        if self._anew is None or any(self._positions[at] < end for at, end in self._anew_until.items()):
            return
        read, self._anew = self._anew, None
        for key, event in read.items():
            self._apply(key, event)

    def _apply(self, key: str, event: E | None) -> None:
        if event is None:
            self.values.pop(key, None)
        else:
            self.values[key] = event
            if self._forget is not None:  # few: a topic that lets go after a day has said nothing of it to its readers
                for old in [name for name, known in self.values.items() if self._forget(known)]:
                    del self.values[old]
        if self._on_change is not None:
            self._on_change(key, event)
