"""Wakes whoever waits for a job's events: one consumer in no group over `job-progressed` and `job-finished`."""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from time import monotonic, time
from typing import Any
from uuid import UUID

import orjson
from aiokafka.structs import ConsumerRecord
from pydantic import ValidationError

from ingress.outcome import Outcome, outcome_of
from ingress.progress import Progress, forward
from processors.limits.usage import Usage
from processors.loops import end, repeat
from schemas.events import JobFinished, JobProgressed, RateLimit
from sinks.postgres import WITHOUT_ROW, JobStore
from transport.clients import KafkaAccess
from transport.following import Following

logger = logging.getLogger(__name__)

LOOK_UP_AFTER_S, LOOK_UP_EVERY_S, MAX_WAIT_S = 2.0, 1.0, 10.0
LOOK_UP_AT_ONCE = 500  # a row may hold a result of a megabyte
MAX_PROGRESS = 20_000
MAX_ENDED = 50_000  # some 10 MB: the outcomes of a minute under full load, and a takeover is done sooner
ADMITTED = b'"state":"admitted"'
FAR = (b'"document":{', b'"training":{')  # within a text its quotes would be escaped
LONGEST_MS = 86_400_000  # that a job may be good for
CLOCK_SKEW = timedelta(seconds=30)  # between this machine and the brokers, whose clock a job is accepted by


def _user_in(value: bytes) -> str | None:
    try:
        user_id = orjson.loads(value)["user_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return user_id if isinstance(user_id, str) else None


class Watch:
    """One waiter. `verdict`: done when the gate has decided, with the user's rate; `finished`: at the end.

    `may_have_ended`: the job may have an outcome already when the waiter comes.
    """

    def __init__(self, *, may_have_ended: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.since, self.may_have_ended = monotonic(), may_have_ended
        self.verdict: asyncio.Future[RateLimit | None] = loop.create_future()
        self.finished: asyncio.Future[Outcome] = loop.create_future()
        self.on_progress: Callable[[JobProgressed], None] | None = None

    def admitted(self, standing: RateLimit | None) -> None:
        """The gate let it pass."""
        if not self.verdict.done():
            self.verdict.set_result(standing)

    def finish(self, outcome: Outcome) -> None:
        """It has ended."""
        self.admitted(outcome.rate_limit)
        if not self.finished.done():
            self.finished.set_result(outcome)


class Follower:
    """Reads every outcome, and parses only those that somebody waits for."""

    def __init__(
        self, access: KafkaAccess, *, progressed: str, finished: str, store: JobStore | None, usage: Usage | None = None
    ) -> None:
        """What is followed, and who hears of it.

        Args:
            access: The cluster.
            progressed: Full name of the topic.
            finished: Likewise.
            store: Where outcomes are looked up that were not heard of.
            usage: Told of every job that begins or ends, whoever asked for it.
        """
        self._finished, self._store, self._usage = finished, store, usage
        self._following = Following(access, (progressed, finished), self._take, what="job events", begun=self._begin)
        self._heard_since: datetime | None = None
        self._watches: dict[bytes, list[Watch]] = {}
        self._progress: OrderedDict[bytes, bytes] = OrderedDict()
        self._far: OrderedDict[bytes, JobProgressed] = OrderedDict()  # the last word on how far each is
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        self._looking: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str | None:
        """Why nothing is heard of jobs now."""
        return self._following.problem

    def start(self) -> None:
        """Begin to follow; returns at once."""
        self._following.start()
        if self._store is not None:
            looking = repeat(
                partial(self._look_up, self._store),
                "looking up outcomes",
                every_s=LOOK_UP_EVERY_S,
                max_wait_s=MAX_WAIT_S,
                begins_at_once=False,
            )
            self._looking = asyncio.create_task(looking, name="look-up")

    async def stop(self) -> None:
        """May be called twice."""
        await self._following.stop()
        if self._looking is not None:
            await end(self._looking)
            self._looking = None

    @contextmanager
    def watch(self, job_id: UUID, *, may_have_ended: bool = False) -> Iterator[Watch]:
        """Register before publishing, so that nothing is missed; `may_have_ended`: see `Watch`."""
        key, watch = str(job_id).encode(), Watch(may_have_ended=may_have_ended)
        self._watches.setdefault(key, []).append(watch)
        try:
            yield watch
        finally:
            waiting = self._watches[key]
            waiting.remove(watch)
            if not waiting:
                del self._watches[key]

    def waiters(self, job_id: UUID) -> int:
        """How many wait for it here."""
        return len(self._watches.get(str(job_id).encode(), ()))

    def progress(self, job_id: UUID) -> Progress | None:
        """Where a job was last seen; best effort."""
        value = self._progress.get(str(job_id).encode())
        if value is None:
            return None
        try:
            event = JobProgressed.model_validate_json(value)
        except ValidationError:
            return None
        attempts = [attempt.model_dump(exclude_none=True) for attempt in event.attempts or ()]
        return Progress(
            event.user_id, event.stage, event.state, event.retry_at, attempts or None, event.at, code=event.code,
            **self._how_far(str(job_id).encode()),
        )  # fmt: skip

    def _how_far(self, key: bytes) -> dict[str, dict[str, Any]]:
        told = self._far.get(key)
        if told is None:
            return {}
        found = {"document": told.document, "training": told.training}
        return {name: far.model_dump(exclude_none=True) for name, far in found.items() if far is not None}

    # --- reading ---

    def _begin(self) -> None:
        self._heard_since = datetime.now(UTC)

    def _take(self, record: ConsumerRecord) -> None:
        if record.topic == self._finished:
            self._take_finished(record.key, record.value)
        else:
            self._take_progressed(record.key, record.value)

    def _take_progressed(self, key: bytes, value: bytes) -> None:
        if self._usage is not None and ADMITTED in value and (user_id := _user_in(value)) is not None:
            self._usage.began(user_id, key, expires_at_ms=round(time() * 1000) + LONGEST_MS, is_heard=True)
        self._progress[key] = value
        self._progress.move_to_end(key)
        if len(self._progress) > MAX_PROGRESS:
            self._progress.popitem(last=False)
        watches, tells_how_far = self._watches.get(key), any(mark in value for mark in FAR)
        if not watches and not tells_how_far:
            return
        with contextlib.suppress(ValidationError):
            event = JobProgressed.model_validate_json(value)
            if tells_how_far:
                event = self._far[key] = forward(event, self._far.pop(key, None))
                if len(self._far) > MAX_PROGRESS:
                    self._far.popitem(last=False)
            for watch in watches or ():
                if event.state == "admitted":
                    watch.admitted(event.rate_limit)
                if watch.on_progress is not None:
                    watch.on_progress(event)

    def _take_finished(self, key: bytes, value: bytes) -> None:
        self._progress.pop(key, None)
        self._far.pop(key, None)
        if self._usage is not None:
            self._usage.ended(key)
        if key in self._ended and self._store is not None:
            # The job has run twice, or was redriven. Who began to wait since has not heard the first outcome, which is
            # the one that counts: so how it has ended is for its row to say.
            for watch in self._watches.get(key, ()):
                watch.since = -inf
            return
        self._ended[key] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        if watches := self._watches.get(key):
            with contextlib.suppress(ValidationError):
                event = JobFinished.model_validate_json(value)
                error = event.error.model_dump(exclude_none=True) if event.error else None
                for watch in watches:
                    if watch.may_have_ended and self._may_be_second(event):
                        watch.since = -inf  # as above
                    else:
                        watch.finish(Outcome(event.status, event.result, error, event.rate_limit, stream=event.stream))

    def _may_be_second(self, event: JobFinished) -> bool:
        """The job is older than what this replica has heard: another outcome may have come before, and counts."""
        if self._store is None or self._heard_since is None or event.job.kind in WITHOUT_ROW:
            return False
        return event.job.accepted_at < self._heard_since + CLOCK_SKEW

    # --- looking up what was not heard of ---

    async def _look_up(self, store: JobStore) -> None:
        """One round; while Postgres is away outcomes still come by Kafka."""
        old = monotonic() - LOOK_UP_AFTER_S
        waiting = [
            UUID(key.decode()) for key, watches in self._watches.items() if any(watch.since < old for watch in watches)
        ]
        for first in range(0, len(waiting), LOOK_UP_AT_ONCE):
            for row in await store.finished(waiting[first : first + LOOK_UP_AT_ONCE]):
                for watch in self._watches.get(str(row.job_id).encode(), ()):
                    watch.finish(outcome_of(row))
