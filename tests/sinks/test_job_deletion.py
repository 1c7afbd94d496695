"""A deleted job: nothing of it is left, and nothing brings it back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from processors.agents.ports import Observed, PlannedStep
from recover.rows import NOT_AGAIN
from schemas.envelope import Attributes, Envelope
from schemas.events import Job
from schemas.ids import uuid7
from sinks.agent_steps import AgentStepStore
from sinks.dead_letters import DeadLetterStore, Filter
from sinks.due_store import DueStore
from sinks.idempotency import IdempotencyStore
from sinks.job_deletion import FIND, KEPT, JobDeletion
from sinks.job_export import JobExport, Wanted
from sinks.payloads import PayloadStore
from sinks.pool import Pool
from sinks.postgres import JobStore, OutcomeSink, PendingSink
from sinks.unfinished import UnfinishedJobs
from sinks.webhook_store import WebhookStore
from tests.factories import NOW, job, job_admitted, job_finished
from tests.sinks.test_dead_letters import claimed, of_job, store
from tests.sinks.test_due_store import due
from tests.sinks.test_payloads import PLENTY, payload
from tests.waiting import until

pytestmark = pytest.mark.integration
URL = "https://example.com/hook"
SECRET_WORDS = "swordfish"


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=6)
    yield pool
    await pool.close()


def wrapped(event: Any) -> list[Envelope[Any]]:
    return [Envelope(Attributes(str(uuid4()), "/test", "t"), event)]


async def run(pool: Pool, statement: str, *values: Any) -> list[Any]:
    async with pool.connection() as connection:
        rows: list[Any] = await connection.fetch(statement, *values)
    return rows


async def ended_job(pool: Pool, *, code: str | None = None, **more: Any) -> Job:
    """A job that has ended, with something of it in every table."""
    of = job(callback_url=URL, metadata={"about": SECRET_WORDS}, **more)
    await PendingSink(pool).write(wrapped(job_admitted(job=of)))
    await OutcomeSink(pool).write(wrapped(job_finished(job=of, code=code, result={"text": SECRET_WORDS})))
    await DueStore(pool).add(due(of))
    own = payload(SECRET_WORDS.encode(), job_id=of.job_id, user_id=of.user_id)
    await PayloadStore(pool).store(own, user_bytes=PLENTY)
    await IdempotencyStore(pool).claim(of.user_id, f"key of {of.job_id}", b"f", of.job_id)
    steps = AgentStepStore(pool)
    await steps.plan(of, "a", 1, PlannedStep(SECRET_WORDS, "search", {"query": SECRET_WORDS}), goal=SECRET_WORDS)
    await steps.observe(of, 1, Observed(SECRET_WORDS))
    letter = of_job(of.job_id, offset=of.job_id.int % 1_000_000, user_id=of.user_id, value=SECRET_WORDS.encode())
    await store(pool, letter)
    return of


async def contents(pool: Pool, of: Job) -> str:
    """All that Postgres has of a job, as text."""
    tables = await run(
        pool,
        """SELECT table_name FROM information_schema.columns
           WHERE column_name = 'job_id' AND table_schema = 'public' ORDER BY 1""",
    )
    found = [await run(pool, f"SELECT t::text FROM {row[0]} t WHERE job_id = $1", of.job_id) for row in tables]
    texts = [row[0] for rows in found for row in rows]
    return "\n".join(texts)


def spoken_of(text: str) -> bool:
    """Bytes are shown in hexadecimal."""
    return SECRET_WORDS in text or SECRET_WORDS.encode().hex() in text


async def test_nothing_of_what_was_asked_and_answered_stays(pool: Pool) -> None:
    of, other = await ended_job(pool), await ended_job(pool)
    deletion, before = JobDeletion(pool), await contents(pool, other)
    assert spoken_of(await contents(pool, of))
    assert await deletion.delete(of.job_id, of="alice") == "deleted"
    assert not spoken_of(await contents(pool, of))
    assert URL not in await contents(pool, of)
    assert await contents(pool, other) == before
    assert await JobStore(pool).get(of.job_id) is None
    assert await WebhookStore(pool).attempts(of.job_id) == []
    assert await DueStore(pool).of_job(of.job_id) is None
    assert await IdempotencyStore(pool).find("alice", f"key of {of.job_id}") is None
    remembered = await AgentStepStore(pool).memory("alice", "a", limit=10)
    assert [step.job_id for step, _ in remembered] == [other.job_id]
    letters, _ = await DeadLetterStore(pool).page(Filter(job_id=of.job_id), limit=10, cursor=None)
    assert [letter.code for letter in letters] == ["provider-http-401"]  # what has failed is still seen


async def test_it_is_in_no_list(pool: Pool) -> None:
    of, other = await ended_job(pool), await ended_job(pool)
    await JobDeletion(pool).delete(of.job_id, of=None)
    jobs, export = JobStore(pool), JobExport(pool)
    assert [row.job_id for row in (await jobs.page(user_id="alice", status=None, limit=9, cursor=None))[0]] == [
        other.job_id
    ]
    assert [row.job_id for row in await jobs.finished([of.job_id, other.job_id])] == [other.job_id]
    wanted = Wanted("alice")
    page = await export.page(wanted, export.start(wanted))
    assert [row.job_id for row in page.jobs] == [other.job_id]


async def test_whose_it_is_not_and_what_has_not_ended_is_left_alone(pool: Pool) -> None:
    deletion, of, waits = JobDeletion(pool), await ended_job(pool), job()
    await PendingSink(pool).write(wrapped(job_admitted(job=waits)))
    assert await deletion.delete(of.job_id, of="mallory") is None
    assert await deletion.delete(uuid4(), of=None) is None
    assert await deletion.delete(waits.job_id, of="alice") == "pending"
    assert await JobStore(pool).get(waits.job_id) is not None
    assert not await deletion.is_deleted(of.job_id)
    assert await deletion.delete(of.job_id, of=None) == "deleted"
    assert await deletion.is_deleted(of.job_id)
    assert await deletion.delete(of.job_id, of="alice") is None


@pytest.mark.parametrize("code", [None, "timeout", "rate-limited"])
async def test_no_outcome_that_comes_later_brings_it_back(pool: Pool, code: str | None) -> None:
    """A redelivery, a direct publisher's retry, a run that was begun before, and `assistant recover --postgres`."""
    of = await ended_job(pool, code=code)
    await JobDeletion(pool).delete(of.job_id, of="alice")
    before = await contents(pool, of)
    again = of.model_copy(update={"run": 2})
    for sink in (OutcomeSink(pool), OutcomeSink(pool, give_up_webhooks=NOT_AGAIN)):
        for later in (of, again):
            await sink.write(wrapped(job_finished(job=later, result={"text": "later"})))
            await PendingSink(pool).write(wrapped(job_admitted(job=later)))
    assert await contents(pool, of) == before  # no webhook either
    runs = [(of.job_id, 1), (of.job_id, 2)]
    assert await JobStore(pool).ended_runs(runs) == set(runs)  # nobody is paid for it
    await DueStore(pool).add(due(of))
    assert (await DueStore(pool).lease(9, now=NOW)).records == {}
    assert await UnfinishedJobs(pool).page(after=None, limit=9) == []


async def test_an_outcome_that_is_being_stored_meanwhile_does_not_either(pool: Pool) -> None:
    of = await ended_job(pool, code="timeout")
    async with pool.connection() as connection, connection.transaction():
        await connection.fetchrow(FIND, of.job_id, None)  # as the first statement of a deletion
        later = job_finished(job=of.model_copy(update={"run": 2}))
        writing = asyncio.create_task(OutcomeSink(pool).write(wrapped(later)))
        deleting = asyncio.create_task(JobDeletion(pool).delete(of.job_id, of=None))

        async def both_wait() -> bool:
            return len(await run(pool, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'")) == 2

        await until(both_wait)
    await writing
    assert await deleting == "deleted"
    assert await JobStore(pool).get(of.job_id) is None


async def test_it_is_not_redriven(pool: Pool) -> None:
    of = await ended_job(pool, code="provider-http-401")
    (letter,) = await DeadLetterStore(pool).oldest(Filter(job_id=of.job_id), limit=1, after=None)
    await run(pool, "UPDATE jobs SET outcome_id = 'o-1' WHERE job_id = $1", of.job_id)
    await JobDeletion(pool).delete(of.job_id, of="alice")
    assert await claimed(DeadLetterStore(pool), letter) == "the job is not stored, or no longer"


async def test_a_run_that_was_begun_again_is_to_be_cancelled_first(pool: Pool) -> None:
    of = await ended_job(pool, code="provider-http-401")
    (letter,) = await DeadLetterStore(pool).oldest(Filter(job_id=of.job_id), limit=1, after=None)
    await run(pool, "UPDATE jobs SET outcome_id = 'o-1' WHERE job_id = $1", of.job_id)
    assert not isinstance(await claimed(DeadLetterStore(pool), letter), str)
    assert await JobDeletion(pool).delete(of.job_id, of="alice") == "pending"


async def test_the_rest_of_it_goes_when_kafka_has_forgotten_the_job(pool: Pool) -> None:
    deletion = JobDeletion(pool)
    old, young, kept = [await ended_job(pool) for _ in range(3)]
    for one in (old, young):
        await deletion.delete(one.job_id, of=None)
    await run(pool, "UPDATE jobs SET deleted_at = deleted_at - $2::interval WHERE job_id = $1", old.job_id, KEPT)
    assert await deletion.delete_old() == 1
    assert {row["job_id"] for row in await run(pool, "SELECT job_id FROM jobs")} == {young.job_id, kept.job_id}
    assert await deletion.delete_old(kept=timedelta(0), limit=1) == 1


async def test_a_payload_that_is_for_more_than_one_job_stays(pool: Pool) -> None:
    of, shared = await ended_job(pool), payload(b"for any job", payload_id=uuid7())
    await PayloadStore(pool).store(shared, user_bytes=PLENTY)
    await JobDeletion(pool).delete(of.job_id, of=None)
    assert await PayloadStore(pool).load(shared.payload_id, user_id="alice") is not None
