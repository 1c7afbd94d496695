"""Reads topics from where they end, and goes on whatever happens: one consumer in no group."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from processors.loops import Loop, end
from transport.clients import KafkaAccess
from transport.closing import close
from transport.resting import BRISK_MS, rest

logger = logging.getLogger(__name__)

RETRY_S, MAX_WAIT_S = 1.0, 10.0


class Following:
    """Hands out every record once that comes after `begun`, in the order of its partition.

    Where it is, it keeps over a reconnect, and where partitions are added it begins with their first record. A record
    whose taking fails is passed over.

    Attributes:
        problem: Why nothing is followed now; None: it is.
        next: By partition, the offset of the next record; empty until the topics were reached.
    """

    def __init__(
        self,
        access: KafkaAccess,
        topics: Sequence[str],
        take: Callable[[ConsumerRecord], None],
        *,
        what: str,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        """What is followed.

        Args:
            access: The cluster.
            topics: Full names.
            take: Called for each record.
            what: The records, for people, such as `job events`.
            begun: Called once, when it is known where the topics end and nothing was handed out yet.
        """
        self._access, self._topics, self._take, self._what, self._begun = access, topics, take, what, begun
        self._task: asyncio.Task[None] | None = None
        self._loop = Loop(f"following {what}", max_wait_s=MAX_WAIT_S)
        self.next: dict[TopicPartition, int] = {}
        self.problem: str | None = f"{what} are not followed yet"

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._task = asyncio.create_task(self._follow(), name=f"follows {self._what}")

    async def stop(self) -> None:
        """May be called twice."""
        if self._task is not None:
            await end(self._task)
            self._task = None

    async def _follow(self) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                **self._access.options(), enable_auto_commit=False, max_poll_records=2000,
                fetch_max_wait_ms=BRISK_MS,
            )  # fmt: skip
            try:
                await consumer.start()
                await self._seek(consumer)
                rest(consumer)
                self.problem = None
                await self._read(consumer)
            except (KafkaError, OSError) as error:
                why = self._access.refusal or "Kafka cannot be reached"
                self.problem = f"{self._what} are not followed: {why}; this process keeps trying"
                logger.warning("%s (%s)", self.problem, type(error).__name__)
                await asyncio.sleep(RETRY_S)
            except Exception as bug:
                self.problem = f"{self._what} are not followed: a bug, which the log has; this process keeps trying"
                await asyncio.sleep(self._loop.met(bug))
            finally:
                await close(consumer.stop)

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        partitions: list[TopicPartition] = []
        for topic in self._topics:
            await consumer._client.add_topic(topic)  # a client knows only the topics that it was told of
            found = consumer.partitions_for_topic(topic)
            if not found:
                raise KafkaError(f"the topic {topic} is missing: run `assistant topics apply`")
            partitions += [TopicPartition(topic, number) for number in sorted(found)]
        consumer.assign(partitions)
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        if not self.next:
            self.next = dict(ends)
            self._begun()
        # Of a topic that was made anew, offsets begin again; of a partition that was added, nothing was read yet.
        self.next = {at: min(self.next.get(at, 0), end) for at, end in ends.items()}
        for at, offset in self.next.items():
            consumer.seek(at, offset)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Until partitions were added."""
        count = {topic: sum(at.topic == topic for at in self.next) for topic in self._topics}
        while all(len(consumer.partitions_for_topic(topic) or ()) == number for topic, number in count.items()):
            try:
                batches = await consumer.getmany(timeout_ms=1000)
            except KafkaError as error:  # positions are kept: nothing is missed when the brokers are back
                if not error.retriable:
                    raise
                await asyncio.sleep(RETRY_S)
                continue
            for at, records in batches.items():
                for record in records:
                    self.next[at] = record.offset + 1
                    if record.key is not None and record.value is not None:
                        self._take(record)
            self._loop.went_well()
