"""Reads back from `job-admitted` what the rate limiter's memory of a partition lacks.

Nothing hooks into a rebalance: before each batch it is seen whether memory reaches. The committed part of the source
has all its admissions in that log, because an input is finished only when the brokers have its outputs.
"""

import asyncio
import logging
import re
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import ValidationError

from processors.limit_rate import KEPT_WINDOWS, Admissions, RateLimiter
from schemas.envelope import Envelope, first_header
from schemas.events import JobAdmitted, PromptSanitized, ms_from_utc
from streams.batch import Batch
from transport.clients import KafkaAccess
from transport.closing import close

logger = logging.getLogger(__name__)

CLOCK_SKEW_MS = 30_000  # how far the brokers' clocks may differ
_OFFSET = re.compile(r"^[0-9]{1,19}$")
READ_BACK_TIMEOUT_S = 30.0  # then the worker ends, and another one tries


class AdmissionLog:
    """Keeps a `RateLimiter` supplied with the past that its verdicts need."""

    def __init__(self, access: KafkaAccess, topic: str, limiter: RateLimiter) -> None:
        self._access, self._topic, self._limiter = access, topic, limiter

    async def prepare(self, batch: Batch) -> None:
        """Have every admission that this batch's verdicts need; called in the partition's own in-order task.

        Raises:
            TimeoutError, KafkaError: It could not be read; the process ends, nothing is acknowledged.
        """
        found: list[Any] = batch.envelopes
        times = [
            ms_from_utc(envelope.payload.job.accepted_at)
            for envelope in found
            if isinstance(envelope, Envelope) and isinstance(envelope.payload, PromptSanitized)
        ]
        if not times:
            return
        first, last = batch.records[0].offset, batch.records[-1].offset
        window = self._limiter.window_ms
        need = min(times) - window
        memory = self._limiter.partitions.get(batch.partition)
        gap = last - first != len(batch.records) - 1  # finished ones were left out of it, their admissions unknown here
        if memory is None or gap or first > memory.next or need < memory.since:
            if not await batch.settled():  # our own admissions that are still on the way
                return
            async with asyncio.timeout(READ_BACK_TIMEOUT_S):
                self._limiter.partitions[batch.partition] = await self._read_back(batch.partition, first, need - window)
        elif max(times) - memory.since > 2 * KEPT_WINDOWS * window:
            memory.forget(min(need, max(times) - KEPT_WINDOWS * window))

    async def _read_back(self, partition: int, next_offset: int, since: int) -> Admissions:
        at = TopicPartition(self._topic, partition)
        memory = Admissions(since, next_offset)
        # In no group. A short fetch wait: the first fetch of a reader is otherwise a long poll.
        reader = AIOKafkaConsumer(**self._access.options(), enable_auto_commit=False, fetch_max_wait_ms=10)
        await reader.start()
        try:
            reader.assign([at])
            end = (await reader.end_offsets([at]))[at]
            found = (await reader.offsets_for_times({at: max(0, since - CLOCK_SKEW_MS)}))[at]
            position = found.offset if found else end
            if position < end:
                reader.seek(at, position)
            while position < end:
                for record in (await reader.getmany(at, timeout_ms=1000)).get(at, ()):
                    position = record.offset + 1
                    _remember(memory, record)
                position = max(position, await reader.position(at))  # past markers and gaps
        finally:
            await close(reader.stop)
        return memory


def _remember(memory: Admissions, record: Any) -> None:
    """One admission; a record that somebody else wrote there, or that has no limit, is none."""
    offset, event_id = first_header(record.headers, "source-offset"), first_header(record.headers, "source-id")
    if offset is None or event_id is None or not _OFFSET.match(offset):
        return
    try:
        admitted = JobAdmitted.model_validate_json(record.value or b"")
    except ValidationError:
        logger.error("job-admitted: the record at offset %d is no admission and is passed over", record.offset)  # noqa: TRY400
        return
    memory.add(admitted.job.user_id, (ms_from_utc(admitted.job.accepted_at), int(offset), event_id))
