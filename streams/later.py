"""Long retries: an event is put off as a due row, or held in place while there is nowhere to write it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from aiokafka.structs import ConsumerRecord

from processors.errors import PermanentError, RetryableError
from processors.ports import DueEvent, DueWriter
from processors.retries import MAX_ATTEMPTS_ON_THE_WAY, latest
from processors.stage import Later
from schemas.envelope import Attributes, Envelope
from streams import metrics
from streams.encode import Encoder
from streams.lane import Lane

logger = logging.getLogger(__name__)

RETRIED_INDEX = 2000  # beside a stage's outputs and what it tells on the way
INSERT_TIMEOUT_S = 5.0
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.2, 5.0


def put_off(envelope: Envelope[Any], later: Later, encoder: Encoder, *, stage: str, now: datetime) -> DueEvent:
    """The same event once more, and when. Its id is the same each time that the same event is put off.

    Raises:
        TooLargeError: With its tries it is larger than its topic takes.
    """
    event = envelope.payload
    again = event.model_copy(update={"retry": event.retry + 1, "attempts": later.attempts})
    record = encoder.event(again, cause=envelope.attributes, stage=stage, index=RETRIED_INDEX)
    return DueEvent(
        due_id=Attributes.parse(record.headers).event_id,
        job_id=event.job.job_id,
        run=event.job.run,
        stage=stage,
        code=later.code,
        attempts=latest(later.attempts, MAX_ATTEMPTS_ON_THE_WAY),
        record=record,
        due_at=now + timedelta(seconds=later.wait_s),
    )


def as_released(due: DueEvent, before: Envelope[Any]) -> Envelope[Any]:
    """What the stage would read, had the event been released to its topic."""
    event = type(before.payload).model_validate_json(due.record.value)
    return Envelope(Attributes.parse(due.record.headers), event, before.partition, before.offset)


class Postponer:
    """Gives events to a `DueWriter`, however long that takes."""

    def __init__(
        self,
        writer: DueWriter | None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Random | None = None,
    ) -> None:
        """`writer`: None where no database is named; then everything is held in place."""
        self._writer, self._now, self._sleep = writer, now, sleep
        self._random = random or Random()  # noqa: S311 jitter is no secret

    async def take(self, event: DueEvent, record: ConsumerRecord, lane: Lane) -> bool:
        """True once the event is committed as a due row, so that its input is finished.

        False when it could not be until it was due: it is to be run now, in place. Meanwhile a drain does not wait for
        it: the input is given back unfinished, and comes again.
        """
        if await self._is_added(event):
            return True
        metrics.RETRIES.labels(event.stage, "held-in-place").inc()
        backoff = FIRST_BACKOFF_S
        with lane.held(record):
            while (left_s := (event.due_at - self._now()).total_seconds()) > 0:
                await self._sleep(left_s if self._writer is None else min(left_s, self._jittered(backoff)))
                if self._now() < event.due_at and await self._is_added(event):
                    return True
                backoff = min(MAX_BACKOFF_S, backoff * 2)
        return False

    async def _is_added(self, event: DueEvent) -> bool:
        if self._writer is None:
            return False
        try:
            async with asyncio.timeout(INSERT_TIMEOUT_S):
                await self._writer.add(event)
        except (RetryableError, PermanentError, TimeoutError) as error:
            logger.info("%s holds an event in place: it cannot be put off (%s)", event.stage, type(error).__name__)
            return False
        return True

    def _jittered(self, backoff: float) -> float:
        return backoff * self._random.uniform(0.5, 1)
