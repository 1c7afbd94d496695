"""Reads `job-cancel-requested`, in no group: every worker has all of it.

From before the longest expiry, and to its end before the worker's first record is served: what was cancelled while
no worker ran is not begun by the next one.
"""

import asyncio
import logging
import time
from time import monotonic
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError
from pydantic import ValidationError

from processors.loops import Loop, end
from schemas.events import JobCancelRequested
from streams import metrics
from streams.cancellations import KEPT_MS, Cancellations
from transport.clients import KafkaAccess
from transport.closing import close
from transport.resting import BRISK_MS, rest

logger = logging.getLogger(__name__)

RETRY_S = 1.0
SILENCE_S = 30.0  # nothing was read for so long although there is more: another connection is tried


class CancellationLog:
    """Keeps `Cancellations` supplied. `problem`: why it is not, for people; None while all is well."""

    def __init__(self, access: KafkaAccess, topic: str, cancellations: Cancellations) -> None:
        """`topic`: its full name."""
        self._access, self._topic, self._cancellations = access, topic, cancellations
        self._following: asyncio.Task[None] | None = None
        self._loop = Loop("following requests to cancel", max_wait_s=10)
        self.problem: str | None = "requests to cancel are not read yet"

    async def start(self) -> None:
        """Return once all that is in the topic now has been read, however long the cluster is away; then follow it."""
        consumer = await self._open_at_last()
        self._following = asyncio.create_task(self._follow(consumer), name="cancellations")

    async def stop(self) -> None:
        """May be called twice."""
        if self._following is not None:
            await end(self._following)
            self._following = None

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        try:
            while True:
                try:
                    await self._read(consumer)
                except Exception as error:  # whatever it is: a worker that is deaf must say so, and listen again
                    await asyncio.sleep(self._say(error))
                await close(consumer.stop)
                consumer = await self._open_again()  # from the beginning again: all of it may be taken twice
        finally:
            self.problem = "requests to cancel are no longer read"
            await close(consumer.stop)

    async def _open_at_last(self) -> AIOKafkaConsumer:
        while True:
            try:
                consumer = await self._open()
            except (KafkaError, OSError) as error:
                await asyncio.sleep(self._say(error))
            else:
                self.problem = None
                return consumer

    async def _open_again(self) -> AIOKafkaConsumer:
        while True:
            try:
                return await self._open_at_last()
            except Exception as bug:
                await asyncio.sleep(self._say(bug))

    def _say(self, error: Exception) -> float:
        """Why it is not followed now; returns how long to wait until it is tried again."""
        why = self._access.refusal or type(error).__name__
        self.problem = f"requests to cancel are not followed ({why}); this worker keeps trying"
        if not isinstance(error, (KafkaError, OSError)):
            return self._loop.met(error)
        logger.warning("%s", self.problem)
        return RETRY_S

    # --- reading ---

    async def _open(self) -> AIOKafkaConsumer:
        """A consumer that has read all there is."""
        consumer = AIOKafkaConsumer(
            **self._access.options(), enable_auto_commit=False, auto_offset_reset="earliest",
            fetch_max_wait_ms=BRISK_MS, max_poll_records=2000,
        )  # fmt: skip
        try:
            await consumer.start()
            await self._read_up_to(consumer, await self._seek(consumer))
            rest(consumer)
        except BaseException:
            await close(consumer.stop)
            raise
        return consumer

    async def _seek(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """To the oldest request that may still matter; returns where the partitions end."""
        await consumer._client.add_topic(self._topic)  # a client knows only the topics that it was told of
        found = consumer.partitions_for_topic(self._topic)
        if not found:
            raise KafkaError(f"the topic {self._topic} is missing: run `assistant topics apply`")
        partitions = [TopicPartition(self._topic, number) for number in sorted(found)]
        consumer.assign(partitions)
        # The ends before the beginnings: what comes in between lies behind an end, and is read.
        ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
        since = max(0, int(time.time() * 1000) - KEPT_MS)
        for partition, begin in (await consumer.offsets_for_times(dict.fromkeys(partitions, since))).items():
            consumer.seek(partition, begin.offset if begin else ends[partition])
        return ends

    async def _read_up_to(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> None:
        read_at = monotonic()
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            if self._take_all(await consumer.getmany(timeout_ms=1000)):
                read_at = monotonic()
            elif monotonic() - read_at > SILENCE_S:
                raise KafkaTimeoutError

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Until partitions were added: their requests would be missed."""
        while consumer.partitions_for_topic(self._topic) == {at.partition for at in consumer.assignment()}:
            try:
                self._take_all(await consumer.getmany(timeout_ms=1000))
                self._loop.went_well()
            except KafkaError as error:  # positions are kept: nothing is missed when the brokers are back
                if not error.retriable:
                    raise
                await asyncio.sleep(RETRY_S)

    def _take_all(self, batches: dict[TopicPartition, list[Any]]) -> int:
        count = 0
        for records in batches.values():
            count += len(records)
            for record in records:
                try:
                    requested = JobCancelRequested.model_validate_json(record.value or b"")
                except ValidationError:  # anyone may write here; its headers say nothing that is needed
                    metrics.CANCELLATIONS.labels("unreadable").inc()
                    continue
                metrics.CANCELLATIONS.labels("taken").inc()
                self._cancellations.take(requested, at_ms=record.timestamp)
        return count
