"""Ends what waits of users who were disabled or deleted, from its rows, wherever it waits. Runs in the role sink.

What is at work for them is cut by the worker that has it (`Cancellations`), and what comes to its turn later is ended
then; this is for what would wait for its turn: behind other jobs, for a provider, or to be tried again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import monotonic
from uuid import UUID

from aiokafka.errors import KafkaError
from faust.exceptions import ConsumerNotStarted, ProducerSendError

from processors.cancelled import USER_DISABLED, ended
from processors.errors import RetryableError
from processors.loops import Loop
from schemas.envelope import Attributes, Record
from schemas.events import Job, UserUpdated
from sinks.postgres import JobStore
from streams import metrics
from streams.app import StreamApp
from streams.encode import Encoder
from streams.own_outcomes import OwnOutcomes

logger = logging.getLogger(__name__)

EVERY_S, MAX_BACKOFF_S = 1.0, 5.0
GRACE_S = 1.0  # for those who work on it to say so themselves
WATCHED_S = 15.0  # a row may be written a little later than its user was disabled
LOOK_AT_ALL_EVERY_S = 60.0  # what was written much later than that, such as after an outage
MAX_PER_ROUND = 1_000
NAME = "end_of_disabled"


class DisabledUsers:
    """Several may run at once: each ends the jobs whose outcomes it would store itself."""

    def __init__(
        self,
        app: StreamApp,
        encoder: Encoder,
        store: JobStore,
        users: Mapping[str, UserUpdated],
        *,
        finished_topic: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`users`: all that there are; `finished_topic`: full name of the topic that `app` stores outcomes from."""
        self._app, self._encoder, self._store, self._users = app, encoder, store, users
        self._own = OwnOutcomes(app, finished_topic)
        self._now, self._clock = now, clock
        self._watched: dict[str, float] = {}  # since when
        self._said: dict[UUID, float] = {}
        self._looked_at_all = float("-inf")

    def hear(self, user_id: str, user: UserUpdated | None) -> None:
        """A user has changed."""
        if user is not None and user.disabled:
            self._watched[user_id] = self._clock()
        else:
            self._watched.pop(user_id, None)

    async def run(self) -> None:
        """Until cancelled; outlives a Postgres or a Kafka that is away."""
        wait, loop = EVERY_S, Loop("ending jobs of disabled users", max_wait_s=MAX_BACKOFF_S)
        while True:
            await asyncio.sleep(wait)
            try:
                await self.end_theirs()
                wait = EVERY_S
                loop.went_well()
            except (RetryableError, KafkaError, ProducerSendError, ConsumerNotStarted, TimeoutError) as error:
                wait = min(MAX_BACKOFF_S, wait * 2)
                logger.warning("jobs of disabled users wait to be ended: %s", type(error).__name__)
            except Exception as bug:
                wait = max(EVERY_S, loop.met(bug))

    async def end_theirs(self) -> int:
        """One round; the number of jobs ended."""
        if self._app.rebalancing:
            return 0
        now = self._clock()
        everybody = now - self._looked_at_all >= LOOK_AT_ALL_EVERY_S
        if everybody:
            whose = [user.user_id for user in self._users.values() if user.disabled]
        else:
            whose = [user_id for user_id, since in self._watched.items() if now - since >= GRACE_S]
        jobs = await self._end_jobs_of(whose, now) if whose else 0
        if everybody and not jobs:
            self._looked_at_all = now
        self._watched = {user_id: since for user_id, since in self._watched.items() if now - since < WATCHED_S}
        return jobs

    async def _end_jobs_of(self, whose: list[str], now: float) -> int:
        # What was said is not said again before it can have reached the rows.
        self._said = {job_id: at for job_id, at in self._said.items() if now - at < WATCHED_S}
        pending = await self._store.pending_of(whose, but=list(self._said), limit=MAX_PER_ROUND)
        jobs = await self._own.of(pending)
        await self._app.publish([self._end(job) for job in jobs])
        self._said.update((job.job_id, now) for job in jobs)
        metrics.EVENTS.labels(NAME, "ended").inc(len(jobs))
        return len(jobs)

    def _end(self, job: Job) -> Record:
        finished = ended(job, at=self._now(), code=USER_DISABLED)
        # The id is the same in every round and replica.
        cause = Attributes(f"user-disabled/{job.job_id}/{job.run}", "/assistant/" + NAME, "user-disabled")
        return self._encoder.event(finished, cause=cause, stage=NAME, index=0)
