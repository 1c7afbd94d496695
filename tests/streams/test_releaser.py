"""Releasing what is due: by several at once, over crashes, and over a Kafka that refuses or is away."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from processors.errors import RetryableError
from schemas.envelope import Attributes, Envelope, Record
from schemas.events import JobCancelRequested
from sinks.due_store import LEASE, DueStore
from sinks.pool import Pool
from sinks.postgres import PendingSink
from streams.cancellations import Cancellations
from streams.releaser import BATCH, Releaser
from tests.factories import NOW, job, job_admitted, user_updated
from tests.sinks.test_due_store import due
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def store(database: str) -> AsyncIterator[DueStore]:
    pool = Pool(database, size=6)
    yield DueStore(pool)
    await pool.close()


class FakeApp:
    """What was published, by id. `refuses`: an id that the brokers never take; `away`: until then nobody answers."""

    def __init__(self) -> None:
        self.published: Counter[str] = Counter()
        self.refuses: set[str] = set()
        self.away: asyncio.Event | None = None

    async def publish(self, records: Sequence[Record]) -> None:
        await asyncio.sleep(random.random() / 50)
        if self.away is not None:
            await self.away.wait()
        ids = [(dict(record.headers)["ce_id"] or b"").decode() for record in records]
        if self.refuses & set(ids):
            raise MessageSizeTooLargeError
        self.published.update(ids)


def releaser(app: FakeApp, store: DueStore, *, at: datetime = NOW) -> Releaser:
    return Releaser(app, store, now=lambda: at)  # type: ignore[arg-type]  # a fake


async def test_two_at_once_publish_each_event_once(store: DueStore) -> None:
    events = [due() for _ in range(BATCH + 100)]
    await asyncio.gather(*(store.add(event) for event in events))
    app = FakeApp()
    counts = await asyncio.gather(*(releaser(app, store).release_due() for _ in range(4)))
    assert max(counts) <= BATCH
    while await releaser(app, store).release_due():
        pass
    assert app.published == Counter(event.due_id for event in events)
    assert await store.next_due_at() is None


async def test_a_crash_between_publishing_and_deleting_publishes_the_same_id_again(store: DueStore) -> None:
    event, app = due(), FakeApp()
    await store.add(event)
    leased = await store.lease(BATCH, now=NOW)
    await app.publish(list(leased.records.values()))  # and then it dies
    assert await releaser(app, store).release_due() == 0
    assert await releaser(app, store, at=NOW + LEASE).release_due() == 1
    assert app.published == {event.due_id: 2}
    assert await releaser(app, store, at=NOW + 2 * LEASE).release_due() == 0


async def test_one_that_kafka_refuses_holds_up_no_other_and_stays(store: DueStore) -> None:
    events, app = [due() for _ in range(5)], FakeApp()
    await asyncio.gather(*(store.add(event) for event in events))
    app.refuses = {events[2].due_id}
    assert await releaser(app, store).release_due() == 4
    assert app.published == Counter(event.due_id for event in events if event is not events[2])
    assert await store.of_job(events[2].job_id) is not None


async def test_a_stop_while_kafka_is_away_gives_back_what_was_taken(store: DueStore) -> None:
    event, app = due(), FakeApp()
    await store.add(event)
    app.away = asyncio.Event()
    stopped = asyncio.create_task(releaser(app, store).run())

    async def is_leased() -> bool:
        return await store.next_due_at() is None

    await until(is_leased)
    stopped.cancel()
    await asyncio.gather(stopped, return_exceptions=True)
    app.away.set()
    assert await releaser(app, store).release_due() == 1  # with no lease to wait for


async def test_it_wakes_when_the_next_one_is_due_and_outlives_postgres(store: DueStore, monkeypatch) -> None:
    at, app, waits = NOW, FakeApp(), list[float]()
    await store.add(due(in_s=0.4))

    async def sleep(seconds: float) -> None:
        nonlocal at
        waits.append(seconds)
        at += timedelta(seconds=seconds)
        await asyncio.sleep(0)

    async def away(*_: object, **__: object) -> None:
        raise RetryableError("postgres-unavailable", "away")

    runs = Releaser(app, store, now=lambda: at, sleep=sleep)  # type: ignore[arg-type]  # a fake
    with monkeypatch.context() as broken:
        broken.setattr(store, "lease", away)
        running = asyncio.create_task(runs.run())
        await until(lambda: len(waits) >= 4)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert waits[:4] == [2, 4, 5, 5]
    at = NOW
    waits.clear()
    running = asyncio.create_task(runs.run())
    await until(lambda: app.published)
    running.cancel()
    assert waits[0] == pytest.approx(0.4)


@pytest.mark.parametrize(("asked_by", "released"), [("alice", True), ("bob", False), ("root", True)])
async def test_what_waits_of_a_job_that_is_cancelled_is_released_at_once(
    store: DueStore, database: str, asked_by: str, released: bool
) -> None:
    of = job()
    pool = Pool(database, size=2)
    await PendingSink(pool).write([Envelope(Attributes("e", "/s", "t"), job_admitted(job=of))])
    await pool.close()
    cancelled, other = due(of, in_s=3600), due(in_s=3600)
    await store.add(cancelled)
    await store.add(other)
    cancellations = Cancellations({"root": user_updated(user_id="root", role="admin")})
    app = FakeApp()
    found = Releaser(app, store, cancellations=cancellations, now=lambda: NOW)  # type: ignore[arg-type]  # a fake
    cancellations.take(JobCancelRequested(job_id=of.job_id, user_id=asked_by), at_ms=1)
    await found._hurry()
    await found.release_due()
    assert app.published == Counter([cancelled.due_id] if released else [])
