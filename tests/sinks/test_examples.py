"""Examples on a real Postgres: each content of a user's once, whoever asks, and only the user's own."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from processors.errors import PermanentError
from schemas.requests import ExampleRequest
from sinks.examples import ExampleStore
from sinks.pool import Pool
from tests.factories import job

pytestmark = pytest.mark.integration


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = Pool(database, size=4)
    yield pool
    await pool.close()


def example(output: str) -> ExampleRequest:
    return ExampleRequest(instruction="Say it.", output=output)


async def added(store: ExampleStore, output: str, user_id: str = "alice") -> UUID:
    return (await store.add(job(kind="example", user_id=user_id), uuid4(), example(output))).example_id


async def test_each_content_is_kept_once_for_a_user_and_a_redelivery_is_no_duplicate(pool: Pool) -> None:
    store = ExampleStore(pool)
    first, first_id = job(kind="example"), uuid4()
    for _ in range(2):
        kept = await store.add(first, first_id, example("one"))
        assert (kept.example_id, kept.is_new) == (first_id, True)
    again = await store.add(job(kind="example"), uuid4(), example("one"))
    assert (again.example_id, again.is_new) == (first_id, False)
    assert await added(store, "one", "bob") != first_id
    rows, after = await store.page("alice", text=None, before=None, limit=10)
    assert ([row.output for row in rows], after) == (["one"], None)


async def test_pages_and_exports_hold_what_fits_and_is_the_users_own(pool: Pool) -> None:
    store = ExampleStore(pool)
    for number in range(5):
        await added(store, f"Number {number} is 100% right")
    await added(store, "Number 9", "bob")
    first, after = await store.page("alice", text="nUMBER", before=None, limit=3)
    second, end = await store.page("alice", text="nUMBER", before=after, limit=3)
    assert [row.output[7] for row in (*first, *second)] == ["4", "3", "2", "1", "0"]
    assert end is None
    assert (await store.page("alice", text="%x%", before=None, limit=3))[0] == []
    assert len((await store.page("alice", text="100%", before=None, limit=9))[0]) == 5
    oldest = await store.oldest("alice", text=None, after=0, limit=2)
    assert [row.output[7] for row in oldest] == ["0", "1"]
    rest = await store.oldest("alice", text=None, after=oldest[-1].number, limit=9)
    assert [row.output[7] for row in rest] == ["2", "3", "4"]


async def test_more_than_a_user_may_have_is_refused_and_a_deleted_one_makes_room(pool: Pool) -> None:
    store = ExampleStore(pool, max_per_user=1)
    only = await added(store, "one")
    with pytest.raises(PermanentError) as caught:
        await added(store, "two")
    assert caught.value.code == "too-many-examples"
    assert await added(store, "one") == only  # what is there already takes no room
    assert not await store.delete(only, user_id="bob")
    assert await store.delete(only, user_id="alice")
    assert not await store.delete(only, user_id="alice")
    await added(store, "two")
