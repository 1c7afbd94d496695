"""Publishes events that were put off, when they are due. Runs in the role sink; several may run at once, on leases."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from aiokafka.errors import KafkaError
from faust.exceptions import ProducerSendError

from processors.errors import RetryableError
from processors.loops import Loop
from schemas.envelope import Record
from sinks.due_store import DueStore, Leased
from streams import metrics
from streams.app import StreamApp
from streams.cancellations import Cancellations

logger = logging.getLogger(__name__)

BATCH = 500
POLL_S, MAX_BACKOFF_S = 1.0, 5.0
PAUSE_S = 0.05  # what is due may be locked by whoever takes it away
GIVE_BACK_S = 2.0
MAX_TO_CANCEL = 10_000
NAME = "release_due"


class Releaser:
    """A crash between publishing and deleting publishes twice, with one `ce_id`: the stage drops the second."""

    def __init__(
        self,
        app: StreamApp,
        store: DueStore,
        *,
        cancellations: Cancellations | None = None,
        now: Callable[[], datetime] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """What is released.

        Args:
            app: Publishes it.
            store: Where it waits.
            cancellations: What waits of a job that is to be cancelled is released at once; its stage then ends it.
            now: Says what is due; None: Postgres's clock, which all releasers have in common.
            sleep: Between two looks.
        """
        self._app, self._store, self._sleep = app, store, sleep
        self._now: Callable[[], datetime | None] = now or (lambda: None)
        self._cancellations, self._to_cancel = cancellations, set[UUID]()
        if cancellations is not None:
            cancellations.on_request(self._hear)

    async def run(self) -> None:
        """Until cancelled; outlives a Postgres or a Kafka that is away."""
        backoff, loop = POLL_S, Loop("releasing events that are due", max_wait_s=MAX_BACKOFF_S)
        while True:
            try:
                await self._hurry()
                released = await self.release_due()
                wait = 0.0 if released == BATCH else await self._until_next_s()
                backoff = POLL_S
                loop.went_well()
            except RetryableError as error:
                if backoff == POLL_S:
                    logger.warning("events that are due wait: %s", error.message)
                wait = backoff = min(MAX_BACKOFF_S, backoff * 2)
            except Exception as bug:
                wait = loop.met(bug)
            await self._sleep(wait)

    async def release_due(self) -> int:
        """Publish what is due, at most 500 of it; the number of those published."""
        leased = await self._store.lease(BATCH, now=self._now())
        if not leased.records:
            return 0
        published: list[str] = []
        try:
            published = await self._publish(leased.records)
            await self._store.delete(leased, published)
        except asyncio.CancelledError:
            await self._give_back(leased)
            raise
        metrics.EVENTS.labels(NAME, "released").inc(len(published))
        return len(published)

    def _hear(self, job_id: UUID) -> None:
        if len(self._to_cancel) < MAX_TO_CANCEL:  # beyond it they end when they are due
            self._to_cancel.add(job_id)

    async def _hurry(self) -> None:
        asked, self._to_cancel = self._to_cancel, set()
        if not asked or self._cancellations is None:
            return
        try:
            owners = await self._store.owners(list(asked), now=self._now())
            wanted = [job_id for job_id, owner in owners.items() if self._cancellations.is_wanted(job_id, owner=owner)]
            if wanted:
                await self._store.make_due(wanted, now=self._now())
        except RetryableError:
            self._to_cancel |= asked
            raise

    async def _publish(self, records: Mapping[str, Record]) -> list[str]:
        """Those that the brokers have; waits while there are no brokers."""
        try:
            await self._app.publish(list(records.values()))
        except (KafkaError, ProducerSendError) as error:
            if len(records) == 1:  # it comes back when its lease has run out, until its job expires
                metrics.EVENTS.labels(NAME, "refused").inc()
                (due_id,) = records
                logger.error("the event %s was refused by Kafka: %s", due_id, type(error).__name__)  # noqa: TRY400 it may hold text
                return []
        else:
            return list(records)
        return [each for due_id, record in records.items() for each in await self._publish({due_id: record})]

    async def _give_back(self, leased: Leased) -> None:
        with contextlib.suppress(RetryableError, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_S):
                await self._store.give_back(leased)

    async def _until_next_s(self) -> float:
        given = self._now()
        now = given or datetime.now(UTC)
        at = await self._store.next_due_at(clock=None if given else now)
        return POLL_S if at is None else min(POLL_S, max(PAUSE_S, (at - now).total_seconds()))
