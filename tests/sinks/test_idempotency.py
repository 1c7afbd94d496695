"""Keys in Postgres: one of many gets each, and none outlives its day."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from sinks.idempotency import IdempotencyStore, KeyRow
from sinks.pool import Pool

pytestmark = pytest.mark.integration
A_JOB = """INSERT INTO jobs (job_id, user_id, kind, status, accepted_at, expires_at)
           VALUES ($1, 'alice', 'chat', 'pending', now(), now())"""
OLD = "UPDATE idempotency_keys SET created_at = now() - interval '25 hours'"


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=8)
    yield pool
    await pool.close()


async def row_of(store: IdempotencyStore, key: str) -> KeyRow:
    row = await store.find("alice", key)
    assert row is not None
    return row


async def test_one_of_many_claims_a_key_and_one_takes_it_over(pool: Pool) -> None:
    store, ids = IdempotencyStore(pool), [uuid4() for _ in range(20)]
    won = await asyncio.gather(*(store.claim("alice", "k", b"f", job_id) for job_id in ids))
    assert won.count(True) == 1
    row = await row_of(store, "k")
    assert row.job_id == ids[won.index(True)]
    assert (row.accepted, row.publications, row.status) == (False, 1, None)
    assert (await asyncio.gather(*(store.take_over("alice", "k", row) for _ in range(20)))).count(True) == 1
    assert (await row_of(store, "k")).publications == 2
    await store.accepted("alice", "k", row.job_id)
    assert (await row_of(store, "k")).accepted
    assert not await store.take_over("alice", "k", await row_of(store, "k"))
    assert await store.find("bob", "k") is None


async def test_what_was_not_handed_over_is_free_at_once(pool: Pool) -> None:
    store, job_id = IdempotencyStore(pool), uuid4()
    await store.claim("alice", "k", b"f", job_id)
    await store.give_back("alice", "k", uuid4())
    assert await store.find("alice", "k") is not None
    await store.give_back("alice", "k", job_id)
    assert await store.find("alice", "k") is None
    await store.claim("alice", "k", b"f", job_id)
    await store.take_over("alice", "k", await row_of(store, "k"))
    await store.give_back("alice", "k", job_id)  # the first may have arrived: the job stays, for the next to take over
    row = await row_of(store, "k")
    assert row.job_id == job_id
    assert row.published_ago_s > 1_000_000


async def test_after_a_log_was_lost_a_key_whose_job_has_no_row_publishes_again(pool: Pool) -> None:
    store, gone, stored = IdempotencyStore(pool), uuid4(), uuid4()
    for key, job_id in (("gone", gone), ("stored", stored)):
        await store.claim("alice", key, b"f", job_id)
        await store.accepted("alice", key, job_id)
    async with pool.connection() as connection:
        await connection.execute(A_JOB, stored)
    assert await store.forget_without_a_job() == 1
    row = await row_of(store, "gone")
    assert (row.accepted, row.job_id) == (False, gone)
    assert row.published_ago_s > 1_000_000
    assert await store.take_over("alice", "gone", row)
    assert (await row_of(store, "stored")).accepted


async def test_a_key_is_freed_only_by_who_knows_all_of_its_publications(pool: Pool) -> None:
    store, job_id = IdempotencyStore(pool), uuid4()
    await store.claim("alice", "k", b"f", job_id)
    await store.take_over("alice", "k", await row_of(store, "k"))
    await store.free("alice", "k", job_id, publications=1)
    assert await store.find("alice", "k") is not None
    await store.free("alice", "k", job_id, publications=2)
    assert await store.find("alice", "k") is None


async def test_after_a_day_a_key_is_free_and_swept_a_batch_at_a_time(pool: Pool) -> None:
    store = IdempotencyStore(pool)
    for n in range(5):
        await store.claim("alice", f"old {n}", b"f", uuid4())
    async with pool.connection() as connection:
        await connection.execute(OLD)
    await store.claim("alice", "young", b"f", uuid4())
    assert await store.find("alice", "old 0") is None
    fresh: UUID = uuid4()
    assert await store.claim("alice", "old 0", b"g", fresh)
    assert (await row_of(store, "old 0")).job_id == fresh
    assert [await store.delete_expired(3) for _ in range(3)] == [3, 1, 0]
    assert await store.find("alice", "young") is not None
