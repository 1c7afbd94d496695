"""Events that are due later: kept once, leased by one, taken away with what ended their job."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from processors.errors import RetryableError
from processors.ports import DueEvent
from schemas.envelope import Attributes, Envelope, Headers, Record
from schemas.events import Attempt, Job, JobFinished
from sinks.due_store import LEASE, DueStore
from sinks.pool import Pool
from sinks.postgres import JobStore, OutcomeSink, PendingSink
from tests.factories import NOW, job, job_admitted, job_finished

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=6)
    yield pool
    await pool.close()


def due(of: Job | None = None, *, in_s: float = 0, **overrides: Any) -> DueEvent:
    of = of or job()
    due_id = str(uuid4())
    headers: Headers = [("ce_id", due_id.encode()), ("traceparent", b"any \x00 bytes \xff")]
    fields: dict[str, Any] = {
        "due_id": due_id, "job_id": of.job_id, "run": of.run, "stage": "generate_completion",
        "code": "provider-http-503", "attempts": (Attempt(provider="openai", code="provider-http-503", ms=3),),
        "record": Record("completion-requested-openai", b"k\x00", b"v\x00\xff", headers),
        "due_at": NOW + timedelta(seconds=in_s),
    }  # fmt: skip
    return DueEvent(**fields | overrides)


def wrapped(*events: JobFinished) -> list[Envelope[JobFinished]]:
    return [Envelope(Attributes(str(uuid4()), "/test", "t"), event) for event in events]


async def left(store: DueStore, *events: DueEvent) -> list[bool]:
    return [await store.of_job(event.job_id) is not None for event in events]


async def test_an_event_is_kept_once_and_comes_out_as_it_went_in(pool: Pool) -> None:
    store, event = DueStore(pool), due()
    await store.add(event)
    await store.add(event)
    waiting = await store.of_job(event.job_id)
    assert waiting is not None
    assert (waiting.stage, waiting.code, waiting.due_at) == (event.stage, event.code, event.due_at)
    assert waiting.attempts == [{"provider": "openai", "code": "provider-http-503", "ms": 3}]
    leased = await store.lease(500, now=NOW)
    assert leased.records == {event.due_id: event.record}
    await store.delete(leased, [event.due_id])
    assert await store.of_job(event.job_id) is None


async def test_what_is_not_due_is_left_and_said_when_it_will_be(pool: Pool) -> None:
    store = DueStore(pool)
    assert await store.next_due_at() is None
    soon, late = due(in_s=5), due(in_s=50)
    await store.add(late)
    await store.add(soon)
    assert await store.next_due_at() == soon.due_at
    assert (await store.lease(500, now=NOW)).records == {}
    leased = await store.lease(500, now=soon.due_at)
    assert list(leased.records) == [soon.due_id]
    assert await store.next_due_at() == late.due_at


async def test_two_releasers_never_have_the_same_and_no_more_than_they_asked_for(pool: Pool) -> None:
    store = DueStore(pool)
    await asyncio.gather(*(store.add(due()) for _ in range(60)))
    taken = await asyncio.gather(*(store.lease(20, now=NOW) for _ in range(4)))
    assert max(len(leased.records) for leased in taken) <= 20
    ids = [due_id for leased in taken for due_id in leased.records]
    assert len(ids) == len(set(ids))
    rest = await store.lease(500, now=NOW)
    assert len(ids) + len(rest.records) == 60


async def test_a_lease_that_ran_out_is_somebody_elses_who_alone_may_delete(pool: Pool) -> None:
    store, event = DueStore(pool), due()
    await store.add(event)
    first = await store.lease(500, now=NOW)
    assert (await store.lease(500, now=NOW + LEASE / 2)).records == {}
    second = await store.lease(500, now=NOW + LEASE)
    assert list(second.records) == [event.due_id]
    await store.delete(first, [event.due_id])
    assert await left(store, event) == [True]
    await store.give_back(second)
    third = await store.lease(500, now=NOW)
    assert list(third.records) == [event.due_id]


@pytest.mark.parametrize(
    ("code", "run", "of_run", "stays"),
    [(None, 1, 1, False), ("cancelled", 1, 1, False), (None, 2, 1, False), (None, 1, 2, True),
     ("rate-limited", 1, 1, True)],
)  # fmt: skip
async def test_a_row_goes_with_what_ended_its_job(pool: Pool, code, run: int, of_run: int, stays: bool) -> None:
    """A `rate-limited` outcome yields to another of its run, and a later run has an end of its own."""
    store, of = DueStore(pool), job(callback_url="https://example.com/hook")
    event, other = due(of.model_copy(update={"run": of_run})), due()
    await store.add(event)
    await store.add(other)
    await OutcomeSink(pool).write(wrapped(job_finished(job=of.model_copy(update={"run": run}), code=code)))
    assert await left(store, event, other) == [stays, True]


async def test_an_event_of_a_job_that_has_ended_is_never_leased(pool: Pool) -> None:
    store, ended, runs = DueStore(pool), job(), job()
    await PendingSink(pool).write([Envelope(Attributes("1", "/test", "t"), job_admitted(job=runs))])
    await OutcomeSink(pool).write(wrapped(job_finished(job=ended)))
    late, other = due(ended), due(runs)  # put off by somebody who did not know
    await store.add(late)
    await store.add(other)
    assert list((await store.lease(500, now=NOW)).records) == [other.due_id]
    assert await left(store, late) == [False]


async def test_who_is_overdue_is_told_as_the_row_knows_it(pool: Pool) -> None:
    late = job(role="admin", callback_url="https://example.com/hook", metadata={"a": "b"}, expires_at=NOW)
    later = job(expires_at=NOW + timedelta(seconds=1))
    ended = job(expires_at=NOW)
    envelopes = [
        Envelope(Attributes(str(n), "/t", "t"), job_admitted(job=of)) for n, of in enumerate((later, ended, late))
    ]
    await PendingSink(pool).write(envelopes)
    await OutcomeSink(pool).write(wrapped(job_finished(job=ended)))
    store = JobStore(pool)
    assert await store.overdue(before=NOW, limit=10) == []
    assert await store.overdue(before=NOW + timedelta(seconds=2), limit=10) == [late, later]
    assert await store.overdue(before=NOW + timedelta(seconds=2), limit=1) == [late]


async def test_a_database_that_is_away_is_retryable() -> None:
    with pytest.raises(RetryableError):
        await DueStore(Pool("postgresql://nobody@127.0.0.1:1/none", size=1)).add(due())
