"""Ends jobs whose time is over and of which nobody says anything, from their rows. Runs in the role sink."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted, ProducerSendError

from processors.errors import RetryableError
from processors.loops import Loop
from schemas.envelope import Attributes, Record
from schemas.events import Job, JobError, JobFinished
from sinks.postgres import JobStore
from streams import metrics
from streams.app import StreamApp
from streams.encode import Encoder
from streams.own_outcomes import OwnOutcomes

logger = logging.getLogger(__name__)

EVERY_S, MAX_BACKOFF_S = 5.0, 30.0
GRACE_S = 60.0  # for a stage to say so itself, and for its word to arrive
MAX_PER_ROUND = 1_000
NAME = "end_overdue"


class Deadlines:
    """Several may run at once: each ends the jobs whose outcomes it would store itself (`OwnOutcomes`)."""

    def __init__(
        self,
        app: StreamApp,
        encoder: Encoder,
        store: JobStore,
        *,
        finished_topic: str,
        clock_is_right: Callable[[], bool],
        grace_s: float = GRACE_S,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`finished_topic`: full name of the topic that `app` stores outcomes from; `grace_s`: after the expiry."""
        self._app, self._encoder, self._store = app, encoder, store
        self._own = OwnOutcomes(app, finished_topic)
        self._clock_is_right, self._grace, self._now = clock_is_right, timedelta(seconds=grace_s), now

    async def run(self) -> None:
        """Until cancelled; outlives a Postgres or a Kafka that is away."""
        wait, loop = EVERY_S, Loop("ending overdue jobs", max_wait_s=MAX_BACKOFF_S)
        while True:
            await asyncio.sleep(wait)
            try:
                await self.end_overdue()
                wait = EVERY_S
                loop.went_well()
            except (RetryableError, KafkaError, ProducerSendError, ConsumerNotStarted, TimeoutError) as error:
                wait = min(MAX_BACKOFF_S, wait * 2)
                logger.warning("overdue jobs wait to be ended: %s", type(error).__name__)
            except Exception as bug:
                wait = max(EVERY_S, loop.met(bug))

    async def end_overdue(self) -> int:
        """One round; the number of jobs ended."""
        if not self._clock_is_right() or self._app.rebalancing:
            return 0
        jobs = await self._store.overdue(before=self._now() - self._grace, limit=MAX_PER_ROUND)
        records = [self._end(job) for job in await self._own.of(jobs)]
        await self._app.publish(records)
        metrics.EVENTS.labels(NAME, "ended").inc(len(records))
        return len(records)

    def _end(self, job: Job) -> Record:
        error = JobError(code="expired", message="nobody took the job up before its time was over; send it again")
        finished = JobFinished.failed(job, error=error, at=self._now())
        # The id is the same in every round and replica.
        cause = Attributes(f"expired/{job.job_id}", "/assistant/" + NAME, "job-expired")
        return self._encoder.event(finished, cause=cause, stage=NAME, index=0)
